"""Volumes in the formats that SimpleITK reads (.mha, .nrrd), on the axes of NIfTI, and as NIfTI files.

SimpleITK, which comes with the extra `convert`, is imported when the first file is read. ITK's coordinates run to the
Left, the Posterior and the Superior; those of NIfTI to the Right, the Anterior and the Superior. Nothing is resampled:
voxels, their order and their type stay, and the affine is ITK's origin, spacing and direction cosines.
"""

import gzip
from pathlib import Path
from types import ModuleType
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError

from ivdjax.data import nifti
from ivdjax.errors import DataError, UsageError

SUFFIXES = (".mha", ".nrrd")

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def read_grid(path: str | Path) -> nifti.Grid:
    """Read where the voxels lie, without reading them.

    Raises:
      DataError: the file is unreadable or not one 3-D scalar volume.
      UsageError: SimpleITK is not installed.
    """
    reader = _opened(path)
    return nifti.grid_of(_header(reader, reader.GetSize(), np.float32), Path(path))


def read_label(path: str | Path, *, on: nifti.Grid | None = None) -> nifti.Volume:
    """Read a label map as uint8 on canonical axes; arguments and errors as `read_grid` and `data.nifti.read`."""
    array, header = _read(path)
    own = nifti.grid_of(header, Path(path))
    grid = on or own
    if own.disk_shape != grid.disk_shape:
        stored, needed = nifti.by(own.disk_shape), nifti.by(grid.disk_shape)
        raise DataError(f"{path}: stored as {stored} voxels where {needed} are needed; use the matching file")
    return nifti.canonical(array, grid, np.uint8, Path(path))


def to_nifti(path: str | Path, out: Path) -> None:
    """Write a volume as a `.nii.gz` file with the same voxels, in the same order and of the same type.

    Raises:
      DataError: as `read_grid`; or it holds voxels that are NaN or infinite, or of a type that NIfTI lacks.
      UsageError: SimpleITK is not installed.
    """
    array, header = _read(path)
    nifti.canonical(array, nifti.grid_of(header, Path(path)), np.float32, Path(path))  # refuses what is not finite
    out.write_bytes(gzip.compress(nib.Nifti1Image(array, None, header).to_bytes(), mtime=0))


def _read(path: str | Path) -> tuple[np.ndarray, nib.Nifti1Header]:
    """The voxels, the first index running fastest in the file, and the header that says the same of them in NIfTI."""
    reader = _opened(path)
    try:
        image = reader.Execute()
    except RuntimeError as error:
        raise _unreadable(path) from error
    array = _simpleitk().GetArrayFromImage(image).transpose()  # ITK's first index is NumPy's last
    try:
        return array, _header(reader, array.shape, array.dtype)
    except HeaderDataError as error:
        raise DataError(
            f"{path}: holds {array.dtype} voxels, which NIfTI has no place for; save it as int16"
        ) from error


def _opened(path: str | Path) -> Any:
    """A reader of SimpleITK's that has read what the file says of its one 3-D scalar volume."""
    if Path(path).exists() and not Path(path).is_file():
        raise DataError(f"{path}: is {'a folder' if Path(path).is_dir() else 'no plain file'}; put the image there")
    reader = _simpleitk().ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise _unreadable(path) from error
    if reader.GetDimension() != 3 or reader.GetNumberOfComponents() != 1:
        held = f"{reader.GetDimension()}-D with {reader.GetNumberOfComponents()} value(s) a voxel"
        raise DataError(f"{path}: {held}, not one 3-D scalar volume; split or convert it")
    return reader


def _header(reader: Any, shape: tuple[int, ...], dtype: np.typing.DTypeLike) -> nib.Nifti1Header:
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(reader.GetDirection(), (3, 3)) * reader.GetSpacing()
    affine[:3, 3] = reader.GetOrigin()
    header = nib.Nifti1Header()
    header.set_data_dtype(dtype)
    header.set_data_shape(shape)
    header.set_qform(_LPS_TO_RAS @ affine, code="scanner")
    header.set_sform(_LPS_TO_RAS @ affine, code="scanner")
    header.set_xyzt_units("mm")
    return header


def _unreadable(path: str | Path) -> DataError:
    what = "SimpleITK cannot read it" if Path(path).exists() else "no such file"
    return DataError(f"{path}: {what}; copy it again")


def _simpleitk() -> ModuleType:
    try:
        import SimpleITK
    except ImportError as error:
        raise UsageError(
            "reading .mha and .nrrd takes SimpleITK: pip install SimpleITK, or install the extra `convert`"
        ) from error
    return SimpleITK
