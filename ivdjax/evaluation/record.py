"""What a finished run's folder holds, read back for the pages about it."""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ivdjax.data import dataset, nifti, paths
from ivdjax.errors import DataError
from ivdjax.evaluation.challenge import DiscScore
from ivdjax.evaluation.evaluate import COLUMNS
from ivdjax.evaluation.metrics import Spacing
from ivdjax.files import read_json
from ivdjax.training import logbook

# What goes wrong where a file has values of other types or sizes than this version of ivdjax writes.
MALFORMED = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError)

# Where a run whose masks were worked on keeps them and their scores as they were before.
RAW = "raw"
# What it was made with and of; `ivdjax.provenance` says what is in there.
PROVENANCE = "provenance.json"


@dataclass(frozen=True)
class ReportCase:
    """A held-out case to show and to measure."""

    name: str
    """Name of the case, as in the scores."""
    image_ZxHxW: np.ndarray
    """Background: one channel's intensities, of any scale."""
    spacing_mm: Spacing
    """Voxel size along Z, H, W."""
    affine: np.ndarray
    """(4,4), from the image's voxel indices to scanner mm."""
    reference_ZxHxW: np.ndarray
    """Reference mask on the image's grid."""
    prediction_ZxHxW: np.ndarray
    """Predicted mask on the image's grid."""


@dataclass(frozen=True)
class Record:
    """A finished run."""

    folder: Path
    """Its folder."""
    config: Mapping[str, Any]
    """`config.json`."""
    scores: Mapping[str, Any]
    """`scores.json`."""
    discs: Sequence[DiscScore]
    """The rows of `scores.csv`."""
    log: Sequence[Mapping[str, Any]]
    """The rows of `log.jsonl`; none where there is no log."""

    raw_scores: Mapping[str, Any] | None = None
    """`raw/scores.json`: the scores before rules took anything out of the masks; None where there are no rules."""

    provenance: Mapping[str, Any] | None = None
    """`provenance.json`: what it was made with and of, where it tells."""

    @property
    def title(self) -> str:
        """Name of the experiment, or of the folder where it has none."""
        return str(self.config.get("name") or self.folder.resolve().name)

    @property
    def on_phantom(self) -> bool:
        """Whether the run had no scans, or phantoms in their place."""
        data = self.config.get("data")
        if not isinstance(data, dict):
            return False
        return data.get("root") is None or dataset.is_phantom(Path(str(data["root"])))

    @property
    def data_sha256(self) -> str | None:
        """Hash of the bytes of all scans and masks that the run learnt from or held out; None where it tells none."""
        return None if self.provenance is None else str(self.provenance["data"]["sha256"])

    @property
    def starts(self) -> Sequence[Mapping[str, Any]]:
        """Each time its training began or went on: at which step, when, with what and where."""
        return () if self.provenance is None else self.provenance["starts"]

    @property
    def worst_first(self) -> list[Mapping[str, Any]]:
        """The cases of `scores.json`, by mean Dice."""
        return sorted(self.scores["cases"], key=lambda case: (case["dice"], case["case"]))

    @property
    def training_s(self) -> float | None:
        """Seconds that training took, pauses not counted; None without a log."""
        return max((row["time_s"] for row in self.log), default=None)


def read(folder: Path) -> Record:
    """Read what a run left in its folder.

    Raises:
      DataError: a file of a finished run is missing or damaged.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: {'is a file' if folder.exists() else 'no such folder'}; pass the folder of a run")
    config = read_json(folder / "config.json")
    scores = read_json(folder / "scores.json")
    cases = scores.get("cases")
    if not isinstance(cases, list) or not cases or not all(isinstance(c, dict) and "case" in c for c in cases):
        raise DataError(f"{folder / 'scores.json'}: does not name its cases; evaluate the run again")
    raw, told = folder / RAW / "scores.json", folder / PROVENANCE
    return Record(
        folder,
        config,
        scores,
        _read_discs(folder / "scores.csv"),
        logbook.read(folder / "log.jsonl"),
        read_json(raw) if raw.exists() else None,
        read_json(told) if told.exists() else None,
    )


def load_cases(run: Record, names: Sequence[str] | None = None) -> list[ReportCase]:
    """Read held-out cases of a run, all or some, with the last of their channels for the picture.

    Raises:
      DataError: the scans are not where the run's settings say, or a file of a case cannot be used.
    """
    try:
        data = run.config["data"]
        root = run.folder / "phantom" if data["root"] is None else Path(data["root"])
        channels, label_grid = tuple(data["channels"]), data["label_grid"]
    except (KeyError, TypeError) as error:
        raise DataError(f"{run.folder / 'config.json'}: says nothing of its data; start the run again") from error
    there = {case.name: case for case in dataset.discover(root, channels)}
    loaded = []
    for name in [str(case["case"]) for case in run.scores["cases"]] if names is None else names:
        if name not in there or there[name].label is None:
            raise DataError(f"{root}: has no case {name} with a label any more, which {run.folder} was scored on")
        case = replace(there[name], images=there[name].images[-1:])
        image_ZxHxWxC, label_ZxHxW, grid = dataset.load(case, label_grid=label_grid)
        prediction_ZxHxW = read_prediction(run, name)
        if prediction_ZxHxW.shape != label_ZxHxW.shape:
            raise DataError(f"{root}: case {name} has another size than when {run.folder} was scored; start it again")
        loaded.append(
            ReportCase(name, image_ZxHxWxC[..., 0], grid.spacing_mm, grid.affine, label_ZxHxW, prediction_ZxHxW)
        )
    return loaded


def read_prediction(run: Record, case: str) -> np.ndarray:
    """The mask (Z,H,W) that a run predicted for a case.

    Raises:
      DataError: it cannot be read.
    """
    paths.check_name(case, run.folder / "scores.json")
    return nifti.read_label(run.folder / "predictions" / f"{case}.nii.gz").array


def _read_discs(path: Path) -> list[DiscScore]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            names, rows = tuple(reader.fieldnames or ()), list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read ({error}); evaluate the run first") from error
    if names != COLUMNS:
        raise DataError(f"{path}: its columns are not {','.join(COLUMNS)}; evaluate the run again")
    try:
        return [_disc(row) for row in rows]
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: holds what is no score ({error}); evaluate the run again") from error


def _disc(row: Mapping[str, str]) -> DiscScore:
    numbers = {name: float(row[name]) for name in COLUMNS[3:]}
    if not all(map(math.isfinite, numbers.values())):
        raise ValueError("a number that is not finite")
    return DiscScore(case=row["case"], disc=int(row["disc"]), found=row["found"] == "1", **numbers)
