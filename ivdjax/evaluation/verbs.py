"""What `ivdjax evaluate` and `ivdjax measure` take, and what they print."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ivdjax import files, progress
from ivdjax.config import Data
from ivdjax.errors import UsageError

# The names of `evaluation.discs.Scheme`, in small letters; and with a word for none.
NamedScheme = Literal["ivdjax", "mrspineseg", "spider", "totalspineseg"]
LabelScheme = Literal["as-is", NamedScheme]
MeasuredScheme = Literal["count", NamedScheme]


@dataclass(frozen=True)
class EvaluateVerb:
    """Score masks, any tool's, by the challenge's rules; writes scores.csv and scores.json."""

    predictions: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="PREDICTIONS")]
    """Folder of <case>.nii.gz, or one mask."""
    references: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="REFERENCES")]
    """Tree of cases, folder of masks, or one mask."""
    out: Path = Path("scores")
    """Folder for the scores."""
    cases: tuple[str, ...] = ()
    """Names of the cases to score; all references by default, those without a prediction as missed."""
    label_grid: Literal["refuse", "voxels", "header"] = "refuse"
    """A reference whose header disagrees with its prediction: refuse it, trust its voxels, or resample it."""
    subjects: Literal["single", "pairs", "table"] = "single"
    """Whose scans the cases are, for the intervals: one scan a subject, consecutive pairs (IVDM3Seg), or a table."""
    subject_table: Path | None = None
    """CSV file with the columns case,subject; read where subjects is table."""
    prediction_scheme: LabelScheme = "as-is"
    """What the predictions' values mean; as-is: one value is binary, several are numbered as the reference is."""
    reference_scheme: LabelScheme = "as-is"
    """What the references' values mean; as-is: one value is binary, several are discs."""

    def __call__(self) -> int:
        """Do it and return the exit code."""
        from ivdjax.evaluation import discs, evaluate

        if (self.subjects == "table") != (self.subject_table is not None):
            raise UsageError("--subjects table and --subject-table FILE go together; pass both or neither")
        files.not_of_run(self.out)
        schemes = {"as-is": None, **{scheme.name.lower(): scheme for scheme in discs.Scheme}}
        subjects = None
        if self.subjects != "single":
            subjects = evaluate.assign_subjects(self.predictions, self.references, self.subjects, self.subject_table)
        with progress.bar("scoring") as advance:
            summary = evaluate.evaluate(
                self.predictions,
                self.references,
                self.out,
                cases=self.cases or None,
                subjects=subjects,
                label_grid=self.label_grid,
                prediction_scheme=schemes[self.prediction_scheme],
                reference_scheme=schemes[self.reference_scheme],
                progress=advance,
            )
        for line in summary.warnings:
            print(line, file=sys.stderr)
        for name, value in summary.estimates.items():
            spread = "" if value.std is None else f" +- {value.std:.3f} over cases"
            interval = "" if value.low is None else f", 95 % interval {value.low:.3f} to {value.high:.3f}"
            print(f"{name:12} {value.mean:.3f}{spread}{interval}")
        print(f"discs found  {summary.discs_found} of {summary.discs}, false discs {summary.false_discs}")
        cases = len(summary.cases)
        if subjects is not None:
            print(f"intervals resample the {len(set(subjects.values()))} subjects of the {cases} cases")
        elif cases > 1:
            print(f"intervals take each of the {cases} cases for a subject; --subjects pairs where two are of one")
        print(f"scores in {self.out / 'scores.csv'} and {self.out / 'scores.json'}")
        return 0


@dataclass(frozen=True)
class MeasureVerb:
    """Name and measure the discs of masks: levels, volumes, heights, diameters, wedge angles and signals."""

    masks: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MASKS")]
    """A mask, a folder of masks, or a tree of cases with their labels."""
    case: Path | None = None
    """Folder of the case's images, or a tree of many, to measure signals in."""
    out: Path = Path("discs.csv")
    """The table to write."""
    channels: tuple[str, ...] = Data.channels
    """Names of the images to take."""
    scheme: MeasuredScheme = "count"
    """What the values of the masks mean; count: nothing, levels are counted from the lowest disc, L5/S1."""
    expected: int = 7
    """Discs that a whole mask has (IVDM3Seg: 7); another number is noted. 0 expects none."""
    labels: Path | None = None
    """Folder to write a label map a case to."""
    labels_scheme: NamedScheme = "ivdjax"
    """What the values of those label maps mean; ivdjax: 1 is L5/S1, upwards."""
    pictures: Path | None = None
    """Folder to draw each measured disc to, with its landmarks."""

    def __call__(self) -> int:
        """Do it and return the exit code."""
        from ivdjax.evaluation.discs import Scheme
        from ivdjax.evaluation.measure_masks import Outputs, measure_masks

        for path in (self.out, self.labels, self.pictures):
            if path is not None:
                files.not_of_run(path)
        for path in (self.labels, self.pictures):
            if path is not None:
                files.not_within(path, self.masks)
        with progress.bar("measuring") as advance:
            rows = measure_masks(
                self.masks,
                self.out,
                images=self.case,
                channels=self.channels,
                scheme=None if self.scheme == "count" else Scheme[self.scheme.upper()],
                expected=self.expected or None,
                outputs=Outputs(self.labels, Scheme[self.labels_scheme.upper()], self.pictures),
                progress=advance,
            )
        for case, note in dict.fromkeys((row.case, row.note) for row in rows if row.note):
            print(f"{case}: {note}", file=sys.stderr)
        print(f"{self.out}: {len(rows)} discs of {len({row.case for row in rows})} case(s)")
        for what, folder in (("label maps", self.labels), ("pictures", self.pictures)):
            if folder is not None:
                print(f"{folder}: {what}")
        return 0
