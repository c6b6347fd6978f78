"""From a tree of predicted masks and a tree of reference masks to `scores.csv` and `scores.json`.

`scores.csv` has a row a reference disc; its columns are the fields of `challenge.DiscScore`. `scores.json` has the
means by the challenge's rule (over the discs of a case, then over the cases), how sure they are, a summary of each
case, and the conventions all of it rests on.
"""

import csv
import dataclasses
import io
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ivdjax import __version__
from ivdjax.data import dataset, grouping, masks, nifti
from ivdjax.errors import DataError, UsageError
from ivdjax.evaluation import challenge, discs, metrics
from ivdjax.evaluation.challenge import CaseScores, DiscScore, score_case
from ivdjax.evaluation.discs import Scheme
from ivdjax.evaluation.statistics import INTERVAL, RESAMPLES, Estimate, estimate
from ivdjax.files import writable, write_json, write_text

COLUMNS = tuple(field.name for field in dataclasses.fields(DiscScore))
DISC_METRICS = ("dice", "asd_mm", "center_mm", "hd95_mm", "nsd_1mm")

# Volume Dice over the mean Dice by more than this: masks that agree, with labels that do not.
OTHERWISE_NUMBERED = 0.3

CONVENTIONS = {
    "mean": "over the discs of a case, then over the cases; std is the sample standard deviation over the cases",
    "sections": "a voxel of a binary prediction goes to its nearest reference disc; labels are scored label by label",
    "disc": "1 is the lowest reference disc, upwards",
    "found": f"Dice of at least {challenge.FOUND_DICE}",
    "missed": (
        f"not found, and under {challenge.NEXT_TO_NOTHING:.0%} of the disc's volume predicted: Dice 0, NSD 0, every "
        "distance the diagonal of the volume"
    ),
    "surface": "area-weighted elements as in DeepMind's surface-distance",
    "asd_mm": "mean of the two directed mean surface distances",
    "hd95_mm": "larger of the two directed 95th percentiles of the surface distance",
    "nsd_1mm": f"share of both surfaces within {metrics.NSD_TOLERANCE_MM:g} mm of the other",
    "center_mm": "distance of the centres of gravity of the section and of the disc",
    "volume_dice": "Dice of the whole masks, then the mean over cases",
    "false_discs": (
        f"predicted 26-connected components, no specks, wholly over {challenge.FALSE_DISC_GAP_MM:g} mm away from "
        "every reference disc"
    ),
    "specks": (
        f"components under {dataset.SPECK_MM3:g} mm3 and under {dataset.SPECK_SHARE:.0%} of the largest disc; "
        "those of a binary reference are no discs"
    ),
}


@dataclass(frozen=True)
class LevelScores:
    """The discs of one place in the column, over all cases that have one there."""

    disc: int
    """1 = lowest, upwards."""
    discs: int
    """How many there are."""
    found: int
    """How many of them were found."""
    estimates: Mapping[str, Estimate]
    """By the name of the metric, those of `DISC_METRICS`; missed discs count as everywhere."""


@dataclass(frozen=True)
class Summary:
    """What an evaluation found."""

    cases: tuple[CaseScores, ...]
    """The scores of every reference case, by name."""
    estimates: Mapping[str, Estimate]
    """By the name of the metric: those of `DISC_METRICS`, and volume_dice."""
    levels: tuple[LevelScores, ...]
    """The same by disc, the lowest first."""
    subjects: Mapping[str, str] | None
    """Whose scan each case is, where the interval resamples subjects; None where it resamples cases."""
    warnings: tuple[str, ...]
    """A line for everything a reader of the scores must know, such as a case without a prediction."""
    prediction_scheme: Scheme | None = None
    """What the predictions' label values mean; None where they were taken as they are."""
    reference_scheme: Scheme | None = None
    """What the references' label values mean; None where they were taken as they are."""

    @property
    def discs(self) -> int:
        """Number of reference discs."""
        return sum(len(case.discs) for case in self.cases)

    @property
    def discs_found(self) -> int:
        """Number of reference discs that were found."""
        return sum(disc.found for case in self.cases for disc in case.discs)

    @property
    def false_discs(self) -> int:
        """Number of predicted discs where the reference has none."""
        return sum(case.false_discs for case in self.cases)


def evaluate(
    predictions: Path,
    references: Path,
    out: Path,
    *,
    cases: Collection[str] | None = None,
    subjects: Mapping[str, str] | None = None,
    label_grid: str = "refuse",
    prediction_scheme: Scheme | None = None,
    reference_scheme: Scheme | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Summary:
    """Score predicted masks, any tool's, against reference masks, and write `scores.csv` and `scores.json`.

    Every reference case is scored: one whose prediction is missing or empty gets the penalty for each of its discs,
    and a line among the warnings.

    Args:
      predictions: a folder with `<case>.nii[.gz]` or `<case>_Labels.nii[.gz]`, or one file.
      references: a tree of cases in any layout of `data.dataset`, a flat folder of masks `<case>.nii[.gz]`, or one
        file. A predicted file is scored against the reference file, or against the case of its name alone.
      out: folder to write to; made if need be.
      cases: names of the reference cases to score; None scores them all.
      subjects: the subject of each case. Scans of one subject are alike, so the intervals then resample subjects.
      label_grid: for a reference that lies elsewhere than its prediction: "refuse" it, trust its "voxels" and ignore
        its header, or resample it by its "header" (as `data.dataset.load`).
      prediction_scheme: what the predictions' label values mean. Values that are no discs under it are ignored. None
        takes the values as they are: masks of one value are binary, and several are compared with the reference's.
      reference_scheme: what the references' label values mean, likewise.
      progress: called after each case with the number of cases done and of all.

    Raises:
      DataError: a mask cannot be read, a reference holds no disc, a prediction that is not empty holds none of its
        scheme's, a prediction lies on another grid than its reference, or not one reference has a prediction.
      UsageError: `subjects` lacks a case.
    """
    writable(Path(out))
    pairs, warnings = _pair(Path(predictions), Path(references))
    if cases is not None:
        if unknown := [case for case in cases if case not in pairs]:
            raise UsageError(f"{references}: has no case {', '.join(unknown)}; it has {_few(pairs)}")
        pairs = {case: paths for case, paths in pairs.items() if case in cases}
    if subjects is not None and (absent := [case for case in pairs if case not in subjects]):
        raise UsageError(f"no subject is given for case {', '.join(absent)}; name one for every case")
    scores, lines = _score_all(pairs, _Reading(label_grid, prediction_scheme, reference_scheme), progress)
    summary = summarise(scores, subjects, [*warnings, *lines])
    summary = dataclasses.replace(summary, prediction_scheme=prediction_scheme, reference_scheme=reference_scheme)
    write_text(Path(out) / "scores.csv", to_csv(scores))
    write_json(Path(out) / "scores.json", to_json(summary))
    return summary


def assign_subjects(predictions: Path, references: Path, rule: str, table: Path | None = None) -> dict[str, str]:
    """Say whose scan each case is that `evaluate` would score; rules and errors are `data.dataset`'s."""
    pairs, _ = _pair(Path(predictions), Path(references))
    cases = [dataset.Case(name, (), None, name) for name in pairs]
    return {case.name: case.subject for case in grouping.assign_subjects(cases, rule, table)}


def summarise(
    scores: Sequence[CaseScores], subjects: Mapping[str, str] | None = None, warnings: Sequence[str] = ()
) -> Summary:
    """Average the scores of one or more cases; see `evaluate` for the arguments."""
    groups = [case.case if subjects is None else subjects[case.case] for case in scores]
    estimates = {name: estimate([_mean(case, name) for case in scores], groups) for name in DISC_METRICS}
    estimates["volume_dice"] = estimate([case.volume_dice for case in scores], groups)
    return Summary(tuple(scores), estimates, _levels_of(scores, groups), subjects, tuple(warnings))


def _levels_of(scores: Sequence[CaseScores], groups: Sequence[str]) -> tuple[LevelScores, ...]:
    levels = []
    for number in sorted({disc.disc for case in scores for disc in case.discs}):
        at = [
            (disc, group)
            for case, group in zip(scores, groups, strict=True)
            for disc in case.discs
            if disc.disc == number
        ]
        discs_there, whose = zip(*at, strict=True)
        estimates = {name: estimate([getattr(disc, name) for disc in discs_there], whose) for name in DISC_METRICS}
        levels.append(LevelScores(number, len(at), sum(disc.found for disc in discs_there), estimates))
    return tuple(levels)


def to_csv(scores: Sequence[CaseScores]) -> str:
    """The text of `scores.csv`: a row a reference disc, numbers to six decimals, found as 1 or 0."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for case in scores:
        for disc in case.discs:
            row = {**dataclasses.asdict(disc), "found": int(disc.found)}
            writer.writerow(round(v, 6) if isinstance(v, float) else v for v in row.values())
    return text.getvalue()


def to_json(summary: Summary) -> dict[str, Any]:
    """The content of `scores.json`, in plain JSON values."""
    found = [disc for case in summary.cases for disc in case.discs if disc.found]
    return {
        **{name: dataclasses.asdict(estimate) for name, estimate in summary.estimates.items()},
        "discs": summary.discs,
        "discs_found": summary.discs_found,
        "false_discs": summary.false_discs,
        "found_discs_only": {
            name: float(np.mean([getattr(disc, name) for disc in found])) if found else None for name in DISC_METRICS
        },
        "per_disc": [
            {
                "disc": level.disc,
                "discs": level.discs,
                "discs_found": level.found,
                **{name: dataclasses.asdict(estimate) for name, estimate in level.estimates.items()},
            }
            for level in summary.levels
        ],
        "cases": [
            {
                "case": case.case,
                **({} if summary.subjects is None else {"subject": summary.subjects[case.case]}),
                **{name: _mean(case, name) for name in DISC_METRICS},
                "volume_dice": case.volume_dice,
                "discs": len(case.discs),
                "discs_found": sum(disc.found for disc in case.discs),
                "false_discs": case.false_discs,
            }
            for case in summary.cases
        ],
        "interval": {
            "level": INTERVAL,
            "method": f"percentile bootstrap of the mean, {RESAMPLES} resamples",
            "resampled": "cases" if summary.subjects is None else "subjects",
        },
        "label_schemes": {
            "prediction": _scheme_name(summary.prediction_scheme),
            "reference": _scheme_name(summary.reference_scheme),
        },
        "conventions": CONVENTIONS,
        "warnings": list(summary.warnings),
        "ivdjax": __version__,
    }


def _pair(predictions: Path, references: Path) -> tuple[dict[str, tuple[Path | None, Path]], list[str]]:
    """For each case to score its prediction, or None, and its reference; and a line for what was left over."""
    referred = masks.find(references)
    if predictions.is_file():
        if references.is_file():
            return {case: (predictions, reference) for case, reference in referred.items()}, []
        (case,) = masks.find(predictions)
        if case not in referred:
            raise DataError(
                f"{predictions}: {references} has no case of that name (it has {_few(referred)}); pass the file of "
                "its reference instead"
            )
        return {case: (predictions, referred[case])}, []
    predicted = masks.find(predictions, referred)
    if not predicted.keys() & referred.keys():
        raise DataError(
            f"{predictions}: none of its masks ({_few(predicted)}) is named after a case of {references} "
            f"({_few(referred)}); name them <case>.nii.gz"
        )
    swapped = _named_as_labels(predicted) and not _named_as_labels(referred)
    extra = [case for case in predicted if case not in referred]
    warnings = [f"{predictions}: not scored, for want of a reference: {_few(extra)}"] if extra else []
    if swapped:
        warnings.append(
            f"{predictions}: its masks are named as references are, those of {references} are not; PREDICTIONS come "
            "first, then REFERENCES"
        )
    return {case: (predicted.get(case), reference) for case, reference in referred.items()}, warnings


def _named_as_labels(found: Mapping[str, Path]) -> bool:
    return any(masks.case_name(path) != path.name.partition(".nii")[0] for path in found.values())


def _few(names: Collection[str]) -> str:
    names = list(names)
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


@dataclass(frozen=True)
class _Reading:
    """How masks are read: what to do where grids differ, and what label values mean; see `evaluate`."""

    label_grid: str
    prediction_scheme: Scheme | None
    reference_scheme: Scheme | None


def _score_all(
    pairs: Mapping[str, tuple[Path | None, Path]], reading: _Reading, progress: Callable[[int, int], None] | None
) -> tuple[list[CaseScores], list[str]]:
    scores, warnings = [], []
    # Threads, not processes: unzipping and distances release the lock, and nothing has to be started or copied. On two
    # cores they score 24 cases 1.7 times as fast as one thread, and sooner than two processes do.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = [pool.submit(_score_files, case, *paths, reading) for case, paths in pairs.items()]
        try:
            for done, job in enumerate(jobs, start=1):
                case_scores, lines = job.result()
                scores.append(case_scores)
                warnings += lines
                if progress is not None:
                    progress(done, len(jobs))
        finally:
            pool.shutdown(cancel_futures=True)
    return scores, warnings


def _score_files(
    case: str, prediction: Path | None, reference: Path, reading: _Reading
) -> tuple[CaseScores, list[str]]:
    if prediction is None:
        label = nifti.read_label(reference)
        reference_ZxHxW = _levels(label.array, reading.reference_scheme, reference)
        warnings = [f"{case}: no prediction for {reference}; each of its discs scores as missed"]
        nothing = np.zeros_like(reference_ZxHxW)
        return _score(case, nothing, reference_ZxHxW, label.spacing_mm, str(reference), reading), warnings
    grid, reference_grid = nifti.read_grid(prediction), nifti.read_grid(reference)
    fault = dataset.difference(grid, reference_grid)
    if fault and reading.label_grid == "refuse":
        raise DataError(
            f"{prediction}: {fault} than {reference}; nothing is resampled: bring it to the reference's grid"
        )
    reference_ZxHxW = dataset.load_label(reference, grid, reading.label_grid)
    reference_ZxHxW = _levels(reference_ZxHxW, reading.reference_scheme, reference)
    prediction_ZxHxW = _levels(nifti.read_label(prediction).array, reading.prediction_scheme, prediction)
    empty = not prediction_ZxHxW.any()
    warnings = [f"{prediction}: empty; each disc of case {case} scores as missed"] if empty else []
    # Headers that agree up to rounding are the reference's: every tool's masks are measured with the same voxel.
    spacing_mm = (grid if fault else reference_grid).spacing_mm
    where = f"{prediction} against {reference}"
    scores = _score(case, prediction_ZxHxW, reference_ZxHxW, spacing_mm, where, reading)
    if scores.volume_dice - _mean(scores, "dice") > OTHERWISE_NUMBERED:
        warnings.append(
            f"{prediction}: agrees with the reference as a whole (Dice {scores.volume_dice:.2f}) but not disc by disc "
            f"({_mean(scores, 'dice'):.2f}); are both numbered alike?"
        )
    return scores, warnings


def _score(
    case: str, prediction: np.ndarray, reference: np.ndarray, spacing: metrics.Spacing, where: str, reading: _Reading
) -> CaseScores:
    try:
        return score_case(
            case,
            prediction,
            reference,
            spacing,
            prediction_labelled=reading.prediction_scheme is not None,
            reference_labelled=reading.reference_scheme is not None,
        )
    except ValueError as error:
        raise DataError(f"{where}: {error}") from error


def _levels(labels_ZxHxW: np.ndarray, scheme: Scheme | None, path: Path) -> np.ndarray:
    """The levels of a label map under a scheme; an empty map, or one to be taken as it is, stays what it is."""
    if scheme is None or not labels_ZxHxW.any():
        return labels_ZxHxW
    try:
        return discs.from_scheme(labels_ZxHxW, scheme)
    except ValueError as error:
        raise DataError(f"{path}: {error}; name the scheme that it is numbered by") from error


def _scheme_name(scheme: Scheme | None) -> str:
    return "as-is" if scheme is None else scheme.name.lower()


def _mean(case: CaseScores, name: str) -> float:
    return float(np.mean([getattr(disc, name) for disc in case.discs]))
