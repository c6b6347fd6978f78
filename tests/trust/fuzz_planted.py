"""Readers that do what no reader of ours may, to see that the fuzzer notices."""

import logging
import os
import signal
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ivdjax.errors import DataError


def _traceback(given: Path, out: Path) -> None:
    raise KeyError("dim")


def _hang(given: Path, out: Path) -> None:
    time.sleep(600)


def _memory(given: Path, out: Path) -> None:
    """As much as a header of 3 GiB asks for."""
    np.zeros(3 * 2**30, np.uint8)


def _warning(given: Path, out: Path) -> None:
    warnings.warn("invalid value encountered in cast", RuntimeWarning, stacklevel=1)


def _two_lines(given: Path, out: Path) -> None:
    error = DataError(f"{given}: cannot be read")
    error.args = (f"{given}: cannot\nbe read",)
    raise error


def _nameless(given: Path, out: Path) -> None:
    raise DataError("cannot be read")


def _left_behind(given: Path, out: Path) -> None:
    (out / ".partial-mask.nii").write_bytes(b"")
    raise DataError(f"{given}: cannot be read")


def _changed(given: Path, out: Path) -> None:
    (given / "image.nii.gz").write_bytes(b"")


def _logged(given: Path, out: Path) -> None:
    logging.getLogger("nibabel").error("data code 7 not recognized")


def _printed(given: Path, out: Path) -> None:
    print("debug", flush=True)


def _killed(given: Path, out: Path) -> None:
    """What a fault in a library's native code does to the process."""
    os.kill(os.getpid(), signal.SIGSEGV)


def _sound(given: Path, out: Path) -> None:
    pass


def _refused(given: Path, out: Path) -> None:
    raise DataError(f"{given}: cannot be read; copy it again")


PLANTED: dict[str, Callable[[Path, Path], None]] = {
    "traceback": _traceback,
    "hang": _hang,
    "memory": _memory,
    "warning": _warning,
    "two lines": _two_lines,
    "nameless": _nameless,
    "left behind": _left_behind,
    "changed": _changed,
    "logged": _logged,
    "printed": _printed,
    "killed": _killed,
    "sound": _sound,
    "refused": _refused,
}
