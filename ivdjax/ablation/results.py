"""The scores of an ablation's variants, read back from their runs, and how each compares with the base."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ivdjax import files
from ivdjax.ablation.plan import Plan, Variant
from ivdjax.config import Experiment
from ivdjax.errors import DataError
from ivdjax.evaluation import record, statistics
from ivdjax.evaluation.evaluate import DISC_METRICS
from ivdjax.evaluation.statistics import Comparison, Estimate
from ivdjax.training import loop

# Of a case in `scores.json`, beside its name and its subject.
_COUNTS = ("discs", "discs_found", "false_discs")
_LARGEST = 1e6  # of any figure; no scan is a kilometre long
COLUMNS = ("variant", "case", "subject", *_COUNTS, *DISC_METRICS, "volume_dice")


@dataclass(frozen=True)
class Result:
    """What came out of one variant."""

    name: str
    changes: tuple[str, ...]
    """What differs from the base; none for the base."""
    parameters: int
    """Weights of one network."""
    learn_subjects: tuple[int, ...]
    """Subjects that each network learnt from."""
    cases: tuple[dict[str, Any], ...]
    """The cases of `scores.json`, by name."""

    @property
    def subjects(self) -> list[str]:
        """Subject of each case."""
        return [case["subject"] for case in self.cases]

    def values(self, metric: str) -> list[float]:
        """A metric of each case."""
        return [case[metric] for case in self.cases]

    def total(self, count: str) -> int:
        """Sum over the cases of a number."""
        return sum(case[count] for case in self.cases)

    def estimate(self, metric: str) -> Estimate:
        """Mean over cases, and its interval over subjects."""
        return statistics.estimate(self.values(metric), self.subjects)

    def by_subject(self, metric: str) -> dict[str, float]:
        """Mean of a metric over each subject's cases."""
        values, subjects = np.array(self.values(metric)), np.array(self.subjects)
        return {subject: float(values[subjects == subject].mean()) for subject in dict.fromkeys(self.subjects)}


@dataclass(frozen=True)
class Results:
    """What came out of an ablation, as far as it is finished."""

    plan: Plan
    variants: tuple[Result, ...]
    """In the plan's order."""
    scans: str
    """The data's name."""
    on_phantom: bool
    """Whether the scans were drawn by a program."""

    @property
    def base(self) -> Result | None:
        """The result that the others are compared with; None where it is not finished."""
        return next((result for result in self.variants if not result.changes), None)

    def comparisons(self, metric: str) -> dict[str, tuple[Comparison, float]]:
        """By the variant's name, all but the base: its comparison with the base, and p after Holm's correction."""
        if self.base is None:
            return {}
        others = [result for result in self.variants if result.changes]
        compared = [
            statistics.compare(other.values(metric), self.base.values(metric), self.base.subjects) for other in others
        ]
        adjusted = statistics.holm([comparison.p for comparison in compared])
        return {
            other.name: (comparison, float(p)) for other, comparison, p in zip(others, compared, adjusted, strict=True)
        }


def collect(plan: Plan, finished: Sequence[Variant]) -> Results:
    """Read the scores of finished variants.

    Raises:
        DataError: a file of a run is missing or damaged, or two variants were scored on different cases.
    """
    records = [record.read(variant.folder) for variant in finished]
    found = []
    for variant, of in zip(finished, records, strict=True):
        splits = variant.folder / "splits.json"
        try:
            learnt = tuple(int(split["learn_subjects"]) for split in files.read_json_list(splits))
            cases = sorted((_checked(case) for case in of.scores["cases"]), key=_name)
        except record.MALFORMED as error:
            raise DataError(
                f"{variant.folder}: its scores or splits are not what this version of ivdjax writes "
                f"({type(error).__name__}: {error}); run it again"
            ) from error
        found.append(Result(variant.name, variant.changes, parameters(variant.experiment), learnt, tuple(cases)))
    for other in found[1:]:
        if list(map(_name, other.cases)) != list(map(_name, found[0].cases)):
            raise DataError(
                f"{plan.folder}: {other.name} and {found[0].name} were scored on different cases; the variants of an "
                "ablation hold out the same"
            )
    root = plan.base.data.root
    on_phantom = any(of.on_phantom for of in records)
    name = "the digital phantom" if root is None else root.resolve().name
    return Results(plan, tuple(found), name, on_phantom)


def write_csv(results: Results, path: Path) -> None:
    """Write a row a variant and case, numbers to six decimals."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    for result in results.variants:
        for case in result.cases:
            row = {"variant": result.name, **case}
            writer.writerow({key: round(v, 6) if isinstance(v, float) else v for key, v in row.items()})
    files.write_text(path, text.getvalue())


def parameters(experiment: Experiment) -> int:
    """Number of weights of one network; nothing is computed for it."""
    state = jax.eval_shape(partial(loop.initial_state, experiment, [experiment.seed]))
    return sum(leaf.size for leaf in jax.tree.leaves(state.params))


def _checked(case: dict[str, Any]) -> dict[str, Any]:
    """A case of `scores.json` by the columns of the table, if its figures are numbers."""
    values = {name: float(case[name]) for name in (*_COUNTS, *DISC_METRICS, "volume_dice")}
    if not all(abs(value) < _LARGEST for value in values.values()):
        raise ValueError(f"a figure of case {case['case']} is not finite or too large")
    return {"case": str(case["case"]), "subject": str(case["subject"]), **values} | {n: int(case[n]) for n in _COUNTS}


def _name(case: dict[str, Any]) -> str:
    return str(case["case"])
