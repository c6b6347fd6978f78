"""How far a run's own confidence can be trusted: `calibration.json` and `confidence.csv`, written and read back.

`confidence.csv` has a row a predicted disc: how sure the network was of it, the reference disc that it overlaps most,
and the Dice of that disc by the scores; a predicted disc that overlaps none is false, its reference empty and its Dice
0. `calibration.json` tells of the probabilities (`calibration`) and of the ranking of the discs (`ranking`).
"""

import csv
import dataclasses
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ivdjax.errors import DataError
from ivdjax.evaluation import calibration, ranking
from ivdjax.evaluation.challenge import CaseScores
from ivdjax.files import read_json, write_json, write_text

TABLE, SUMMARY = "confidence.csv", "calibration.json"

CONVENTIONS = {
    "error": (
        f"expected calibration error of the probability of disc: {calibration.BINS} equal bins, weighted by their "
        f"voxels, within {calibration.REGION_MM:g} mm of the reference or of the mask that the probabilities give"
    ),
    "interval": "percentile bootstrap over subjects",
    "confidence": "the Dice that the probabilities expect of a predicted disc and its rim",
    "bad": f"a predicted disc with a Dice below {ranking.GOOD_DICE:g}, or that overlaps no reference disc",
    "aurc": "area under the risk-coverage curve, the risk being 1 - Dice; aurc_best if ranked by the Dice itself",
}


@dataclass(frozen=True)
class PredictedDisc:
    """A predicted disc of a scored case. The fields are the columns of `confidence.csv`."""

    case: str
    """Name of the case."""
    disc: int
    """1 = lowest predicted disc, upwards."""
    confidence: float
    """0 to 1: the Dice that the network expects."""
    volume_mm3: float
    """Its volume, mm3."""
    reference: int | None
    """The reference disc that it overlaps most; None for a false disc."""
    dice: float
    """Dice of that reference disc by the scores; 0 for a false disc."""


@dataclass(frozen=True)
class Reliability:
    """What a run's folder tells."""

    summary: Mapping[str, Any]
    """`calibration.json`."""
    discs: Sequence[PredictedDisc]
    """The rows of `confidence.csv`."""


def write(run_dir: Path, cases: Sequence[CaseScores], subjects: Mapping[str, str]) -> None:
    """Write both files of a run from the counts of its cases and their scores.

    Raises:
      DataError: the counts of a case are missing or damaged.
    """
    counts = {case.case: calibration.read_case(calibration.case_path(run_dir, case.case)) for case in cases}
    discs = []
    for case in cases:
        dice = {disc.disc: disc.dice for disc in case.discs}
        told = counts[case.case]
        for disc, reference in zip(told.discs, told.references, strict=True):
            values = (disc.disc, disc.confidence, disc.volume_mm3, reference)
            discs.append(PredictedDisc(case.case, *values, 0.0 if reference is None else dice[reference]))
    whose = [subjects[case.case] for case in cases]
    bins = [counts[case.case].bins for case in cases]
    ranked = None
    if discs:
        ranked = ranking.rank(
            [disc.confidence for disc in discs], [disc.dice for disc in discs], [subjects[disc.case] for disc in discs]
        )
    summary = {
        "calibration": calibration.to_json(calibration.add(bins), calibration.interval(bins, whose)),
        "ranking": None if ranked is None else dataclasses.asdict(ranked),
        "conventions": CONVENTIONS,
    }
    write_text(run_dir / TABLE, _to_csv(discs))
    write_json(run_dir / SUMMARY, summary)


def read(run_dir: Path) -> Reliability | None:
    """Read both files back; None for a run that has none.

    Raises:
      DataError: one of them is missing or damaged.
    """
    if not (run_dir / SUMMARY).exists():
        return None
    path = run_dir / TABLE
    try:
        with path.open(newline="", encoding="utf-8") as file:
            discs = [_disc(row) for row in csv.DictReader(file)]
    except (OSError, UnicodeDecodeError, csv.Error, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: is missing or damaged ({error}); start the run again") from error
    return Reliability(read_json(run_dir / SUMMARY), discs)


def _to_csv(discs: Sequence[PredictedDisc]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(field.name for field in dataclasses.fields(PredictedDisc))
    for disc in discs:
        writer.writerow(round(v, 6) if isinstance(v, float) else v for v in dataclasses.astuple(disc))
    return text.getvalue()


def _disc(row: Mapping[str, str]) -> PredictedDisc:
    return PredictedDisc(
        case=row["case"],
        disc=int(row["disc"]),
        confidence=float(row["confidence"]),
        volume_mm3=float(row["volume_mm3"]),
        reference=int(row["reference"]) if row["reference"] else None,
        dice=float(row["dice"]),
    )
