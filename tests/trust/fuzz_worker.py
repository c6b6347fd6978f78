"""The process that fuzzed files are tried in: it answers a line of JSON an input, and may be killed for one."""

import hashlib
import json
import logging
import os
import resource
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ivdjax.errors import DataError, UsageError
from tests.trust import fuzz_planted, fuzz_reading, fuzz_tables, fuzz_volumes

MEMORY = 2 * 2**30
TABLE_SHARE, BOMB_SHARE = 0.25, 0.01
LINE = 1000  # letters that a message may have


def main() -> None:
    """Try the inputs that stdin names, a line of JSON each, until it ends, in the folder that is named."""
    answers = os.fdopen(os.dup(1), "w")
    # What a file makes a program print, other than by an exception, counts against it.
    said = tempfile.TemporaryFile("w+b")  # noqa: SIM115
    os.dup2(said.fileno(), 1)
    os.dup2(said.fileno(), 2)
    told = _listen()
    sound, work = Path(sys.argv[1], "sound"), Path(sys.argv[1], "work")
    (sound / "volumes").mkdir(parents=True)
    fuzz_reading.sound_files(sound / "volumes")
    fuzz_tables.sound_files(sound / "tables")
    _warm(sound, work)
    _limit_memory()
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        told.clear()
        before = os.fstat(said.fileno()).st_size
        try:
            answer = _try(asked, sound, work, told)
        except Exception as error:  # of the fuzzer's own; a reader's are judged in `_meet`
            answer = {"number": asked["number"], "kind": "?", "target": "?", "seconds": 0.0, "peak": 0}
            answer |= {"outcome": "failed", "why": f"the fuzzer itself: {type(error).__name__}: {error}"}
        if os.fstat(said.fileno()).st_size > before and answer["outcome"] != "failed":
            answer |= {"outcome": "failed", "why": f"printed {os.pread(said.fileno(), 300, before)!r}"}
        print(json.dumps(answer), file=answers, flush=True)


def _listen() -> list[str]:
    """Everything that is warned of or logged by anybody, from now on."""
    told: list[str] = []
    warnings.simplefilter("always")
    warnings.showwarning = lambda message, category, *place: told.append(f"{category.__name__}: {message} {place[:2]}")

    class Keeper(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            line = record.getMessage()
            # Our own lines are for the user; others' are not ours to let through.
            if record.name != "ivdjax" or line != _one_line(line):
                told.append(f"{record.name} logged {line!r}")

    logging.getLogger().handlers = [Keeper(logging.WARNING)]
    return told


def _limit_memory() -> None:
    """No more address space than is in use now and MEMORY: what asks for more gets a MemoryError, and fails."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.RLIM_INFINITY))


def _warm(sound: Path, work: Path) -> None:
    """Read every sound file once, so that imports and first calls are not laid to an input."""
    for name in fuzz_reading.TARGETS:
        _meet(lambda i, o, name=name: _volume(fuzz_volumes.Volume("", ".nii.gz", b""), name, sound, i, o), work)
    for name, table in fuzz_tables.TABLES.items():
        content = table.path(sound / "tables").read_bytes()
        _meet(lambda i, o, name=name, content=content: _table(name, content, sound, i, o), work)


def _try(asked: dict, sound: Path, work: Path, told: list[str]) -> dict:
    """Make an input and let it be read; say what came of it."""
    rng = np.random.default_rng((asked["seed"], asked["number"]))
    if asked.get("planted"):
        kind, target = "planted", asked["planted"]
        call = lambda i, o: _planted(target, sound, i, o)  # noqa: E731
    elif rng.random() < TABLE_SHARE:
        target = kind = list(fuzz_tables.TABLES)[rng.integers(len(fuzz_tables.TABLES))]
        table = fuzz_tables.TABLES[kind]
        content = table.path(sound / "tables").read_bytes()
        content = fuzz_tables.broken(content, Path(table.name).name, rng)
        call = lambda i, o: _table(target, content, sound, i, o)  # noqa: E731
    else:
        name, make = fuzz_volumes.BOMB
        made = make(name, ".nii.gz", rng) if rng.random() < BOMB_SHARE else fuzz_volumes.volume(rng)
        kind, target = made.kind, list(fuzz_reading.TARGETS)[rng.integers(len(fuzz_reading.TARGETS))]
        call = lambda i, o: _volume(made, target, sound, i, o)  # noqa: E731
    _forget_peak()
    start = time.perf_counter()
    outcome, why = _meet(call, work)
    seconds = time.perf_counter() - start
    if told and outcome != "failed":
        outcome, why = "failed", f"warned: {told[0]}"
    where = {"number": asked["number"], "kind": kind, "target": target}
    return {**where, "outcome": outcome, "why": why, "seconds": seconds, "peak": _peak()}


def _meet(call: Callable[[Path, Path], object], work: Path) -> tuple[str, str]:
    """Call what reads, in folders of its own; whether it took the file, refused it as it should, or failed."""
    shutil.rmtree(work, ignore_errors=True)
    given, out = work / "given", work / "out"
    out.mkdir(parents=True)
    given.mkdir()
    try:
        taken = call(given, out)
    except (DataError, UsageError) as error:
        line = str(error)
        if line != _one_line(line) or len(line) > LINE:
            return "failed", f"not one line: {line[:LINE]!r}"
        if not any(path.name in line for path in [work, *given.rglob("*")]) and "--" not in line:
            return "failed", f"names no file: {line}"
        if left := sorted(path.name for path in out.rglob("*")):
            return "failed", f"refused, but left {left}"
        return "refused", line
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        ours = [f for f in frames if "/ivdjax/" in f.filename] or list(frames)
        place = f"{Path(ours[-1].filename).name}:{ours[-1].lineno} {ours[-1].name}"
        return "failed", f"{type(error).__name__} in {place}: {str(error)[:300]}"
    return ("refused", "a problem was found") if taken is False else ("accepted", "")


def _planted(target: str, sound: Path, given: Path, out: Path) -> None:
    shutil.copytree(sound / "volumes", given, dirs_exist_ok=True)
    with _unchanged(given):
        fuzz_planted.PLANTED[target](given, out)


def _volume(made: fuzz_volumes.Volume, target: str, sound: Path, given: Path, out: Path) -> bool:
    for path in (sound / "volumes").iterdir():
        (given / path.name).hardlink_to(path)
    path = given / f"tried{made.suffix}"
    path.write_bytes(made.content)
    with _unchanged(given):
        return fuzz_reading.TARGETS[target](path, out)


def _table(target: str, content: bytes, sound: Path, given: Path, out: Path) -> None:
    table = fuzz_tables.TABLES[target]
    for folder in {table.folder, "other"}:
        shutil.copytree(sound / "tables" / folder, given / folder)
    table.path(given).write_bytes(content)
    if target in fuzz_tables.MENDED:
        table.read(given / table.folder, out)
        return
    with _unchanged(given):
        table.read(given / table.folder, out)


class _unchanged:  # noqa: N801
    """Sees that a folder is after reading what it was before."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> None:
        self._before = self._state()

    def __exit__(self, *_: object) -> None:
        assert self._state() == self._before, "reading changed what lies beside the file"

    def _state(self) -> list[tuple[str, str]]:
        paths = sorted(path for path in self._folder.rglob("*") if path.is_file())
        return [(str(path), _digest(path)) for path in paths]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()


def _one_line(text: str) -> str:
    return " ".join(text.split()) if all(letter.isprintable() for letter in text) else ascii(text)


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int:
    """Bytes of memory in use at most since the peak was forgotten."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


if __name__ == "__main__":
    main()
