"""Pictures of a slice with the outlines of masks on it, as PNG, for the report and for whoever wants to look."""

import io

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ivdjax.evaluation.challenge import label_discs
from ivdjax.evaluation.metrics import Spacing, bounding_box

# Far apart for every kind of colour vision, and both clear of the greys they lie on.
REFERENCE_COLOR = "#2fb4ff"
PREDICTION_COLOR = "#ffb020"

PIXELS_PER_MM = 3.0
MARGIN_MM = 32.0
# Intensities beyond these percentiles are shown black and white: skin near the coil must not darken the spine.
WINDOW_PERCENTILES = (1.0, 99.5)

# Matplotlib measures lines and letters in points, 72 an inch.
_DPI = 144


def mid_sagittal(mask_ZxHxW: np.ndarray) -> int:
    """Index of the slice at a mask's centre of gravity from left to right; of the middle slice if it is empty."""
    area_Z = np.count_nonzero(mask_ZxHxW, axis=(1, 2))
    if not area_Z.any():
        return mask_ZxHxW.shape[0] // 2
    return round(float(np.average(np.arange(len(area_Z)), weights=area_Z)))


def sagittal_png(
    image_ZxHxW: np.ndarray,
    spacing_mm: Spacing,
    reference_ZxHxW: np.ndarray,
    prediction_ZxHxW: np.ndarray,
    z: int | None = None,
) -> bytes:
    """Picture the spine in one sagittal slice, with the outlines of the reference and of the prediction.

    Shown is the part of the slice around both masks, in true proportions. The discs of the reference bear their
    numbers, 1 the lowest.

    Args:
      image_ZxHxW: intensities of any scale.
      spacing_mm: voxel size along Z, H, W.
      reference_ZxHxW: mask on the image's grid, drawn in `REFERENCE_COLOR`.
      prediction_ZxHxW: another, drawn in `PREDICTION_COLOR`.
      z: the slice; by default `mid_sagittal` of the reference.

    Raises:
      ValueError: the shapes differ.
    """
    shapes = {image_ZxHxW.shape, reference_ZxHxW.shape, prediction_ZxHxW.shape}
    if len(shapes) > 1:
        raise ValueError(f"image, reference and prediction are of different shapes: {sorted(shapes)}")
    z = mid_sagittal(reference_ZxHxW) if z is None else z
    spacing_hw = spacing_mm[1:]
    h, w = _frame(((reference_ZxHxW != 0) | (prediction_ZxHxW != 0)).any(axis=0), spacing_hw)
    figure, axes = _draw_image(image_ZxHxW[z, h, w], spacing_hw)
    # The prediction is the thinner line and on top, so that where both agree both are seen.
    _draw_outline(axes, reference_ZxHxW[z, h, w], spacing_hw, REFERENCE_COLOR, width=2.2)
    _draw_outline(axes, prediction_ZxHxW[z, h, w], spacing_hw, PREDICTION_COLOR, width=1.0)
    _draw_numbers(axes, label_discs(reference_ZxHxW, spacing_mm)[z, h, w], spacing_hw)
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=_DPI, metadata={"Software": None})
    return png.getvalue()


def _frame(inside_HxW: np.ndarray, spacing_hw: tuple[float, float]) -> tuple[slice, slice]:
    """The part of a slice to show: what is inside and a margin around it; everything if nothing is inside."""
    if not inside_HxW.any():
        return slice(None), slice(None)
    frame = []
    for reached, spacing, size in zip(bounding_box(inside_HxW), spacing_hw, inside_HxW.shape, strict=True):
        margin = round(MARGIN_MM / spacing)
        frame.append(slice(max(reached.start - margin, 0), min(reached.stop + margin, size)))
    return frame[0], frame[1]


def _draw_image(image_HxW: np.ndarray, spacing_hw: tuple[float, float]) -> tuple[Figure, Axes]:
    height_mm, width_mm = np.multiply(image_HxW.shape, spacing_hw)
    figure = Figure(figsize=(width_mm * PIXELS_PER_MM / _DPI, height_mm * PIXELS_PER_MM / _DPI), facecolor="black")
    axes = figure.add_axes((0, 0, 1, 1))
    black, white = np.percentile(image_HxW, WINDOW_PERCENTILES)
    extent = (0, width_mm, height_mm, 0)
    axes.imshow(image_HxW, "gray", vmin=black, vmax=white, extent=extent, interpolation="bilinear", aspect="auto")
    axes.set_axis_off()
    return figure, axes


def _draw_outline(axes: Axes, mask_HxW: np.ndarray, spacing_hw: tuple[float, float], color: str, width: float) -> None:
    if not np.any(mask_HxW):
        return
    # A ring of outside voxels closes the outline where the mask reaches the picture's edge.
    padded = np.pad(np.asarray(mask_HxW) != 0, 1)
    h_mm, w_mm = ((np.arange(n) - 0.5) * spacing for n, spacing in zip(padded.shape, spacing_hw, strict=True))
    axes.contour(w_mm, h_mm, padded, [0.5], colors=[color], linewidths=[width])


def _draw_numbers(axes: Axes, discs_HxW: np.ndarray, spacing_hw: tuple[float, float]) -> None:
    for disc in np.unique(discs_HxW[discs_HxW != 0]):
        h, w = bounding_box(discs_HxW == disc)
        middle_mm, left_mm = (h.start + h.stop) / 2 * spacing_hw[0], w.start * spacing_hw[1]
        axes.text(
            left_mm - 4,
            middle_mm,
            str(disc),
            color="white",
            fontsize=9,
            ha="right",
            va="center",
            path_effects=[patheffects.withStroke(linewidth=2.5, foreground="black")],
        )
