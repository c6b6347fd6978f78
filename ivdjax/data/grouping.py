"""Whose scans the cases are, and the tables in which users say so."""

import csv
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ivdjax.data import paths
from ivdjax.data.dataset import Case
from ivdjax.errors import DataError, UsageError


def assign_subjects(cases: Sequence[Case], rule: str, table: Path | None = None) -> list[Case]:
    """Say whose scan each case is, so that no subject is on both sides of a split.

    Args:
      cases: to be given subjects.
      rule: "pairs": consecutive numbers are one subject, (01,02), (03,04) ..., also where a case is absent, and
        (00,01) ... where the numbers start at 0; "single": each case is its own subject; "table": as `table` says.
      table: a CSV file with the columns case,subject and a row for every case.

    Raises:
      DataError: the table cannot be read, misses a case or names one twice.
      UsageError: an unknown rule, "table" without a table, or "pairs" for names that do not end in a number.
    """
    if rule == "single":
        subjects = {case.name: case.name for case in cases}
    elif rule == "pairs":
        subjects = _pairs([case.name for case in cases])
    elif rule == "table":
        if table is None:
            raise UsageError("--data.subjects table needs a CSV file: pass --data.subject-table FILE")
        subjects = read_table(Path(table), "subject")
        if absent := [case.name for case in cases if case.name not in subjects]:
            raise DataError(f"{table}: no row for case {', '.join(absent)}; add one")
        for subject in subjects.values():
            paths.check_name(subject, Path(table))
    else:
        raise UsageError(f"--data.subjects {rule}: choose pairs, single or table")
    return [replace(case, subject=subjects[case.name]) for case in cases]


def _pairs(names: list[str]) -> dict[str, str]:
    numbers: dict[str, tuple[str, str]] = {}
    for name in names:
        match = re.fullmatch(r"(.*?)(\d+)", name)
        if match is None:
            raise UsageError(
                f"case {name} has no number to pair by; pass --data.subjects single, or table with a "
                "--data.subject-table"
            )
        numbers[name] = (match[1], match[2])
    from_0 = {prefix for prefix, number in numbers.values() if int(number) == 0}
    subjects = {}
    for name, (prefix, number) in numbers.items():
        low = int(number) - (int(number) - (prefix not in from_0)) % 2
        subjects[name] = f"{prefix}{low:0{len(number)}d}+{low + 1:0{len(number)}d}"
    return subjects


def read_table(path: Path, column: str) -> dict[str, str]:
    """What a CSV file with the columns case,<column> says of each case.

    Raises:
      DataError: it cannot be read, lacks one of the two somewhere, or names a case twice.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file, skipinitialspace=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(
            f"{path}: cannot be read ({reason}); pass a CSV file in UTF-8 whose first line reads case,{column}"
        ) from error
    found = {}
    for line, row in enumerate(rows, start=2):
        name, value = (row.get("case") or "").strip(), (row.get(column) or "").strip()
        if not name or not value:
            raise DataError(f"{path}: line {line} lacks a case or a {column}; the first line must read case,{column}")
        if name in found:
            raise DataError(f"{path}: line {line} names case {name} again; keep one row a case")
        found[name] = value
    return found
