"""The measures of a disc, in the disc's own axes: heights, diameters, wedge angle, and what it shows in an image.

A disc's axes are u across (towards the patient's right), v from back to front and n upwards, at right angles, n being
normal to the plane halfway between the planes that fit the two endplates best. On this frame the mask, interpolated
linearly, is summed along n: the sum is the height of each column, its first moment the column's middle, and half the
height above and below are the endplates. Unlike counted voxels these follow oblique discs without steps. A quadratic
surface through each endplate, away from the rim, smooths what steps are left; heights are read off it.

What the measures are is fixed here, since the field has no one standard: anterior and posterior heights are those 10 %
of the AP diameter inside the edges, where the endplates end and the rim of the annulus begins (W. Frobin et al., Clin
Biomech 1997; 12 Suppl 1:S1 measures at the corners of the vertebrae, which a disc's mask does not show).
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

# Distance from the edge, in AP diameters, at which the anterior and the posterior height are taken.
HEIGHT_INSET = 0.1
# The midline's strip, and that for the transverse diameter: this share of the other diameter, about the centre.
STRIP = 1 / 6
# Columns this near to the disc's edge, as a share of the half diameter, belong to the rim and not to the endplates.
RIM = 0.2
# How far around that point, in AP diameters along v, the columns count that a height is read off.
NEAR = 0.06
# Share of a step of the voxels' stairs that a smooth surface may take for a shape of its own.
FEIGNED = 0.3
# Below this ratio of the variances along its two axes a disc counts as round.
ROUND = 1.3

_STEP_MM = 0.6
_MARGIN_MM = 2.5
_LEAST_COLUMNS = 30
_ROUNDS = 12
_SETTLED_DEGREES = 0.05


@dataclass(frozen=True)
class Landmarks:
    """Where a disc was measured; points are scanner coordinates in mm (right, anterior, superior)."""

    center_3: np.ndarray
    """Centre of gravity."""
    axes_3x3: np.ndarray
    """Unit vectors in rows: u across, v to the front, n upwards."""
    height_3x2x3: np.ndarray
    """Anterior, middle and posterior height: its upper and lower end."""
    ap_2x3: np.ndarray
    """Front and back end of the AP diameter."""
    transverse_2x3: np.ndarray
    """Right and left end of the transverse diameter."""
    endplate_2x2x3: np.ndarray
    """Upper and lower endplate: front and back end of the straight line that gives the wedge angle."""


@dataclass(frozen=True)
class Measures:
    """A disc's size and shape. The fields but the last are columns of `discs.csv`."""

    volume_mm3: float
    """Volume of its voxels, mm3."""
    height_anterior_mm: float
    """Height 10 % of the AP diameter behind the front edge, on the midline, mm."""
    height_middle_mm: float
    """Height halfway between the front and the back edge, on the midline, mm."""
    height_posterior_mm: float
    """Height 10 % of the AP diameter before the back edge, on the midline, mm."""
    ap_mm: float
    """Anteroposterior diameter, mm: from edge to edge, the median over the middle sixth of the disc's width."""
    transverse_mm: float
    """Transverse diameter, mm: likewise, over the middle sixth of its depth."""
    wedge_deg: float
    """Angle between the planes of the two endplates seen from the side, degrees; positive opens to the front."""
    center_x_mm: float
    """Centre of gravity in scanner coordinates, mm to the patient's right as the header counts them."""
    center_y_mm: float
    """The same, to the front."""
    center_z_mm: float
    """The same, upwards."""
    cut_off: bool
    """The disc reaches the edge of the scan, so that the measures are of a part of it."""
    landmarks: Landmarks
    """Where all of it was measured."""


@dataclass(frozen=True)
class _Columns:
    """A disc resolved into columns along n, on a grid over (u, v)."""

    u_U: np.ndarray
    v_V: np.ndarray
    height_UxV: np.ndarray
    middle_UxV: np.ndarray
    stair_mm: float  # height of the steps that voxels make of a slope
    tread_mm: float  # and their length along the steepest slope, infinite where there is none

    def endplate(self, side: int) -> np.ndarray:
        """n of the upper (1) or the lower (-1) endplate."""
        return self.middle_UxV + side * self.height_UxV / 2


def measure_disc(disc_ZxHxW: np.ndarray, affine: np.ndarray) -> Measures:
    """Measure one disc.

    Args:
      disc_ZxHxW: True inside; canonical axes, the whole grid of the image (a disc that reaches its edge counts as cut
        off).
      affine: (4,4), from voxel indices to scanner coordinates in mm.

    Raises:
      ValueError: the disc is empty, too small to have endplates, or in pieces that have none in common.
    """
    disc_ZxHxW = np.asarray(disc_ZxHxW) != 0
    voxel_Vx3 = np.argwhere(disc_ZxHxW)
    if not len(voxel_Vx3):
        raise ValueError("an empty disc has no measures")
    cut_off = bool((voxel_Vx3 == 0).any() or (voxel_Vx3 == np.array(disc_ZxHxW.shape) - 1).any())
    point_Vx3 = voxel_Vx3 @ affine[:3, :3].T + affine[:3, 3]
    center_3 = point_Vx3.mean(axis=0)
    solid_ZxHxW = disc_ZxHxW.astype(np.float32)
    axes_3x3 = _first_axes(point_Vx3 - center_3, affine)
    forwards_3 = axes_3x3[1]
    for _ in range(_ROUNDS):
        columns = _columns(solid_ZxHxW, affine, point_Vx3, axes_3x3, 2 * _STEP_MM)
        normal_3, footprint_UxV = _normal(columns, axes_3x3)
        turned_3x3 = _facing(normal_3, forwards_3)
        if not cut_off:
            turned_3x3 = _own(columns, footprint_UxV, axes_3x3, turned_3x3)
        settled = np.min((turned_3x3 * axes_3x3).sum(axis=1)) > np.cos(np.radians(_SETTLED_DEGREES))
        axes_3x3 = turned_3x3
        if settled:
            break
    columns = _columns(solid_ZxHxW, affine, point_Vx3, axes_3x3, _STEP_MM)
    volume_mm3 = len(voxel_Vx3) * abs(float(np.linalg.det(affine[:3, :3])))
    return _read_off(columns, center_3, axes_3x3, volume_mm3, cut_off)


def _first_axes(offset_Vx3: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Axes (u, v, n) of a disc from its outline seen from the side, where every disc is far longer than high."""
    across_3 = affine[:3, 0] / np.linalg.norm(affine[:3, 0])
    side_Vx3 = offset_Vx3 - np.outer(offset_Vx3 @ across_3, across_3)
    long_3 = np.linalg.eigh(side_Vx3.T @ side_Vx3)[1][:, -1]
    forwards_3 = -long_3 if long_3 @ affine[:3, 2] > 0 else long_3
    return _facing(np.cross(across_3, forwards_3), forwards_3)


def _facing(normal_3: np.ndarray, forwards_3: np.ndarray) -> np.ndarray:
    """Axes (u, v, n) with this normal, v being as near to `forwards_3` as can be."""
    normal_3 = normal_3 / np.linalg.norm(normal_3)
    v_3 = forwards_3 - (forwards_3 @ normal_3) * normal_3
    v_3 /= np.linalg.norm(v_3)
    return np.stack([np.cross(v_3, normal_3), v_3, normal_3])


def _columns(
    solid_ZxHxW: np.ndarray, affine: np.ndarray, point_Vx3: np.ndarray, axes_3x3: np.ndarray, step_mm: float
) -> _Columns:
    center_3 = point_Vx3.mean(axis=0)
    place_Vx3 = (point_Vx3 - center_3) @ axes_3x3.T
    u_U, v_V, n_N = (
        np.arange(low - _MARGIN_MM, high + _MARGIN_MM + step_mm, step_mm)
        for low, high in zip(place_Vx3.min(axis=0), place_Vx3.max(axis=0), strict=True)
    )
    # Voxel indices are linear in u, v and n: three outer sums instead of a matrix product a point.
    to_index = np.linalg.inv(affine)
    origin_3 = to_index[:3, :3] @ center_3 + to_index[:3, 3]
    step_3x3 = to_index[:3, :3] @ axes_3x3.T
    index_3xUxVxN = [
        origin + s[0] * u_U[:, None, None] + s[1] * v_V[None, :, None] + s[2] * n_N
        for origin, s in zip(origin_3, step_3x3, strict=True)
    ]
    inside_UxVxN = ndimage.map_coordinates(solid_ZxHxW, index_3xUxVxN, order=1)
    height_UxV = inside_UxVxN.sum(axis=2) * step_mm
    middle_UxV = (inside_UxVxN @ n_N) * step_mm / np.maximum(height_UxV, 1e-6)
    voxel_mm_3 = np.linalg.norm(affine[:3, :3], axis=0)
    along_3 = np.abs(axes_3x3[2] @ affine[:3, :3]) / voxel_mm_3
    axis = int(np.argmax(along_3))
    slope = np.sqrt(max(1 / along_3[axis] ** 2 - 1, 0.0))
    tread_mm = voxel_mm_3[axis] / slope if slope > 0 else np.inf
    return _Columns(u_U, v_V, height_UxV, middle_UxV, voxel_mm_3[axis], tread_mm)


def _footprint(columns: _Columns) -> np.ndarray:
    """Columns of the disc: those that have at least half the height that the endplates nearby have."""
    within_UxV = columns.height_UxV > 1.0
    for _ in range(2):
        local_UxV = _height(columns, _interior(columns, within_UxV))
        within_UxV = columns.height_UxV > np.maximum(local_UxV, 1.0) / 2
    return within_UxV


def _height(columns: _Columns, interior_UxV: np.ndarray) -> np.ndarray:
    upper, lower = (_quadratic(columns, columns.endplate(side), interior_UxV) for side in (1, -1))
    grid = np.meshgrid(columns.u_U, columns.v_V, indexing="ij")
    return _terms(*grid) @ (upper - lower)


def _interior(columns: _Columns, footprint_UxV: np.ndarray) -> np.ndarray:
    """The columns between endplates: those of the footprint without its rim."""
    step_mm = columns.v_V[1] - columns.v_V[0]
    depth_mm = ndimage.distance_transform_edt(np.pad(footprint_UxV, 1), sampling=step_mm)[1:-1, 1:-1]
    half_mm = np.count_nonzero(footprint_UxV.any(axis=0)) * step_mm / 2
    for share in (RIM, RIM / 2, 0.0):
        interior_UxV = depth_mm > share * half_mm
        if np.count_nonzero(interior_UxV) * step_mm**2 >= _LEAST_COLUMNS * _STEP_MM**2:
            return interior_UxV
    raise ValueError("too small or too thin to have endplates")


def _terms(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """The terms of a quadratic surface, along a last axis; the first three are those of a plane."""
    return np.stack([np.ones_like(u), u, v, u * u, u * v, v * v], axis=-1)


def _plane(columns: _Columns, surface_UxV: np.ndarray, interior_UxV: np.ndarray) -> np.ndarray:
    """Coefficients of the plane through an endplate, as of a quadratic surface."""
    u, v = np.nonzero(interior_UxV)
    return np.append(_fit(_terms(columns.u_U[u], columns.v_V[v])[:, :3], surface_UxV[u, v]), np.zeros(3))


def _quadratic(columns: _Columns, surface_UxV: np.ndarray, interior_UxV: np.ndarray) -> np.ndarray:
    """Coefficients of the quadratic surface through an endplate, no more curved than the voxels bear witness to."""
    u, v = np.nonzero(interior_UxV)
    design = _terms(columns.u_U[u], columns.v_V[v])
    plane = _plane(columns, surface_UxV, interior_UxV)
    bend = _fit(design, surface_UxV[u, v]) - plane
    return plane + bend * _trust(columns, np.sqrt(np.mean((design @ bend) ** 2)), np.ptp(columns.v_V))


def _trust(columns: _Columns, found_mm: float, length_mm: float) -> float:
    """Share of a deviation found over some length that is not put down to voxels: they make stairs of a slope.

    Short stairs average out, a flight of a step or two over the whole length does not. The shrinkage is that of James
    and Stein, with the stairs as the noise.
    """
    feigned_mm = FEIGNED * columns.stair_mm * min(1.0, columns.tread_mm / length_mm)
    return max(0.0, 1 - feigned_mm**2 / (found_mm**2 + 1e-9))


def _endplate_n(
    columns: _Columns, surface_UxV: np.ndarray, fit: np.ndarray, u: float, v: float, reach: tuple[float, float]
) -> float:
    """n of an endplate at (u, v): its quadratic surface, and by how much the columns around lie off that."""
    near = (np.abs(columns.u_U - u) <= reach[0])[:, None] & (np.abs(columns.v_V - v) <= reach[1])[None]
    i, j = np.nonzero(near & (columns.height_UxV > columns.stair_mm / 2))
    n = float(_terms(np.array(u), np.array(v)) @ fit)
    if not len(i):
        return n
    off_mm = float(np.mean(surface_UxV[i, j] - _terms(columns.u_U[i], columns.v_V[j]) @ fit))
    return float(n + off_mm * _trust(columns, off_mm, 2 * reach[1]))


def _fit(design: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Least squares, in which deviations past 1 mm, as of a dent, weigh as their square root."""
    weight = np.ones(len(value))
    for _ in range(4):
        # The normal equations: a few unknowns, for which a decomposition of all columns would be wasted.
        weighted = design.T * weight
        fit = np.linalg.lstsq(weighted @ design, weighted @ value, rcond=None)[0]
        weight = 1 / np.maximum(np.abs(value - design @ fit), 1.0)
    return fit


def _normal(columns: _Columns, axes_3x3: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The vector that bisects the normals of the two endplates' planes; and the footprint they were found in."""
    footprint_UxV = _footprint(columns)
    interior_UxV = _interior(columns, footprint_UxV)
    normal_3 = np.zeros(3)
    for side in (1, -1):
        _, slope_u, slope_v = _plane(columns, columns.endplate(side), interior_UxV)[:3]
        plane_3 = np.array([-slope_u, -slope_v, 1.0]) @ axes_3x3
        normal_3 += plane_3 / np.linalg.norm(plane_3)
    return normal_3, footprint_UxV


def _own(columns: _Columns, footprint_UxV: np.ndarray, axes_3x3: np.ndarray, facing_3x3: np.ndarray) -> np.ndarray:
    """`facing_3x3` with v along the axis of the footprint that lies nearest to it."""
    u, v = (axis[index] for axis, index in zip((columns.u_U, columns.v_V), np.nonzero(footprint_UxV), strict=True))
    spread, own_2x2 = np.linalg.eigh(np.cov(u, v))
    # A round disc has no axis of its own; then the front stays where it is.
    if spread[1] < ROUND * spread[0]:
        return facing_3x3
    along_2x3 = own_2x2.T @ axes_3x3[:2]
    v_3 = along_2x3[np.argmax(np.abs(along_2x3 @ facing_3x3[1]))]
    return _facing(facing_3x3[2], np.sign(v_3 @ facing_3x3[1]) * v_3)


def _chord(inside_AxB: np.ndarray, b_B: np.ndarray, rows: np.ndarray) -> tuple[float, float]:
    """Lower and upper end along B of where a map is positive: medians over some of its rows."""
    ends = []
    for row in inside_AxB[rows]:
        within = np.flatnonzero(row > 0)
        if len(within) and within[0] > 0 and within[-1] < len(row) - 1:
            first, last = within[0], within[-1]
            ends.append([np.interp(0, row[[i, j]], b_B[[i, j]]) for i, j in ((first - 1, first), (last + 1, last))])
    if not ends:
        raise ValueError("too small to have diameters")
    low, high = np.median(ends, axis=0)
    return float(low), float(high)


def _read_off(
    columns: _Columns, center_3: np.ndarray, axes_3x3: np.ndarray, volume_mm3: float, cut_off: bool
) -> Measures:
    footprint_UxV = _footprint(columns)
    interior_UxV = _interior(columns, footprint_UxV)
    edge_UxV = columns.height_UxV - np.maximum(_height(columns, interior_UxV), 1.0) / 2
    u_U, v_V = columns.u_U, columns.v_V
    half_u, half_v = (np.ptp(axis[footprint_UxV.any(axis=a)]) / 2 for axis, a in ((u_U, 1), (v_V, 0)))
    mid_u, mid_v = (np.mean(axis[footprint_UxV.any(axis=a)]) for axis, a in ((u_U, 1), (v_V, 0)))
    back, front = _chord(edge_UxV, v_V, np.abs(u_U - mid_u) <= STRIP * half_u)
    left, right = _chord(edge_UxV.T, u_U, np.abs(v_V - mid_v) <= STRIP * half_v)
    ap_mm = front - back

    def point(u: float, v: float, n: float) -> np.ndarray:
        return center_3 + np.array([u, v, n]) @ axes_3x3

    mid_u, inset = (left + right) / 2, HEIGHT_INSET * ap_mm
    reach = max(STRIP * half_u, columns.stair_mm), NEAR * ap_mm
    surfaces = [columns.endplate(side) for side in (1, -1)]
    fits = [_quadratic(columns, surface, interior_UxV) for surface in surfaces]
    heights, ends = [], []
    for v in (front - inset, (front + back) / 2, back + inset):
        top, bottom = (
            _endplate_n(columns, surface, fit, mid_u, v, reach) for surface, fit in zip(surfaces, fits, strict=True)
        )
        heights.append(top - bottom)
        ends.append(np.stack([point(mid_u, v, top), point(mid_u, v, bottom)]))
    if min(heights) <= 0:
        raise ValueError("in pieces that no pair of endplates fits")
    planes = [_plane(columns, surface, interior_UxV)[:3] for surface in surfaces]
    upper_slope, lower_slope = (np.degrees(np.arctan(plane[2])) for plane in planes)
    middle_n = float((ends[1] - center_3) @ axes_3x3[2] @ [0.5, 0.5])
    landmarks = Landmarks(
        center_3=center_3,
        axes_3x3=axes_3x3,
        height_3x2x3=np.array(ends),
        ap_2x3=np.array([point(mid_u, front, middle_n), point(mid_u, back, middle_n)]),
        transverse_2x3=np.array(
            [point(right, (front + back) / 2, middle_n), point(left, (front + back) / 2, middle_n)]
        ),
        endplate_2x2x3=np.array(
            [[point(mid_u, v, float(np.dot(plane, [1, mid_u, v]))) for v in (front, back)] for plane in planes]
        ),
    )
    anterior, middle, posterior = heights
    return Measures(
        volume_mm3=volume_mm3,
        height_anterior_mm=anterior,
        height_middle_mm=middle,
        height_posterior_mm=posterior,
        ap_mm=ap_mm,
        transverse_mm=right - left,
        wedge_deg=float(upper_slope - lower_slope),
        center_x_mm=float(center_3[0]),
        center_y_mm=float(center_3[1]),
        center_z_mm=float(center_3[2]),
        cut_off=cut_off,
        landmarks=landmarks,
    )
