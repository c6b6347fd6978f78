"""Folds of a cross-validation, grouped by subject: no subject is ever on both sides."""

import difflib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ivdjax.config import Data
from ivdjax.data import grouping
from ivdjax.data.dataset import Case
from ivdjax.errors import DataError, UsageError

_DIGITS = 9  # of a fold's number


@dataclass(frozen=True)
class Split:
    """Cases to learn from and cases to score."""

    train: tuple[Case, ...]
    held_out: tuple[Case, ...]


@dataclass(frozen=True)
class Member:
    """One of the networks that a run trains beside each other; cases by their numbers among the run's."""

    learn: tuple[int, ...]
    """Cases to learn from."""
    held_out: tuple[int, ...]
    """Cases to score, which it never sees."""
    seed: int
    """Of its weights, the order of its samples and their changes."""


def split(cases: Sequence[Case], data: Data) -> Split:
    """Split cases as `data` says: by the names in `hold_out`, else by fold.

    Of the other subjects `learn_subjects` are learnt from: those that follow the first held-out one, and after the last
    the first ones, so that a smaller number's are among a larger one's and no subject serves all folds.

    Raises:
        DataError: as `folds`.
        UsageError: an unknown case, a fold out of range, too many subjects, or a split that leaves one side empty.
    """
    if data.hold_out:
        if data.fold_table is not None:
            raise UsageError(
                "--data.fold-table and --data.hold-out both say which cases are held out; leave out one "
                "(--data.hold-out without names holds out none)"
            )
        held = _same_subjects(data.hold_out, cases)
    else:
        every = folds(cases, data)
        if not 0 <= data.fold < len(every):
            raise UsageError(f"--data.fold {data.fold}: folds are numbered 0 to {len(every) - 1}")
        held = every[data.fold]
    train = _learners(cases, held, data.learn_subjects)
    if not train:
        raise UsageError(f"--data.hold-out {' '.join(data.hold_out)}: no subject is left to learn from; hold out fewer")
    return Split(train, tuple(case for case in cases if case.name in held))


def _learners(cases: Sequence[Case], held: Collection[str], number: int) -> tuple[Case, ...]:
    """Cases of so many subjects that are not held out, those that follow the first held-out one; 0 takes all."""
    subjects = list(dict.fromkeys(case.subject for case in cases))
    out = {case.subject for case in cases if case.name in held}
    start = min(subjects.index(subject) for subject in out)
    others = [subject for subject in subjects[start:] + subjects[:start] if subject not in out]
    if not 0 <= number <= len(others):
        raise UsageError(f"--data.learn-subjects {number}: there are {len(others)} that are not held out")
    chosen = others[: number or None]
    return tuple(case for case in cases if case.subject in chosen)


def members(cases: Sequence[Case], data: Data, every_fold: bool, seeds: Sequence[int]) -> list[Member]:
    """Return the networks that a run trains: one a fold (or one, of the fold that `data` names) and seed.

    Networks that draw their own phantoms learn from no case, so that every case is held out.

    Raises:
        DataError: as `folds`.
        UsageError: as `split`, or every fold is asked for where the cases to hold out are named.
    """
    if data.fresh.per_step:
        return [Member((), tuple(range(len(cases))), seed) for seed in seeds]
    if every_fold and data.hold_out:
        raise UsageError("--folds all and --data.hold-out: the folds say which cases are held out; leave out one")
    number = {case: i for i, case in enumerate(cases)}
    found = []
    for fold in range(len(folds(cases, data))) if every_fold else [data.fold]:
        parts = split(cases, replace(data, fold=fold))
        learn, held_out = (tuple(number[case] for case in part) for part in (parts.train, parts.held_out))
        found += [Member(learn, held_out, seed) for seed in seeds]
    return found


def folds(cases: Sequence[Case], data: Data) -> list[set[str]]:
    """The names of the cases that each fold of the cross-validation holds out; a subject's are in one fold.

    They are those of `fold_table`. Without one, subjects are dealt to `folds` folds in turn, in the order of their
    first case; with `folds` 0 each is a fold of its own.

    Raises:
        DataError: the table cannot be read, misses a case, parts the cases of a subject or skips a fold.
        UsageError: there are too few subjects for so many folds.
    """
    if data.fold_table is not None:
        return _from_table(cases, data.fold_table)
    subjects = list(dict.fromkeys(case.subject for case in cases))
    if len(subjects) == 1:
        raise UsageError(
            f"--data.root {data.root}: holds scans of one subject only ({', '.join(case.name for case in cases)}), and "
            "another must be held out; pass the folder of all cases"
        )
    count = data.folds or len(subjects)
    if not 2 <= count <= len(subjects):
        raise UsageError(
            f"--data.folds {data.folds}: {len(subjects)} subjects make 2 to {len(subjects)} folds; choose among "
            "these, or name cases with --data.hold-out"
        )
    dealt = [set(subjects[fold::count]) for fold in range(count)]
    return [{case.name for case in cases if case.subject in own} for own in dealt]


def _from_table(cases: Sequence[Case], path: Path) -> list[set[str]]:
    rows = grouping.read_table(path, "fold")
    if absent := [case.name for case in cases if case.name not in rows]:
        raise DataError(f"{path}: no row for case {', '.join(absent)}; add one")
    fold_of = {}
    for case in cases:
        text = rows[case.name]
        if not text.isascii() or not text.isdecimal() or len(text) > _DIGITS:
            raise DataError(f"{path}: case {case.name} has the fold {text!r}; number the folds 0, 1, 2 ...")
        fold_of[case.name] = int(text)
    subject_fold: dict[str, int] = {}
    for case in cases:
        if subject_fold.setdefault(case.subject, fold_of[case.name]) != fold_of[case.name]:
            raise DataError(
                f"{path}: parts the scans of subject {case.subject}: case {case.name} is in fold {fold_of[case.name]}, "
                f"another in {subject_fold[case.subject]}; put them in one, or say whose they are (--data.subjects)"
            )
    used = set(fold_of.values())
    count = max(len(used), 2)
    if empty := [fold for fold in range(count) if fold not in used]:
        raise DataError(f"{path}: no case is in fold {empty[0]}; number two folds or more from 0 without a gap")
    return [{name for name, own in fold_of.items() if own == fold} for fold in range(count)]


def _same_subjects(names: Sequence[str], cases: Sequence[Case]) -> set[str]:
    """The names of all cases of the subjects of named ones."""
    subject_of = {case.name: case.subject for case in cases}
    for name in names:
        if name not in subject_of:
            close = difflib.get_close_matches(name, subject_of, 1)
            hint = f"; did you mean {close[0]}?" if close else f"; cases are {', '.join(subject_of)}"
            raise UsageError(f"--data.hold-out {name}: no such case{hint}")
    held = {subject_of[name] for name in names}
    return {case.name for case in cases if case.subject in held}
