import dataclasses
from pathlib import Path

import pytest

from ivdjax.config import Data
from ivdjax.data.dataset import Case
from ivdjax.data.splits import members, split
from ivdjax.errors import DataError, UsageError

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


def table(tmp_path, *folds):
    path = tmp_path / "folds.csv"
    path.write_text("case,fold\n" + "".join(f"{case.name},{fold}\n" for case, fold in zip(CASES, folds, strict=True)))
    return path


def test_a_table_deals_the_cases_itself(tmp_path):
    path = table(tmp_path, 1, 1, 0, 0, 0, 0, 2, 2)
    data = Data(fold_table=path, folds=4)  # the table has the last word
    assert [names(split(CASES, dataclasses.replace(data, fold=fold)).held_out) for fold in range(3)] == [
        ["03", "04", "05", "06"],
        ["01", "02"],
        ["07", "08"],
    ]
    every = members(CASES, data, every_fold=True, seeds=[5])
    assert [member.held_out for member in every] == [(2, 3, 4, 5), (0, 1), (6, 7)]
    assert all(sorted(member.learn + member.held_out) == list(range(8)) for member in every)
    assert names(split(CASES[:6], data).held_out) == ["03", "04", "05", "06"]  # rows of absent cases say nothing


@pytest.mark.parametrize(
    ("folds", "change", "error", "message"),
    [
        (
            (1, 0, 0, 0, 0, 0, 1, 1),
            {},
            DataError,
            "folds.csv: parts the scans of subject subject 0: case 02 is in fold 0",
        ),
        ((1, 1, 0, 0, 0, 0, 3, 3), {}, DataError, "folds.csv: no case is in fold 2"),
        ((1, 1, 2, 2, 2, 2, 1, 1), {}, DataError, "folds.csv: no case is in fold 0"),
        ((0,) * 8, {}, DataError, "folds.csv: no case is in fold 1; number two folds or more"),
        ((0, 0, "a", "a", 1, 1, 1, 1), {}, DataError, "case 03 has the fold 'a'"),
        ((0, 0, "-1", "-1", 1, 1, 1, 1), {}, DataError, "case 03 has the fold '-1'"),
        ((0, 0, "", 1, 1, 1, 1, 1), {}, DataError, "line 4 lacks a case or a fold"),
        ((0, 0, 0, 0, 1, 1, 1, 1), {"fold": 2}, UsageError, "numbered 0 to 1"),
        ((0, 0, 0, 0, 1, 1, 1, 1), {"hold_out": ("01",)}, UsageError, "--data.fold-table and --data.hold-out"),
    ],
)
def test_a_table_that_cannot_be_says_why(tmp_path, folds, change, error, message):
    with pytest.raises(error, match=message) as stop:
        split(CASES, Data(fold_table=table(tmp_path, *folds), **change))
    assert "\n" not in str(stop.value)


def test_a_table_that_lacks_or_repeats_a_case_is_refused(tmp_path):
    path = table(tmp_path, 0, 0, 0, 0, 1, 1, 1, 1)
    text = path.read_text()
    for wrong, message in (
        (text.replace("08,1\n", ""), "no row for case 08"),
        (text + "01,0\n", "names case 01 again"),
    ):
        path.write_text(wrong)
        with pytest.raises(DataError, match=message):
            split(CASES, Data(fold_table=path))
    with pytest.raises(DataError, match=r"none.csv: cannot be read \(No such file or directory\); pass a CSV file"):
        split(CASES, Data(fold_table=tmp_path / "none.csv"))


def test_fewer_subjects_to_learn_from_are_among_more_and_follow_the_held_out_ones():
    cases = [Case(f"{i:02d}", (), None, f"s{(i - 1) // 2}") for i in range(1, 17)]
    for fold in range(8):
        learnt = []
        for number in (1, 3, 7, 0):
            parts = split(cases, Data(fold=fold, learn_subjects=number))
            learnt.append({case.subject for case in parts.train})
            assert len(parts.train) == 2 * (number or 7)
            assert {case.subject for case in parts.held_out} == {f"s{fold}"}
        assert learnt[0] == {f"s{(fold + 1) % 8}"}
        assert learnt[0] < learnt[1] < learnt[2] == learnt[3]
    with pytest.raises(UsageError, match="there are 7 that are not held out"):
        split(cases, Data(learn_subjects=8))
