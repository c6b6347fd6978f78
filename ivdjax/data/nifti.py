"""NIfTI files on canonical axes, and masks back on the grid they came from.

Canonical axes are the nearest axis permutation and flips of the stored ones, never a resampling: Z runs towards
the patient's Right, H from superior to Inferior, W from anterior to Posterior. Affines map voxel indices to scanner
coordinates in mm (x to the Right, y to the Anterior, z to the Superior), oblique or not.
The format: NIfTI-1, https://nifti.nimh.nih.gov/nifti-1, and its 64-bit sibling NIfTI-2.
"""

import errno
import gzip
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from nibabel import orientations
from nibabel.affines import voxel_sizes
from nibabel.nifti1 import Nifti1Header
from nibabel.volumeutils import apply_read_scaling

from ivdjax.data.nifti_header import HEADER_ERRORS, SUFFIXES, by, one_line, opened, read_header
from ivdjax.errors import DataError, UsageError
from ivdjax.files import replacing

CANONICAL = ("R", "I", "P")

_QFORM = ("qform_code", *(f"quatern_{axis}" for axis in "bcd"), *(f"qoffset_{axis}" for axis in "xyz"))
# Fields of a header, of either version, that say where the voxels lie.
_PLACE = ("pixdim", "xyzt_units", *_QFORM, "sform_code", *(f"srow_{axis}" for axis in "xyz"))
_CHUNK = 2**20  # voxels that are unzipped, scaled and cast at a time
_TRAILING = 2**20  # bytes that may follow the voxels
_COPIED = 2**20  # bytes at a time


@dataclass(frozen=True)
class Volume:
    """A volume on canonical axes.

    `array` is (Z,H,W); `affine` (4,4) maps its indices to scanner mm; `spacing_mm` is in (Z,H,W) order.
    """

    array: np.ndarray
    affine: np.ndarray
    spacing_mm: tuple[float, float, float]
    path: Path


@dataclass(frozen=True)
class Grid:
    """Where a file's voxels lie, read from its header alone.

    `shape`, `affine` and `spacing_mm` are on canonical axes, as a `Volume`'s; `disk_shape`, `disk_affine` and
    `orientation` (axis codes, e.g. ("L", "P", "S")) are as stored. `located` is False where the header gives
    neither an sform nor a qform, so that the axes are a guess; `dtype` is the stored type.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray
    spacing_mm: tuple[float, float, float]
    orientation: tuple[str, str, str]
    disk_shape: tuple[int, int, int]
    disk_affine: np.ndarray
    located: bool
    dtype: np.dtype


def read_grid(path: str | Path) -> Grid:
    """Read where the voxels lie, without reading them.

    Raises:
      DataError: the header is unreadable, not one of a 3-D scalar volume, or promises more than fits in the file.
    """
    path = Path(path)
    with opened(path) as stream:
        return grid_of(read_header(stream, path), path)


def grid_of(header: Nifti1Header, path: Path) -> Grid:
    """Where a header puts its voxels; `path` is for messages.

    Raises:
      DataError: it is not the header of one 3-D volume, or its affine is of no use.
    """
    stored = tuple(int(n) for n in header.get_data_shape())
    if len(stored) < 3 or any(n != 1 for n in stored[3:]):
        raise DataError(f"{path}: {len(stored)}-D ({by(stored)}), not one 3-D volume; split or convert it")
    shape = stored[0], stored[1], stored[2]
    try:
        with np.errstate(invalid="ignore", over="ignore"):
            affine = np.asarray(header.get_best_affine(), np.float64)
    except HEADER_ERRORS as error:
        raise DataError(f"{path}: the header does not say where its voxels lie: {one_line(error)}") from error
    if not np.isfinite(affine).all() or np.linalg.matrix_rank(affine[:3, :3]) < 3:
        raise DataError(f"{path}: its affine is singular or not finite; rewrite the header with a valid sform")
    turn = _turn(affine)
    canonical = affine @ orientations.inv_ornt_aff(turn, shape)
    z, h, w = np.argsort(turn[:, 0])
    # Affines are stored in 32 bits: past six decimals there is only rounding.
    mm = [round(float(s), 6) for s in voxel_sizes(canonical)]
    return Grid(
        shape=(shape[z], shape[h], shape[w]),
        affine=canonical,
        spacing_mm=(mm[0], mm[1], mm[2]),
        orientation=orientations.aff2axcodes(affine),
        disk_shape=shape,
        disk_affine=affine,
        located=bool(header["sform_code"] > 0 or header["qform_code"] > 0),
        dtype=header.get_data_dtype(),
    )


def read(path: str | Path, dtype: np.typing.DTypeLike = np.float32, *, on: Grid | None = None) -> Volume:
    """Read a 3-D scalar volume, with the header's scaling applied, onto canonical axes.

    Args:
      path: a `.nii` or `.nii.gz` file; trailing axes of length 1 are dropped.
      dtype: of the array; an integer type must hold every value exactly.
      on: take the stored voxel indices to lie on this grid, whatever the file's own header says.

    Raises:
      DataError: as `read_grid`; or the file is truncated or damaged, holds values that are NaN or infinite or
        that `dtype` cannot hold, or its stored shape is not that of `on`.
    """
    path = Path(path)
    with opened(path) as stream:
        header = read_header(stream, path)
        own = grid_of(header, path)
        grid = on or own
        if own.disk_shape != grid.disk_shape:
            stored, needed = by(own.disk_shape), by(grid.disk_shape)
            raise DataError(f"{path}: stored as {stored} voxels where {needed} are needed; use the matching file")
        array = _voxels(stream, header, np.dtype(dtype), path)
    return _turned(array.reshape(grid.disk_shape, order="F"), grid, path)


def canonical(array: np.ndarray, grid: Grid, dtype: np.typing.DTypeLike, path: Path) -> Volume:
    """Turn an array of the grid's voxels, its axes as stored, onto canonical axes.

    Raises:
      DataError: it holds values that are NaN or infinite or that `dtype` cannot hold.
    """
    return _turned(_cast(array.reshape(grid.disk_shape), np.dtype(dtype), path), grid, path)


def _turned(array: np.ndarray, grid: Grid, path: Path) -> Volume:
    if odd := array.size - np.count_nonzero(np.isfinite(array)):
        raise DataError(f"{path}: NaN or infinite voxels: {odd}; export the image again")
    array_ZxHxW = orientations.apply_orientation(array, _turn(grid.disk_affine))
    return Volume(np.ascontiguousarray(array_ZxHxW), grid.affine, grid.spacing_mm, path)


def _voxels(stream: BinaryIO, header: Nifti1Header, dtype: np.dtype, path: Path) -> np.ndarray:
    """All voxels as stored, scaled by the header, in one row; nothing but they is ever in memory as a whole."""
    stored, (slope, inter) = header.get_data_dtype(), header.get_slope_inter()
    array = np.empty(int(np.prod(header.get_data_shape(), dtype=np.int64)), dtype)
    stream.seek(header.get_data_offset())
    for start in range(0, array.size, _CHUNK):
        part = array[start : start + _CHUNK]
        content = stream.read(part.size * stored.itemsize)
        if len(content) < part.size * stored.itemsize:
            promise = f"{by(header.get_data_shape())} voxels of {stored.itemsize} bytes"
            raise DataError(f"{path}: truncated: the voxels end before the {promise} of the header; copy it again")
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused once all is read
            scaled = apply_read_scaling(np.frombuffer(content, stored), slope, inter)
        part[:] = _cast(scaled, dtype, path)
    # Only the end of a gzip stream tells whether what came before was damaged.
    rest = 0
    while more := len(stream.read(_TRAILING)):
        rest += more
        if rest > _TRAILING:
            raise DataError(f"{path}: goes on after its last voxel, for over {_TRAILING} bytes; convert it anew")
    return array


def read_label(path: str | Path, *, on: Grid | None = None) -> Volume:
    """Read a label map as uint8, one value a structure.

    Raises:
      DataError: as `read`; among others, a value is not exactly an integer of 0..255.
    """
    return read(path, np.uint8, on=on)


def write_mask(mask_ZxHxW: np.ndarray, source: str | Path, out: str | Path) -> None:
    """Write a mask on canonical axes as uint8 on the stored grid of the image it was made from.

    Axis order, sform, qform, voxel sizes and NIfTI version are the source's, bit for bit; values are unscaled.
    The file appears complete or not at all, and the same mask gives the same bytes.

    Args:
      mask_ZxHxW: boolean, or integers of 0..255, in the source's canonical shape.
      source: the image whose grid it lies on.
      out: a `.nii` or `.nii.gz` file to make or replace; missing folders are made.

    Raises:
      DataError: the source's header cannot be read, or `out` cannot be written.
      UsageError: `out` is the source itself, or is not named `.nii` or `.nii.gz`.
      ValueError: the mask's shape or values do not fit.
    """
    mask_ZxHxW = np.asarray(mask_ZxHxW)
    values = mask_ZxHxW.astype(np.uint8)
    if not np.array_equal(values, mask_ZxHxW):
        raise ValueError("a mask holds integers of 0..255")
    _write(values, Path(source), Path(out), b"ivdjax disc mask")


def write_map(map_ZxHxW: np.ndarray, source: str | Path, out: str | Path, what: str) -> None:
    """Write a map of values of 0 to 1 as float32 on the stored grid of the image it was made from.

    Values are rounded to three decimals, which makes the file some ten times smaller. All else is as in `write_mask`.

    Args:
      map_ZxHxW: finite values in the source's canonical shape.
      source: the image whose grid it lies on.
      out: a `.nii` or `.nii.gz` file to make or replace; missing folders are made.
      what: what the map shows, in a few ASCII words for the header.

    Raises:
      DataError, UsageError, ValueError: as `write_mask`.
    """
    # Adding 0 makes -0, which some viewers show, a plain 0.
    _write(np.round(map_ZxHxW, 3).astype(np.float32) + 0, Path(source), Path(out), f"ivdjax {what}".encode("ascii"))


def _write(values_ZxHxW: np.ndarray, source: Path, out: Path, what: bytes) -> None:
    if not out.name.endswith(SUFFIXES):
        raise UsageError(f"{out}: is written as .nii or .nii.gz; name it so")
    if out.resolve() == source.resolve():
        raise UsageError(f"{out}: would replace the image it was made from; choose another name")
    with opened(source) as stream:
        header = read_header(stream, source)
    grid = grid_of(header, source)
    if values_ZxHxW.shape != grid.shape:
        raise ValueError(f"a mask of {by(values_ZxHxW.shape)} voxels for a grid of {by(grid.shape)}")
    back = orientations.ornt_transform(
        orientations.axcodes2ornt(CANONICAL), orientations.io_orientation(grid.disk_affine)
    )
    header = _own_header(header, grid, values_ZxHxW.dtype, what)
    values = orientations.apply_orientation(values_ZxHxW, back).astype(header.get_data_dtype(), copy=False)
    try:
        # Four zero bytes after the header say that no extension follows.
        with replacing(out) as partial, _zipped(partial) if out.name.endswith(".gz") else partial.open("wb") as file:
            file.write(header.binaryblock + bytes(4))
            file.write(values.tobytes(order="F"))
    except OSError as error:
        raise DataError(f"{out}: cannot be written: {error.strerror or one_line(error)}") from error


def copy(source: str | Path, out: str | Path, *, placed_as: str | Path | None = None) -> None:
    """Copy a volume to a `.nii.gz` file, which is the source's bytes, zipped where the source is not.

    Args:
      source: a `.nii` or `.nii.gz` file.
      out: the file to write.
      placed_as: a volume whose voxel sizes, qform and sform the copy gets in place of the source's.

    Raises:
      DataError: a file cannot be read, or `out` cannot be written.
    """
    source, out = Path(source), Path(out)
    with opened(source) as stream:
        start = b""
        if placed_as is not None:
            header = read_header(stream, source)
            with opened(Path(placed_as)) as other:
                place = read_header(other, Path(placed_as))
            for name in _PLACE:
                header[name] = place[name]
            start = header.binaryblock
            stream.seek(header.sizeof_hdr)
        as_it_is = placed_as is None and source.name.endswith(".gz")
        with source.open("rb") if as_it_is else nullcontext(stream) as content:
            try:
                with out.open("wb") if as_it_is else _zipped(out) as file:
                    file.write(start)
                    while part := content.read(_COPIED):
                        file.write(part)
            except OSError as error:
                # Both sides may have failed; a disk that is full is always the other one's.
                if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                    raise DataError(f"{out}: cannot be written: {error.strerror}; make room") from error
                raise


@contextmanager
def _zipped(path: Path) -> Iterator[gzip.GzipFile]:
    """A new file to zip into; the same content gives the same bytes."""
    with path.open("wb") as file, gzip.GzipFile("", "wb", fileobj=file, mtime=0) as zipped:
        yield zipped


def corner_displacement_mm(a: np.ndarray, b: np.ndarray, shape: tuple[int, int, int]) -> float:
    """Largest distance in mm between where two (4,4) affines put the same corner of a grid of `shape`."""
    corners = np.stack(np.meshgrid(*[(0, n - 1) for n in shape], [1], indexing="ij"), -1).reshape(-1, 4)
    with np.errstate(over="ignore"):  # too far to be told is infinitely far
        return float(np.linalg.norm((corners @ (a - b).T)[:, :3], axis=1).max())


def place_by_header(label: Volume, affine: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Carry a label onto the grid (`affine`, `shape`) by the nearest voxel, through both headers.

    Returns an array of `shape` and the label's dtype, 0 where the label's own grid does not reach.
    """
    to_label = np.linalg.inv(label.affine) @ affine
    placed = np.zeros(shape, label.array.dtype)
    zs, hs, ws = _reached(label.array.shape, np.linalg.inv(affine) @ label.affine, shape)
    h, w = np.meshgrid(np.arange(hs.start, hs.stop), np.arange(ws.start, ws.stop), indexing="ij")
    for z in range(zs.start, zs.stop):  # a slice at a time: the indices of a whole volume take 50 times its memory
        index = to_label @ np.stack([np.full(h.size, z), h.ravel(), w.ravel(), np.ones(h.size)])
        nearest = np.floor(index[:3] + 0.5)
        inside = ((nearest >= 0) & (nearest < np.array(label.array.shape)[:, None])).all(axis=0)
        values = np.zeros(h.size, placed.dtype)
        values[inside] = label.array[tuple(nearest[:, inside].astype(np.int64))]
        placed[z, hs, ws] = values.reshape(h.shape)
    return placed


def _reached(
    own_shape: tuple[int, ...], to_grid: np.ndarray, shape: tuple[int, int, int]
) -> tuple[slice, slice, slice]:
    """The part of a grid of `shape` that voxels of `own_shape` can lie in, with a voxel to spare, each side a slice."""
    ends = [(-0.5, n - 0.5) for n in own_shape]
    corners = np.stack(np.meshgrid(*ends, [1], indexing="ij"), -1).reshape(-1, 4) @ to_grid.T
    low = np.clip(np.floor(corners[:, :3].min(axis=0)) - 1, 0, shape).astype(int)
    high = np.clip(np.ceil(corners[:, :3].max(axis=0)) + 2, low, shape).astype(int)
    z, h, w = (slice(start, stop) for start, stop in zip(low.tolist(), high.tolist(), strict=True))
    return z, h, w


def _turn(affine: np.ndarray) -> np.ndarray:
    """The permutation and flips, a (3,2) array of nibabel's, from axes with this affine to canonical ones."""
    return orientations.ornt_transform(orientations.io_orientation(affine), orientations.axcodes2ornt(CANONICAL))


def _cast(array: np.ndarray, dtype: np.dtype, path: Path) -> np.ndarray:
    with np.errstate(invalid="ignore", over="ignore"):  # the tests here and in `_turned` say it better
        cast = array.astype(dtype)
    if np.issubdtype(dtype, np.integer) and not np.array_equal(cast, array):
        low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
        raise DataError(f"{path}: holds values that are not integers of {low}..{high}; save it as a label map")
    return cast


def _own_header(header: Nifti1Header, grid: Grid, dtype: np.dtype, what: bytes) -> Nifti1Header:
    """The source's header with its geometry untouched and everything that spoke of its intensities reset."""
    header = header.copy()
    header.set_data_shape(grid.disk_shape)
    header.set_data_dtype(dtype)
    header["vox_offset"] = header.single_vox_offset
    header["scl_slope"], header["scl_inter"] = 1, 0
    header["cal_min"], header["cal_max"] = 0, 0
    header["descrip"], header["aux_file"] = what, b""
    header.set_intent("none")
    return header
