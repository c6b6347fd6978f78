"""Folds of a cross-validation, grouped by subject: no subject is ever on both sides."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ivdjax.config import Data
from ivdjax.data.dataset import Case
from ivdjax.errors import UsageError


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

    Subjects are dealt to the folds in turn, in the order of their first case; with `folds` 0 each is a fold of its own.
    Of the others `learn_subjects` are learnt from: those that follow the first held-out one, and after the last the
    first ones, so that a smaller number's are among a larger one's and no subject serves all folds.

    Raises:
        UsageError: an unknown case, a fold out of range, too many subjects, or a split that leaves one side empty.
    """
    subjects = list(dict.fromkeys(case.subject for case in cases))
    if data.hold_out:
        held = _subjects_of(data.hold_out, cases)
    else:
        folds = count(cases, data)
        if not 0 <= data.fold < folds:
            raise UsageError(f"--data.fold {data.fold}: folds are numbered 0 to {folds - 1}")
        held = set(subjects[data.fold :: folds])
    start = min(subjects.index(subject) for subject in held)
    learn = [subject for subject in subjects[start:] + subjects[:start] if subject not in held]
    if not 0 <= data.learn_subjects <= len(learn):
        raise UsageError(f"--data.learn-subjects {data.learn_subjects}: there are {len(learn)} that are not held out")
    learn = learn[: data.learn_subjects or None]
    train = tuple(case for case in cases if case.subject in learn)
    if not train:
        raise UsageError(f"--data.hold-out {' '.join(data.hold_out)}: no subject is left to learn from; hold out fewer")
    return Split(train, tuple(case for case in cases if case.subject in held))


def members(cases: Sequence[Case], data: Data, every_fold: bool, seeds: Sequence[int]) -> list[Member]:
    """Return the networks that a run trains: one a fold (or one, of the fold that `data` names) and seed.

    Networks that draw their own phantoms learn from no case, so that every case is held out.

    Raises:
        UsageError: as `split`, or every fold is asked for where the cases to hold out are named.
    """
    if data.fresh.per_step:
        return [Member((), tuple(range(len(cases))), seed) for seed in seeds]
    if every_fold and data.hold_out:
        raise UsageError("--folds all and --data.hold-out: the folds say which cases are held out; leave out one")
    folds = range(count(cases, data)) if every_fold else [data.fold]
    number = {case: i for i, case in enumerate(cases)}
    found = []
    for fold in folds:
        parts = split(cases, replace(data, fold=fold))
        learn, held_out = (tuple(number[case] for case in part) for part in (parts.train, parts.held_out))
        found += [Member(learn, held_out, seed) for seed in seeds]
    return found


def count(cases: Sequence[Case], data: Data) -> int:
    """Folds of the cross-validation.

    Raises:
        UsageError: there are too few subjects for so many.
    """
    subjects = len({case.subject for case in cases})
    folds = data.folds or subjects
    if not 2 <= folds <= subjects:
        raise UsageError(
            f"--data.folds {data.folds}: {subjects} subject(s) make 2 to {subjects} folds; "
            "choose among these, or name cases with --data.hold-out"
        )
    return folds


def _subjects_of(names: Sequence[str], cases: Sequence[Case]) -> set[str]:
    subject_of = {case.name: case.subject for case in cases}
    for name in names:
        if name not in subject_of:
            close = difflib.get_close_matches(name, subject_of, 1)
            hint = f"; did you mean {close[0]}?" if close else f"; cases are {', '.join(subject_of)}"
            raise UsageError(f"--data.hold-out {name}: no such case{hint}")
    return {subject_of[name] for name in names}
