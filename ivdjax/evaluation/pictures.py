"""What a case's slices look like: all of them in one grey picture, and the outlines of masks as vector paths."""

import io
import math
from dataclasses import dataclass

import contourpy
import numpy as np
from PIL import Image

from ivdjax.evaluation.metrics import Spacing, bounding_box

# Far apart for every kind of colour vision, and both clear of the greys they lie on.
REFERENCE_COLOR = "#2fb4ff"
PREDICTION_COLOR = "#ffb020"

Frame = tuple[slice, slice]
"""Rows and columns of a part of the slices."""

# Intensities beyond these percentiles are shown black and white: skin near the coil must not darken the spine.
WINDOW_PERCENTILES = (1.0, 99.5)

# JPEG codes blocks of 8 x 8 pixels; a ring around each slice keeps its neighbours out where it is enlarged.
_BLOCK, _RING = 8, 1
# Pictures no wider than this are drawn in one piece by every graphics processor.
_WIDEST = 4096
# From hardly to be told from the original down to blocks one sees; noise takes the space.
_QUALITIES = (90, 85, 80, 75, 70, 60, 50, 40)


@dataclass(frozen=True)
class Sheet:
    """All slices of a volume in one picture, row by row, each in a cell of its own."""

    jpeg: bytes
    """The picture, 8-bit grey."""
    height_px: int
    """Of the picture."""
    width_px: int
    """Of the picture."""
    columns: int
    """Cells in a row."""
    cell_px: tuple[int, int]
    """Height and width of a cell."""
    slice_px: tuple[int, int]
    """Height and width of a slice, a pixel a voxel; a cell is larger by a border."""

    def corner_px(self, z: int) -> tuple[int, int]:
        """Row and column of the first voxel of slice `z`."""
        row, column = divmod(z, self.columns)
        return row * self.cell_px[0] + _RING, column * self.cell_px[1] + _RING


def mid_sagittal(mask_ZxHxW: np.ndarray) -> int:
    """Index of the slice at a mask's centre of gravity from left to right; of the middle slice if it is empty."""
    area_Z = np.count_nonzero(mask_ZxHxW, axis=(1, 2))
    if not area_Z.any():
        return mask_ZxHxW.shape[0] // 2
    return round(float(np.average(np.arange(len(area_Z)), weights=area_Z)))


def frame(inside_ZxHxW: np.ndarray, spacing_mm: Spacing, margin_mm: float) -> Frame:
    """Rows and columns of what is inside in any slice and a margin around it; all where nothing is inside."""
    inside_HxW = inside_ZxHxW.any(axis=0)
    if not inside_HxW.any():
        return slice(0, inside_HxW.shape[0]), slice(0, inside_HxW.shape[1])
    shown = []
    for reached, spacing, size in zip(
        bounding_box(np.asarray(inside_HxW)), spacing_mm[1:], inside_HxW.shape, strict=True
    ):
        margin = round(margin_mm / spacing)
        shown.append(slice(max(reached.start - margin, 0), min(reached.stop + margin, size)))
    return shown[0], shown[1]


def sheet(image_ZxHxW: np.ndarray, budget_bytes: int) -> Sheet:
    """Picture all slices of a volume at the best quality that fits into `budget_bytes`, or at the lowest.

    Args:
      image_ZxHxW: intensities of any scale; those beyond `WINDOW_PERCENTILES` are black and white.
      budget_bytes: size of the picture to stay within.
    """
    Z, *slice_px = image_ZxHxW.shape
    black, white = np.percentile(image_ZxHxW, WINDOW_PERCENTILES)
    share_ZxHxW = (image_ZxHxW.astype(np.float32) - black) / (white - black if white > black else 1.0)
    grey_ZxHxW = np.round(255 * np.clip(share_ZxHxW, 0, 1)).astype(np.uint8)
    cell_px = tuple(math.ceil((n + 2 * _RING) / _BLOCK) * _BLOCK for n in slice_px)
    around = [(_RING, cell - n - _RING) for cell, n in zip(cell_px, slice_px, strict=True)]
    columns = max(1, min(Z, _WIDEST // cell_px[1]))
    rows = math.ceil(Z / columns)
    cells = np.pad(np.pad(grey_ZxHxW, [(0, 0), *around], mode="edge"), [(0, rows * columns - Z), (0, 0), (0, 0)])
    picture = cells.reshape(rows, columns, *cell_px).swapaxes(1, 2).reshape(rows * cell_px[0], columns * cell_px[1])
    for quality in _QUALITIES:
        jpeg = io.BytesIO()
        Image.fromarray(picture).save(jpeg, "JPEG", quality=quality, optimize=True)
        if jpeg.tell() <= budget_bytes:
            break
    return Sheet(jpeg.getvalue(), *picture.shape, columns, cell_px, (slice_px[0], slice_px[1]))


def outline(mask_HxW: np.ndarray) -> str:
    """The outline of a mask at half its height, as the data of an SVG path; empty for an empty mask.

    A step of the path is half a voxel: the first voxel reaches from 0 to 2 along both axes.
    """
    # A ring of outside voxels closes the outline where the mask reaches the picture's edge.
    padded = np.pad(np.asarray(mask_HxW) != 0, 1).astype(np.float64)
    lines = contourpy.contour_generator(z=padded, line_type=contourpy.LineType.Separate).lines(0.5)
    return "".join(_path(np.rint(2 * np.asarray(line_Nx2)).astype(int) - 1) for line_Nx2 in lines)


def _path(point_Nx2: np.ndarray) -> str:
    step_Nx2 = np.diff(point_Nx2, axis=0)
    step_Nx2 = step_Nx2[step_Nx2.any(axis=1)]
    # Runs of one step become one longer step.
    starts = np.flatnonzero(np.r_[True, (np.diff(step_Nx2, axis=0) != 0).any(axis=1)])
    parts = [f"M{point_Nx2[0, 0]} {point_Nx2[0, 1]}"]
    for x, y in np.add.reduceat(step_Nx2, starts, axis=0):
        parts.append(f"h{x}" if y == 0 else f"v{y}" if x == 0 else f"l{x} {y}")
    return "".join(parts) + "z"
