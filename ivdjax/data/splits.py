"""Folds of a cross-validation, grouped by subject: no subject is ever on both sides."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from ivdjax.config import Data
from ivdjax.data.dataset import Case
from ivdjax.errors import UsageError


@dataclass(frozen=True)
class Split:
    """Cases to learn from and cases to score."""

    train: tuple[Case, ...]
    held_out: tuple[Case, ...]


def split(cases: Sequence[Case], data: Data) -> Split:
    """Split cases as `data` says: by the names in `hold_out`, else by fold.

    Subjects are dealt to the folds in turn, in the order of their first case; with `folds` 0 each is a fold of its own.

    Raises:
        UsageError: an unknown case, a fold out of range, or a split that leaves one side empty.
    """
    subjects = list(dict.fromkeys(case.subject for case in cases))
    if data.hold_out:
        held = _subjects_of(data.hold_out, cases)
    else:
        folds = data.folds or len(subjects)
        if not 2 <= folds <= len(subjects):
            raise UsageError(
                f"--data.folds {data.folds}: {len(subjects)} subject(s) make 2 to {len(subjects)} folds; "
                "choose among these, or name cases with --data.hold-out"
            )
        if not 0 <= data.fold < folds:
            raise UsageError(f"--data.fold {data.fold}: folds are numbered 0 to {folds - 1}")
        held = set(subjects[data.fold :: folds])
    train = tuple(case for case in cases if case.subject not in held)
    if not train:
        raise UsageError(f"--data.hold-out {' '.join(data.hold_out)}: no subject is left to learn from; hold out fewer")
    return Split(train, tuple(case for case in cases if case.subject in held))


def _subjects_of(names: Sequence[str], cases: Sequence[Case]) -> set[str]:
    subject_of = {case.name: case.subject for case in cases}
    for name in names:
        if name not in subject_of:
            close = difflib.get_close_matches(name, subject_of, 1)
            hint = f"; did you mean {close[0]}?" if close else f"; cases are {', '.join(subject_of)}"
            raise UsageError(f"--data.hold-out {name}: no such case{hint}")
    return {subject_of[name] for name in names}
