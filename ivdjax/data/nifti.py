"""NIfTI files on canonical axes, and masks back on the grid they came from.

Canonical axes are the nearest axis permutation and flips of the stored ones, never a resampling: Z runs towards
the patient's Right, H from superior to Inferior, W from anterior to Posterior. Affines map voxel indices to scanner
coordinates in mm (x to the Right, y to the Anterior, z to the Superior), oblique or not.
The format: NIfTI-1, https://nifti.nimh.nih.gov/nifti-1, and its 64-bit sibling NIfTI-2.
"""

import gzip
import io
import logging
import math
import shutil
import zlib
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from nibabel import orientations
from nibabel.affines import voxel_sizes
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from ivdjax.errors import DataError, UsageError
from ivdjax.files import replacing

CANONICAL = ("R", "I", "P")
SUFFIXES = (".nii", ".nii.gz")

# A spine scan has some 2e6 voxels; past this the header is broken or the volume not for one machine's memory.
MAX_VOXELS = 2**29
# Deflate shrinks by 1032 to 1 at best (https://zlib.net/zlib_tech.html): a promise can be judged unread.
MAX_DEFLATE_RATIO = 1032

logger = logging.getLogger("ivdjax")

_HEADERS = {348: Nifti1Header, 540: Nifti2Header}
_QFORM = ("qform_code", *(f"quatern_{axis}" for axis in "bcd"), *(f"qoffset_{axis}" for axis in "xyz"))
# Fields of a header, of either version, that say where the voxels lie.
_PLACE = ("pixdim", "xyzt_units", *_QFORM, "sform_code", *(f"srow_{axis}" for axis in "xyz"))
_HEADER_ERRORS = (HeaderDataError, WrapStructError, ValueError, OverflowError)


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
    with _opened(path) as stream:
        return grid_of(_header(stream, path), path)


def grid_of(header: Nifti1Header, path: Path) -> Grid:
    """Where a header puts its voxels; `path` is for messages.

    Raises:
      DataError: it is not the header of one 3-D volume, or its affine is of no use.
    """
    shape = tuple(int(n) for n in header.get_data_shape())
    if len(shape) < 3 or any(n != 1 for n in shape[3:]):
        raise DataError(f"{path}: {len(shape)}-D ({by(shape)}), not one 3-D volume; split or convert it")
    shape = shape[:3]
    try:
        with np.errstate(invalid="ignore"):
            affine = np.asarray(header.get_best_affine(), np.float64)
    except _HEADER_ERRORS as error:
        raise DataError(f"{path}: the header does not say where its voxels lie: {_line(error)}") from error
    if not np.isfinite(affine).all() or np.linalg.matrix_rank(affine[:3, :3]) < 3:
        raise DataError(f"{path}: its affine is singular or not finite; rewrite the header with a valid sform")
    turn = _turn(affine)
    canonical = affine @ orientations.inv_ornt_aff(turn, shape)
    order = np.argsort(turn[:, 0])
    return Grid(
        shape=tuple(shape[i] for i in order),
        affine=canonical,
        # Affines are stored in 32 bits: past six decimals there is only rounding.
        spacing_mm=tuple(round(float(s), 6) for s in voxel_sizes(canonical)),
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
    with _opened(path) as stream:
        header = _header(stream, path)
        own = grid_of(header, path)
        grid = on or own
        if own.disk_shape != grid.disk_shape:
            stored, needed = by(own.disk_shape), by(grid.disk_shape)
            raise DataError(f"{path}: stored as {stored} voxels where {needed} are needed; use the matching file")
        array = header.data_from_fileobj(stream)
        # Only the end of a gzip stream tells whether what came before was damaged.
        while stream.read(2**20):
            pass
    return canonical(array, grid, dtype, path)


def canonical(array: np.ndarray, grid: Grid, dtype: np.typing.DTypeLike, path: Path) -> Volume:
    """Turn an array of the grid's voxels, its axes as stored, onto canonical axes.

    Raises:
      DataError: it holds values that are NaN or infinite or that `dtype` cannot hold.
    """
    array = _cast(array.reshape(grid.disk_shape), np.dtype(dtype), path)
    array_ZxHxW = orientations.apply_orientation(array, _turn(grid.disk_affine))
    return Volume(np.ascontiguousarray(array_ZxHxW), grid.affine, grid.spacing_mm, path)


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
    with _opened(source) as stream:
        header = _header(stream, source)
    grid = grid_of(header, source)
    if values_ZxHxW.shape != grid.shape:
        raise ValueError(f"a mask of {by(values_ZxHxW.shape)} voxels for a grid of {by(grid.shape)}")
    back = orientations.ornt_transform(
        orientations.axcodes2ornt(CANONICAL), orientations.io_orientation(grid.disk_affine)
    )
    header = _own_header(header, grid, values_ZxHxW.dtype, what)
    values = orientations.apply_orientation(values_ZxHxW, back).astype(header.get_data_dtype(), copy=False)
    # Four zero bytes after the header say that no extension follows.
    content = header.binaryblock + bytes(4) + values.tobytes(order="F")
    try:
        with replacing(out) as partial:
            partial.write_bytes(gzip.compress(content, mtime=0) if out.name.endswith(".gz") else content)
    except OSError as error:
        raise DataError(f"{out}: cannot be written: {error.strerror or _line(error)}") from error


def copy(source: str | Path, out: str | Path, *, placed_as: str | Path | None = None) -> None:
    """Copy a volume to a `.nii.gz` file, which is the source's bytes, zipped where the source is not.

    Args:
      source: a `.nii` or `.nii.gz` file.
      out: the file to write.
      placed_as: a volume whose voxel sizes, qform and sform the copy gets in place of the source's.

    Raises:
      DataError: a file cannot be read.
    """
    source, out = Path(source), Path(out)
    with _opened(source) as stream:
        if placed_as is None and source.name.endswith(".gz"):
            shutil.copyfile(source, out)
            return
        content = stream.read()
    if placed_as is not None:
        header = _header(io.BytesIO(content), source)
        with _opened(Path(placed_as)) as stream:
            place = _header(stream, Path(placed_as))
        for name in _PLACE:
            header[name] = place[name]
        content = header.binaryblock + content[header.sizeof_hdr :]
    out.write_bytes(gzip.compress(content, mtime=0))


def corner_displacement_mm(a: np.ndarray, b: np.ndarray, shape: tuple[int, int, int]) -> float:
    """Largest distance in mm between where two (4,4) affines put the same corner of a grid of `shape`."""
    corners = np.stack(np.meshgrid(*[(0, n - 1) for n in shape], [1], indexing="ij"), -1).reshape(-1, 4)
    return float(np.linalg.norm((corners @ (a - b).T)[:, :3], axis=1).max())


def place_by_header(label: Volume, affine: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Carry a label onto the grid (`affine`, `shape`) by the nearest voxel, through both headers.

    Returns an array of `shape` and the label's dtype, 0 where the label's own grid does not reach.
    """
    to_label = np.linalg.inv(label.affine) @ affine
    placed = np.zeros(shape, label.array.dtype)
    h, w = np.meshgrid(np.arange(shape[1]), np.arange(shape[2]), indexing="ij")
    for z in range(shape[0]):  # a slice at a time: the indices of a whole volume take 50 times its memory
        index = to_label @ np.stack([np.full(h.size, z), h.ravel(), w.ravel(), np.ones(h.size)])
        nearest = np.floor(index[:3] + 0.5).astype(np.int64)
        inside = ((nearest >= 0) & (nearest < np.array(label.array.shape)[:, None])).all(axis=0)
        placed[z].reshape(-1)[inside] = label.array[tuple(nearest[:, inside])]
    return placed


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """The file's bytes, unzipped where its name says so; every way reading can fail becomes one DataError."""
    if not path.name.endswith(SUFFIXES):
        raise DataError(f"{path}: not named .nii or .nii.gz")
    try:
        if path.stat().st_size == 0 and path.is_file():
            raise DataError(f"{path}: zero length; copy it again")
        if not path.is_file():  # a pipe would be waited for
            raise DataError(f"{path}: is {'a folder' if path.is_dir() else 'no plain file'}; put the image there")
        with gzip.open(path) if path.name.endswith(".gz") else path.open("rb") as stream:
            yield stream
    except gzip.BadGzipFile as error:
        raise DataError(f"{path}: not sound gzip data ({error}); copy it again or rename it .nii") from error
    except (EOFError, zlib.error) as error:
        raise DataError(f"{path}: truncated or damaged gzip data ({error}); copy it again") from error
    except OSError as error:
        if error.errno is None:  # nibabel's way to say that the voxels end too soon
            raise DataError(f"{path}: truncated: {_line(error)}") from error
        raise DataError(f"{path}: unreadable: {error.strerror}") from error


class _Named(logging.LoggerAdapter):
    """Puts the file's name before what nibabel mends in a header."""

    def process(self, msg: str, kwargs: MutableMapping[str, Any]) -> tuple[str, MutableMapping[str, Any]]:
        return f"{self.extra['path']}: {msg}", kwargs


def _header(stream: BinaryIO, path: Path) -> Nifti1Header:
    """The header at the stream's start, once it is known to be a single file's and to promise what fits in it."""
    start = stream.read(max(_HEADERS))
    kind = _HEADERS.get(int.from_bytes(start[:4], "little")) or _HEADERS.get(int.from_bytes(start[:4], "big"))
    if kind is None:
        raise DataError(f"{path}: not a NIfTI file (no NIfTI header at its start); convert it")
    if len(start) < kind.sizeof_hdr:
        raise DataError(f"{path}: truncated: {len(start)} bytes, less than a NIfTI header; copy it again")
    try:
        with np.errstate(invalid="ignore"):  # here and below, a NaN is caught by the tests that follow
            header = kind(start[: kind.sizeof_hdr], check=False)
            header.check_fix(logger=_Named(logger, {"path": path}))
            shape, dtype, offset = header.get_data_shape(), header.get_data_dtype(), header.get_data_offset()
            header.get_slope_inter()
    except _HEADER_ERRORS as error:
        raise DataError(f"{path}: not a usable NIfTI header: {_line(error)}") from error
    if header["magic"].item() != kind.single_magic:
        raise DataError(f"{path}: the header of a .hdr/.img pair; convert the pair to one .nii file")
    if dtype.fields is not None or dtype.kind not in "iuf":
        raise DataError(f"{path}: holds {dtype} voxels, not one real number a voxel")
    voxels = math.prod(int(n) for n in shape)
    if offset < kind.single_vox_offset:
        raise DataError(f"{path}: its header says that the voxels begin at byte {offset}; damaged?")
    if not shape or min(shape) < 1 or voxels > MAX_VOXELS:
        raise DataError(f"{path}: its header promises {by(shape)} voxels (usable: 1 to {MAX_VOXELS}); damaged?")
    size = path.stat().st_size
    room = size * MAX_DEFLATE_RATIO if path.name.endswith(".gz") else size
    if offset + voxels * dtype.itemsize > room:
        promise = f"the header promises {by(shape)} voxels of {dtype.itemsize} bytes"
        raise DataError(f"{path}: truncated or damaged: {promise}, too much for a file of {size} bytes")
    return header


def _turn(affine: np.ndarray) -> np.ndarray:
    """The permutation and flips, a (3,2) array of nibabel's, from axes with this affine to canonical ones."""
    return orientations.ornt_transform(orientations.io_orientation(affine), orientations.axcodes2ornt(CANONICAL))


def _cast(array: np.ndarray, dtype: np.dtype, path: Path) -> np.ndarray:
    with np.errstate(invalid="ignore", over="ignore"):  # the two tests below say it better
        cast = array.astype(dtype)
    if np.issubdtype(dtype, np.integer):
        if not np.array_equal(cast, array):
            low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
            raise DataError(f"{path}: holds values that are not integers of {low}..{high}; save it as a label map")
    elif not (finite := np.isfinite(cast)).all():
        raise DataError(f"{path}: NaN or infinite voxels: {int((~finite).sum())}; export the image again")
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


def by(shape: tuple[int, ...]) -> str:
    """Write a shape for the eye: `36 x 256 x 256`."""
    return " x ".join(str(int(n)) for n in shape)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
