"""The header of a NIfTI file, believed only once it is known to promise what the file can hold."""

import functools
import gzip
import logging
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from ivdjax.errors import DataError

SUFFIXES = (".nii", ".nii.gz")

# A spine scan has some 2e6 voxels, the largest some 5e7; past this, 512 x 512 x 256, the header is broken.
MAX_VOXELS = 2**26
# Extensions before the voxels, a scanner's own header for example, are no longer than this.
MAX_OFFSET = 2**26
# Deflate shrinks by 1032 to 1 at best (https://zlib.net/zlib_tech.html): a promise can be judged unread.
MAX_DEFLATE_RATIO = 1032

HEADER_ERRORS = (HeaderDataError, WrapStructError, ValueError, OverflowError)

logger = logging.getLogger("ivdjax")

_HEADERS = {348: Nifti1Header, 540: Nifti2Header}


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """The file's bytes, unzipped where its name says so; every way reading can fail becomes one DataError."""
    if not path.name.endswith(SUFFIXES):
        raise DataError(f"{path}: not named .nii or .nii.gz")
    try:
        if path.stat().st_size == 0:
            raise DataError(f"{path}: zero length; copy it again")
        with cast(BinaryIO, gzip.open(path) if path.name.endswith(".gz") else path.open("rb")) as stream:
            yield stream
    except gzip.BadGzipFile as error:
        raise DataError(f"{path}: not sound gzip data ({error}); copy it again or rename it .nii") from error
    except (EOFError, zlib.error) as error:
        raise DataError(f"{path}: truncated or damaged gzip data ({error}); copy it again") from error
    except OSError as error:
        if error.errno is None:  # nibabel's way to say that the voxels end too soon
            raise DataError(f"{path}: truncated: {one_line(error)}") from error
        raise DataError(f"{path}: unreadable: {error.strerror}") from error


class _Mended:
    """Keeps what nibabel mends in a header, until it is known that the header can be used at all."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def log(self, level: int, message: str) -> None:
        if level >= logging.WARNING:
            self.lines.append(message)


@functools.cache
def _warn_once(line: str) -> None:
    """A file's header is read again and again."""
    logger.warning(line)


def read_header(stream: BinaryIO, path: Path) -> Nifti1Header:
    """The header at the stream's start, once it is known to be a single file's and to promise what fits in it."""
    start = stream.read(max(_HEADERS))
    kind = _HEADERS.get(int.from_bytes(start[:4], "little")) or _HEADERS.get(int.from_bytes(start[:4], "big"))
    if kind is None:
        raise DataError(f"{path}: not a NIfTI file (no NIfTI header at its start); convert it")
    if len(start) < kind.sizeof_hdr:
        raise DataError(f"{path}: truncated: {len(start)} bytes, less than a NIfTI header; copy it again")
    mended = _Mended()
    try:
        with np.errstate(invalid="ignore", over="ignore"):  # what is not finite is caught by the tests that follow
            header = kind(start[: kind.sizeof_hdr], check=False)
            header.check_fix(logger=mended)
            shape, dtype, offset = header.get_data_shape(), header.get_data_dtype(), header.get_data_offset()
            header.get_slope_inter()
    except HEADER_ERRORS as error:
        raise DataError(f"{path}: not a usable NIfTI header: {one_line(error)}") from error
    if header["magic"].item() != kind.single_magic:
        raise DataError(f"{path}: the header of a .hdr/.img pair; convert the pair to one .nii file")
    if dtype.fields is not None or dtype.kind not in "iuf":
        raise DataError(f"{path}: holds {dtype} voxels, not one real number a voxel")
    voxels = math.prod(int(n) for n in shape)
    if not kind.single_vox_offset <= offset <= MAX_OFFSET:
        raise DataError(f"{path}: its header says that the voxels begin at byte {offset}; damaged?")
    if not shape or min(shape) < 1 or voxels > MAX_VOXELS:
        promised = by(shape) or "no"
        raise DataError(f"{path}: its header promises {promised} voxels (usable: 1 to {MAX_VOXELS}); damaged?")
    size = path.stat().st_size
    room = size * MAX_DEFLATE_RATIO if path.name.endswith(".gz") else size
    if offset + voxels * dtype.itemsize > room:
        promise = f"the header promises {by(shape)} voxels of {dtype.itemsize} bytes"
        raise DataError(f"{path}: truncated or damaged: {promise}, too much for a file of {size} bytes")
    for line in mended.lines:
        _warn_once(f"{path}: {line}")
    return header


def by(shape: tuple[int, ...]) -> str:
    """Write a shape for the eye: `36 x 256 x 256`."""
    return " x ".join(str(int(n)) for n in shape)


def one_line(error: Exception) -> str:
    """What an error says, on one line."""
    return " ".join(str(error).split())
