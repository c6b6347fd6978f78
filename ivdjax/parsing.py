"""Command lines to dataclasses, by tyro; what it draws in a box when a command line is wrong becomes one line."""

import contextlib
import difflib
import io
import os
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import tyro

from ivdjax.errors import UsageError

Kind = TypeVar("Kind")

_WIDE = "10000"  # columns, in which nothing is broken into lines
_RULE = re.compile(r"[─╭╮╰╯ ]+")
_OPTION_ROW = re.compile(r"│ +(--[^│]*?)(?:  |│|$)", re.MULTILINE)
_VALUE = re.compile(r"Error parsing \S+: .*")
_CHOICE = re.compile(r"invalid choice '(.*)' for argument '(\S+)'\. Expected one of \((.*)\)", re.IGNORECASE)
_TOO_FEW = re.compile(r"Missing value for argument '(\S+)'\. Expected (\d+) values")


def parse(kind: type[Kind], words: Sequence[str], *, prog: str, **more: Any) -> Kind:
    """Read a command line.

    Args:
        kind: a dataclass, whose fields are options and arguments.
        words: of the command line, without the command.
        prog: the command as a user writes it.
        more: for `tyro.cli`.

    Raises:
        UsageError: what is wrong, in one line, with what was probably meant and where to look.
        SystemExit: --help was asked for, and printed.
    """
    if "" in words:
        raise UsageError('"" is the name of nothing; is a variable of your shell not set?')
    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told):
            read = tyro.cli(kind, args=words, prog=prog, **more)
    except SystemExit as stop:
        if not stop.code:
            raise
        fault = _unknown_option(kind, words, prog, more) or _fault(_said(kind, words, prog, more), words)
        raise UsageError(f"{fault}; see `{prog} --help`") from None
    if told.getvalue():
        sys.stderr.write(told.getvalue())
    return read


def nearest(word: str, known: Sequence[str]) -> str:
    """What a misspelt word was probably meant to be, as a question to append; empty where nothing is like it."""
    close = difflib.get_close_matches(word, known, 1)
    return f"; did you mean {close[0]}?" if close else ""


def _said(kind: type, words: Sequence[str], prog: str, more: dict[str, Any]) -> str:
    """All that tyro prints about words that it refuses, or about --help, each paragraph in one line."""
    # By this encoding, and since it is no terminal, tyro settles what it draws boxes with.
    told = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    with (
        _columns(_WIDE),
        contextlib.redirect_stdout(told),
        contextlib.redirect_stderr(told),
        contextlib.suppress(SystemExit),
    ):
        tyro.cli(kind, args=words, prog=prog, **more)
    told.seek(0)
    return told.read()


@contextlib.contextmanager
def _columns(number: str) -> Iterator[None]:
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = number
    try:
        yield
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before


def _unknown_option(kind: type, words: Sequence[str], prog: str, more: dict[str, Any]) -> str:
    """The first option that there is not. Told before all else, since tyro may stumble over what comes after it."""
    rows = _OPTION_ROW.findall(_said(kind, ["--help"], prog, more))
    known = list(dict.fromkeys(option for row in rows for option in re.findall(r"--[\w.-]+", row)))
    options = list(words[: words.index("--")] if "--" in words else words)
    for word in options:
        name = word.partition("=")[0].replace("_", "-")
        if not re.match(r"--?[^\W\d]", name) or name in (*known, "-h", "--help"):
            continue
        # --steps for --train.steps, --cases for --data.phantom.cases.
        ends = [option for option in known if option.rpartition(".")[2] == name.lstrip("-").rpartition(".")[2]]
        meant = f"; did you mean {' or '.join(ends[:3])}?" if ends else nearest(name, known)
        file = "" if word.startswith("--") else f" (a file of that name is ./{word})"
        return f"there is no option {word.partition('=')[0]}{file}{meant}"
    return ""


def _fault(box: str, words: Sequence[str]) -> str:
    """What a box of tyro's says: its first part, in our words where we have some."""
    rows = [row.strip().removeprefix("│").removesuffix("│") for row in box.splitlines()]
    parts: list[list[str]] = [[]]
    for row in rows[1:]:
        if row.strip() and _RULE.fullmatch(row):
            parts.append([])
        elif row.strip():
            parts[-1].append(row.rstrip())
    first = " ".join(" ".join(parts[0]).split()).rstrip(".")
    if first.startswith("Missing from"):
        # The names stand four columns in, what they are eight.
        names = [row.strip() for row in parts[0] if re.match(r" {5}\S", row)]
        return f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'} missing"
    if first.startswith("Unrecognized options: "):
        return f"{first.removeprefix('Unrecognized options: ')}: more than this takes; options begin with --"
    if choice := _CHOICE.fullmatch(first):
        value, option, known = choice.groups()
        choices = [word for word in re.findall(r"'([^']*)'", known) if word != "None"]
        return f"{option} {value}: choose {', '.join(sorted(choices))}{nearest(value, choices)}"
    if few := _TOO_FEW.fullmatch(first):
        option, number = few.groups()
        given = " ".join([option, *_given(option, words)])
        return f"{given}: takes {number} value{'' if number == '1' else 's'}"
    if _VALUE.match(first) and len(parts) > 1:
        option, _, form = parts[1][1].strip().partition(" ")
        return f"{' '.join([option, *_given(option, words)])}: takes {_form(form)}"
    return f"{first[:1].lower()}{first[1:]}"


def _form(form: str) -> str:
    """What tyro calls FLOAT FLOAT, in words."""
    for sign, name in (("INT", "whole number"), ("FLOAT", "number")):
        if count := form.count(sign):
            return f"{name}s" if "..." in form else f"{count} {name}s" if count > 1 else f"a {name}"
    return form


def _given(option: str, words: Sequence[str]) -> list[str]:
    """The values that a command line has for an option."""
    values: list[str] = []
    taking = False
    for word in words:
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            taking = name.replace("_", "-") == option
            values += [value] if taking and equals else []
        elif taking:
            values.append(word)
    return values
