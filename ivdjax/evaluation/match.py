"""Runs to be compared: the cases that all of them have, if their references are the same."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ivdjax.errors import DataError, UsageError
from ivdjax.evaluation import record
from ivdjax.evaluation.challenge import DiscScore
from ivdjax.evaluation.page import METRICS, Metric
from ivdjax.evaluation.record import Record

# Two volumes of one disc, written to six decimals; a voxel is over 0.1 mm3.
SAME_VOLUME_MM3 = 1e-3

_LARGEST = 1e6  # of any figure; no scan is a kilometre long


@dataclass(frozen=True)
class Matched:
    """Runs, and the cases that all of them were scored on by the same references."""

    names: Sequence[str]
    """What each run is called in the page."""
    runs: Sequence[Record]
    """The runs, in the order given."""
    cases: Sequence[str]
    """The common cases."""
    left_out: Sequence[str]
    """Cases that only some of the runs have."""
    subjects: Mapping[str, str]
    """The subject of each common case; the case itself where the scores name none."""
    grouped: bool
    """Whether the scores name subjects."""

    def values(self, i: int, metric: Metric) -> list[float]:
        """A figure of each common case in one run."""
        by_name = {str(case["case"]): case for case in self.runs[i].scores["cases"]}
        values = [float(by_name[case][metric.key]) for case in self.cases]
        if any(abs(value) > _LARGEST for value in values):
            raise ValueError(f"{metric.key} of {max(values, key=abs):g}")
        return values

    def discs(self, i: int) -> dict[tuple[str, int], DiscScore]:
        """The discs of the common cases in one run, by case and disc."""
        return {(d.case, d.disc): d for d in self.runs[i].discs if d.case in self.cases}

    @property
    def worst_first(self) -> list[int]:
        """Places of the common cases by the Dice of the run that does worst on each."""
        dice = [self.values(i, METRICS[0]) for i in range(len(self.runs))]
        return sorted(range(len(self.cases)), key=lambda k: min(run[k] for run in dice))

    @property
    def groups(self) -> list[str]:
        """The subject of each common case."""
        return [self.subjects[case] for case in self.cases]


def match(run_dirs: Sequence[Path]) -> Matched:
    """Read runs and find what they have in common.

    Raises:
      UsageError: fewer than two runs, or one twice.
      DataError: a run is not finished, the runs have no case in common, or they were scored on different references
        or name different subjects for a case.
    """
    if len(run_dirs) < 2:
        raise UsageError("a comparison needs two runs or more; name their folders")
    names = _names(run_dirs)
    runs = [record.read(Path(run_dir)) for run_dir in run_dirs]
    held = [[str(case["case"]) for case in run.scores["cases"]] for run in runs]
    cases = [case for case in held[0] if all(case in other for other in held[1:])]
    if not cases:
        raise DataError(
            f"{' and '.join(names)}: have no held-out case in common; compare runs that hold out the same cases"
        )
    for run, name in zip(runs[1:], names[1:], strict=True):
        _check_references(runs[0], names[0], run, name, cases)
    left_out = list(dict.fromkeys(case for held_out in held for case in held_out if case not in cases))
    named = _subjects(runs, names, cases)
    return Matched(names, runs, cases, left_out, {case: case for case in cases} | named, bool(named))


def _names(run_dirs: Sequence[Path]) -> list[str]:
    """A name for each run: its folder's, or as much of the path as tells them apart."""
    resolved = [Path(run_dir).resolve() for run_dir in run_dirs]
    if twice := [str(path) for path in resolved if resolved.count(path) > 1]:
        raise UsageError(f"{twice[0]}: named twice; a comparison needs different runs")
    for depth in range(1, max(len(path.parts) for path in resolved) + 1):
        names = ["/".join(path.parts[-depth:]) for path in resolved]
        if len(set(names)) == len(names):
            break
    return names


def _subjects(runs: Sequence[Record], names: Sequence[str], cases: Sequence[str]) -> dict[str, str]:
    """The subjects that the scores name."""
    known: dict[str, str] = {}
    for run, name in zip(runs, names, strict=True):
        for case in run.scores["cases"]:
            if "subject" in case and str(case["case"]) in cases:
                subject = str(case["subject"])
                if known.setdefault(str(case["case"]), subject) != subject:
                    raise DataError(
                        f"{name}: says that case {case['case']} is of subject {subject}, {names[0]} says "
                        f"{known[str(case['case'])]}; evaluate them with the same subjects"
                    )
    return known


def _check_references(first: Record, first_name: str, other: Record, name: str, cases: Sequence[str]) -> None:
    ours, theirs = ({(d.case, d.disc): d.reference_mm3 for d in run.discs if d.case in cases} for run in (first, other))
    for case, disc in sorted(ours.keys() | theirs.keys()):
        a, b = ours.get((case, disc)), theirs.get((case, disc))
        if a is None or b is None or not math.isclose(a, b, rel_tol=0, abs_tol=SAME_VOLUME_MM3):
            volumes = " against ".join("none" if v is None else f"{v:.0f} mm3" for v in (a, b))
            raise DataError(
                f"{first_name} and {name}: were scored on different references (case {case}, disc {disc}: {volumes}); "
                "evaluate them on the same"
            )
