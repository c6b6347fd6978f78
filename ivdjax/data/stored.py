"""Arrays in files, of which parts are read when they are asked for.

A memory-mapped file would do the same, but a file that is cut short and a disk that fails then end the process with
SIGBUS, which nobody can catch. A read that fails is an error like any other.
"""

import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import numpy as np

from ivdjax import files
from ivdjax.errors import DataError


class Stored:
    """A C-ordered array in a .npy file; NumPy reads it whole, and indexing by three slices reads those parts."""

    def __init__(self, path: Path) -> None:
        """Open the file.

        Raises:
            DataError: it is not such a file, or its size does not fit its shape.
        """
        try:
            with path.open("rb") as file:
                np.lib.format.read_magic(file)
                self.shape, fortran, self.dtype = np.lib.format.read_array_header_1_0(file)
                self._path, self._start = path, file.tell()
                whole = self._start + self.nbytes == file.seek(0, os.SEEK_END)
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: cannot be read ({error})") from error
        if fortran or not whole:
            raise DataError(f"{path}: is not as it was written")

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return int(np.prod(self.shape)) * self.dtype.itemsize

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Read all of it."""
        out = np.empty(self.shape, self.dtype)
        self._read(lambda file: _fill(file, self._start, out))
        return out if dtype is None else out.astype(dtype, copy=False)

    def __getitem__(self, part: tuple[slice, ...]) -> np.ndarray:
        """Read some slices, rows and columns; slices of step 1."""
        (z, z_stop, _), (h, h_stop, _), columns = (
            *(one.indices(size) for one, size in zip(part[:2], self.shape, strict=False)),
            part[2],
        )
        # Whole rows are one run of the file, and cost little more than the part of them that is wanted.
        rows = np.empty((z_stop - z, h_stop - h, *self.shape[2:]), self.dtype)
        row_bytes = int(np.prod(self.shape[2:])) * self.dtype.itemsize
        slice_bytes = self.shape[1] * row_bytes

        def read(file: int) -> None:
            if rows.shape[1] == self.shape[1]:
                _fill(file, self._start + z * slice_bytes, rows)
            else:
                for k, one in enumerate(rows):
                    _fill(file, self._start + (z + k) * slice_bytes + h * row_bytes, one)

        self._read(read)
        return rows[:, :, columns]

    def _read(self, work: Callable[[int], None]) -> None:
        # Opened each time: thousands of cases would be more open files than a process may have.
        try:
            file = os.open(self._path, os.O_RDONLY)
            try:
                work(file)
            finally:
                os.close(file)
        except OSError as error:
            raise DataError(
                f"{self._path}: cannot be read ({error.strerror or error}); see to the disk and give the same command "
                "again, which makes the file anew"
            ) from error

    @classmethod
    def write(cls, path: Path, array: np.ndarray) -> Self:
        """Write an array to a file, whole or not at all."""
        array = np.ascontiguousarray(array)
        with files.replacing(path) as partial, partial.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
            file.write(array.data.cast("B"))
        return cls(path)


def checksum(array: np.ndarray | Stored) -> int:
    """CRC-32 of an array's bytes."""
    return zlib.crc32(np.ascontiguousarray(array).data)


def _fill(file: int, start: int, out: np.ndarray) -> None:
    left = out.data.cast("B")
    while left:
        done = os.preadv(file, [left], start)
        if not done:
            raise OSError("it has become shorter")
        left, start = left[done:], start + done
