from pathlib import Path

import pytest

from ivdjax.config import Data
from ivdjax.data.dataset import Case
from ivdjax.data.splits import split
from ivdjax.errors import UsageError

CASES = [Case(f"{i:02d}", (Path(f"{i}"),), None, f"subject {(i - 1) // 2}") for i in range(1, 9)]


def names(cases):
    return [case.name for case in cases]


@pytest.mark.parametrize("folds", [0, 2, 3, 4])
def test_folds_hold_out_every_case_once_and_never_part_a_subject(folds):
    held = []
    for fold in range(folds or 4):
        parts = split(CASES, Data(folds=folds, fold=fold))
        held += names(parts.held_out)
        assert not {c.subject for c in parts.train} & {c.subject for c in parts.held_out}
        assert sorted(names(parts.train) + names(parts.held_out)) == names(CASES)
    assert sorted(held) == names(CASES)


def test_a_named_case_takes_its_subject_with_it():
    assert names(split(CASES, Data(hold_out=("03",))).held_out) == ["03", "04"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (Data(hold_out=("3",)), "did you mean 03"),
        (Data(hold_out=tuple(names(CASES))), "no subject is left"),
        (Data(folds=5), "4 subject"),
        (Data(fold=4), "0 to 3"),
        (Data(folds=1), "2 to 4"),
    ],
)
def test_impossible_splits_say_why(data, message):
    with pytest.raises(UsageError, match=message):
        split(CASES, data)
