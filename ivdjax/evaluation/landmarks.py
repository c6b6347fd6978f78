"""A measured disc as a picture: the image cut along the disc's own axes, each measure drawn where it was taken."""

import io
from dataclasses import dataclass
from typing import Literal

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import ndimage

from ivdjax.evaluation.measure import Measures

MARGIN_MM = 11.0
GAP_MM = 1.5
STEP_MM = 0.25
OUTLINE_COLOR = "#2fb4ff"
HEIGHT_COLOR = "#ffd23f"
DIAMETER_COLOR = "#7ae582"
ENDPLATE_COLOR = "#ff8fc0"

_PIXELS_PER_MM = 9.0
_DPI = 144
_HALO = [patheffects.withStroke(linewidth=2.6, foreground="black")]


@dataclass(frozen=True)
class _View:
    """A plane through the disc's centre, and what of it is shown."""

    center_3: np.ndarray
    right_3: np.ndarray
    up_3: np.ndarray
    width_mm: float
    height_mm: float

    def place(self, point_Px3: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where points of the scanner's space are in the picture: mm to the right and upwards."""
        return (point_Px3 - self.center_3) @ self.right_3, (point_Px3 - self.center_3) @ self.up_3

    def cut(self, volume_ZxHxW: np.ndarray, affine: np.ndarray) -> np.ndarray:
        """The volume on this plane, the uppermost row first."""
        x = np.arange(-self.width_mm / 2 + STEP_MM / 2, self.width_mm / 2, STEP_MM)
        y = np.arange(self.height_mm / 2 - STEP_MM / 2, -self.height_mm / 2, -STEP_MM)
        point_YxXx3 = self.center_3 + y[:, None, None] * self.up_3 + x[:, None] * self.right_3
        index_YxXx3 = (point_YxXx3 - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T
        return ndimage.map_coordinates(volume_ZxHxW.astype(np.float32), np.moveaxis(index_YxXx3, -1, 0), order=1)


def disc_picture(
    image_ZxHxW: np.ndarray,
    affine: np.ndarray,
    disc_ZxHxW: np.ndarray,
    measures: Measures,
    kind: Literal["png", "jpeg"] = "png",
) -> bytes:
    """Picture a disc from the side and from above, with its heights, diameters and endplates.

    From the side, the front is on the left; from above, it is on top, and the patient's right is on the left as
    radiology has it. The ends of the lines are the landmarks; the outline is that of the mask.

    Args:
      image_ZxHxW: intensities of any scale, canonical axes.
      affine: (4,4), voxel indices to scanner mm.
      disc_ZxHxW: the disc that was measured, True inside.
      measures: what was measured.
      kind: of the file.
    """
    marks = measures.landmarks
    u_3, v_3, n_3 = marks.axes_3x3
    point_Vx3 = np.argwhere(disc_ZxHxW) @ affine[:3, :3].T + affine[:3, 3] - marks.center_3
    # Both ways alike, so that the disc's centre is the picture's.
    wide, deep, high = 2 * (np.abs(point_Vx3 @ marks.axes_3x3.T).max(axis=0) + MARGIN_MM)
    side, above = _View(marks.center_3, -v_3, n_3, deep, high), _View(marks.center_3, -u_3, v_3, wide, deep)
    width_mm, height_mm = deep + GAP_MM + wide, max(deep, high)
    figure = Figure(figsize=(width_mm * _PIXELS_PER_MM / _DPI, height_mm * _PIXELS_PER_MM / _DPI), facecolor="black")
    black_white = np.percentile(image_ZxHxW, (1.0, 99.7))
    left_mm, drawn = 0.0, []
    for view in (side, above):
        low_mm = (height_mm - view.height_mm) / 2
        box = (left_mm / width_mm, low_mm / height_mm, view.width_mm / width_mm, view.height_mm / height_mm)
        drawn.append(_draw_cut(figure.add_axes(box), view, image_ZxHxW, disc_ZxHxW, affine, black_white))
        left_mm += view.width_mm + GAP_MM
    _draw_side(drawn[0], side, measures)
    _draw_above(drawn[1], above, measures)
    file = io.BytesIO()
    figure.savefig(file, format=kind, dpi=_DPI, metadata={"Software": None} if kind == "png" else None)
    return file.getvalue()


def _draw_cut(
    axes: Axes,
    view: _View,
    image_ZxHxW: np.ndarray,
    disc_ZxHxW: np.ndarray,
    affine: np.ndarray,
    black_white: np.ndarray,
) -> Axes:
    extent = (-view.width_mm / 2, view.width_mm / 2, -view.height_mm / 2, view.height_mm / 2)
    low, high = black_white
    axes.imshow(view.cut(image_ZxHxW, affine), "gray", vmin=low, vmax=high, extent=extent, aspect="auto")
    inside = view.cut(disc_ZxHxW, affine)
    if inside.max() > 0.5:
        axes.contour(inside, [0.5], colors=[OUTLINE_COLOR], linewidths=[1.3], extent=extent, origin="upper")
    axes.set_axis_off()
    return axes


def _draw_side(axes: Axes, view: _View, measures: Measures) -> None:
    marks = measures.landmarks
    for endplate_2x3 in marks.endplate_2x2x3:
        axes.plot(*view.place(endplate_2x3), color=ENDPLATE_COLOR, linewidth=1.1, linestyle=(0, (4, 2)))
    heights = (measures.height_anterior_mm, measures.height_middle_mm, measures.height_posterior_mm)
    for ends_2x3, height in zip(marks.height_3x2x3, heights, strict=True):
        x, y = view.place(ends_2x3)
        axes.plot(x, y, color=HEIGHT_COLOR, linewidth=1.6, marker="o", markersize=3)
        _write(axes, x.mean(), y.max() + 2.6, f"{height:.1f}", HEIGHT_COLOR)
    x, y = view.place(marks.ap_2x3)
    _draw_width(axes, x, np.full(2, -view.height_mm / 2 + 7.0), y, f"AP {measures.ap_mm:.1f} mm")
    _write(axes, 0, view.height_mm / 2 - 3, f"wedge {measures.wedge_deg:.1f}°", ENDPLATE_COLOR)
    _write(axes, -view.width_mm / 2 + 2.5, 0, "front", "white", rotation=90)


def _draw_above(axes: Axes, view: _View, measures: Measures) -> None:
    marks = measures.landmarks
    ap_x, ap_y = view.place(marks.ap_2x3)
    axes.plot(ap_x, ap_y, color=DIAMETER_COLOR, linewidth=1.6, marker="o", markersize=3)
    x, y = view.place(marks.transverse_2x3)
    axes.plot(x, y, color=DIAMETER_COLOR, linewidth=1.6, marker="o", markersize=3)
    cut = " (cut off)" if measures.cut_off else ""
    _write(axes, 0, -view.height_mm / 2 + 3, f"transverse {measures.transverse_mm:.1f} mm{cut}", DIAMETER_COLOR)
    _write(axes, 0, view.height_mm / 2 - 3, "front", "white")
    _write(axes, -view.width_mm / 2 + 2.5, 0, "right", "white", rotation=90)


def _draw_width(axes: Axes, x: np.ndarray, y: np.ndarray, from_y: np.ndarray, text: str) -> None:
    """A dimension line below the disc, with thin lines down to it from the points it measures."""
    for end_x, start_y, end_y in zip(x, from_y, y, strict=True):
        axes.plot([end_x, end_x], [start_y, end_y], color=DIAMETER_COLOR, linewidth=0.7, linestyle=(0, (1, 2)))
    axes.plot(x, y, color=DIAMETER_COLOR, linewidth=1.6, marker="|", markersize=7)
    _write(axes, x.mean(), y.mean() - 3.6, text, DIAMETER_COLOR)


def _write(axes: Axes, x: float, y: float, text: str, color: str, rotation: float = 0) -> None:
    axes.text(x, y, text, color=color, fontsize=12, ha="center", va="center", rotation=rotation, path_effects=_HALO)
