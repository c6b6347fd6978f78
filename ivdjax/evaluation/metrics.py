"""How well two masks agree: overlap, and the distance between their surfaces in mm.

Surfaces are those of DeepMind's `surface-distance` (https://github.com/google-deepmind/surface-distance; S. Nikolov et
al., arXiv:1809.04430): one element at each corner where eight voxels meet and not all agree, weighted by the area that
marching cubes give it. Tools differ in these conventions by over 100 mm in the worst case (arXiv:2410.02630), hence,
once and for all:

- a directed distance goes from each element of one surface to the nearest element of the other, weighted by area;
- ASD is the mean of the two directed means (not the mean over both surfaces taken together);
- HD95 is the larger of the two directed 95th percentiles;
- NSD at 1 mm is the area of both surfaces that lies within 1 mm of the other, as a share of their whole area.

The elements and their areas are that package's. The distances come from a k-d tree rather than from its distance map of
the box around both masks: the same numbers, at a cost that does not grow with a speck at the far end of the volume.
"""

import functools
from dataclasses import dataclass

import numpy as np
from scipy.spatial import KDTree
from surface_distance import lookup_tables

from ivdjax.data.instances import Spacing

NSD_TOLERANCE_MM = 1.0
# Voxel sizes come out of 32-bit headers: 1 mm may read 1.0000003 mm, and must still be within 1 mm.
ROUNDING_MM = 1e-3
# Shares of an area are sums in some order: one that is the percentile's but for its last bits must count as reached.
ROUNDING_SHARE = 1e-9

_INSIDE = 0b11111111


@dataclass(frozen=True)
class SurfaceScores:
    """Distances between two surfaces; the conventions are the module's."""

    asd_mm: float
    """Average symmetric surface distance, mm: the mean of the two directed means below."""
    asd_prediction_to_reference_mm: float
    """Mean distance from the predicted surface to the reference surface, mm."""
    asd_reference_to_prediction_mm: float
    """Mean distance from the reference surface to the predicted surface, mm."""
    hd95_mm: float
    """The larger of the two directed 95th percentiles of the distance, mm."""
    nsd_1mm: float
    """Normalised surface Dice at 1 mm, 0 to 1."""


@dataclass(frozen=True)
class _Surface:
    """E surface elements: their places on the lattice of voxel corners, and their areas."""

    corner_Ex3: np.ndarray
    area_mm2_E: np.ndarray


def dice(prediction: np.ndarray, reference: np.ndarray) -> float:
    """Sorensen-Dice overlap of two masks of one shape, any non-zero value being inside; 1.0 where both are empty.

    Raises:
      ValueError: the shapes differ.
    """
    prediction, reference = _inside(prediction), _inside(reference)
    _check_shapes(prediction, reference)
    together = int(np.count_nonzero(prediction)) + int(np.count_nonzero(reference))
    return 2 * int(np.count_nonzero(prediction & reference)) / together if together else 1.0


def surface_scores(prediction_ZxHxW: np.ndarray, reference_ZxHxW: np.ndarray, spacing_mm: Spacing) -> SurfaceScores:
    """Distances between the surfaces of two masks, any non-zero value being inside.

    A mask that reaches the edge of the volume has a surface there: outside the volume nothing is inside.

    Args:
      prediction_ZxHxW: a mask with at least one voxel.
      reference_ZxHxW: another, of the same shape.
      spacing_mm: voxel size along Z, H, W.

    Raises:
      ValueError: the shapes differ, or a mask is empty (there is no distance to nothing; the caller names the penalty).
    """
    prediction, reference = _inside(prediction_ZxHxW), _inside(reference_ZxHxW)
    _check_shapes(prediction, reference)
    if not prediction.any() or not reference.any():
        raise ValueError("a surface distance needs two masks that are not empty")
    predicted, referred = _surface(prediction, spacing_mm), _surface(reference, spacing_mm)
    forth_mm = _distances_mm(predicted, referred, spacing_mm)
    back_mm = _distances_mm(referred, predicted, spacing_mm)
    forth, back = np.average(forth_mm, weights=predicted.area_mm2_E), np.average(back_mm, weights=referred.area_mm2_E)
    near = sum(
        surface.area_mm2_E[distance_mm <= NSD_TOLERANCE_MM + ROUNDING_MM].sum()
        for surface, distance_mm in ((predicted, forth_mm), (referred, back_mm))
    )
    return SurfaceScores(
        asd_mm=float(forth + back) / 2,
        asd_prediction_to_reference_mm=float(forth),
        asd_reference_to_prediction_mm=float(back),
        hd95_mm=max(_percentile(forth_mm, predicted.area_mm2_E, 0.95), _percentile(back_mm, referred.area_mm2_E, 0.95)),
        nsd_1mm=float(near / (predicted.area_mm2_E.sum() + referred.area_mm2_E.sum())),
    )


def bounding_box(mask: np.ndarray) -> tuple[slice, ...]:
    """The smallest box that holds every non-zero voxel of a mask that has some."""
    box = []
    for axis in range(mask.ndim):
        reached = np.flatnonzero(mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis)))
        box.append(slice(int(reached[0]), int(reached[-1]) + 1))
    return tuple(box)


def _surface(mask_ZxHxW: np.ndarray, spacing_mm: Spacing) -> _Surface:
    box = bounding_box(mask_ZxHxW)
    padded = np.pad(mask_ZxHxW[box], 1).astype(np.uint8)
    code = np.zeros([n - 1 for n in padded.shape], np.uint8)
    for offset, bit in np.ndenumerate(lookup_tables.ENCODE_NEIGHBOURHOOD_3D_KERNEL.astype(np.uint8)):
        code |= bit * padded[tuple(slice(o, o + n) for o, n in zip(offset, code.shape, strict=True))]
    corner_Ex3 = np.argwhere((code != 0) & (code != _INSIDE))
    area_mm2 = _element_area_mm2(tuple(spacing_mm))[code[tuple(corner_Ex3.T)]]
    return _Surface(corner_Ex3 + [s.start for s in box], area_mm2)


@functools.lru_cache
def _element_area_mm2(spacing_mm: Spacing) -> np.ndarray:
    """Area of an element by its code, the 8 bits of the voxels around it."""
    return lookup_tables.create_table_neighbour_code_to_surface_area(spacing_mm)


def _distances_mm(start: _Surface, end: _Surface, spacing_mm: Spacing) -> np.ndarray:
    spacing = np.asarray(spacing_mm, np.float64)
    _, nearest = KDTree(end.corner_Ex3 * spacing).query(start.corner_Ex3 * spacing)
    # From whole steps on the lattice, not from the tree's coordinates: the same wherever in the volume the masks lie.
    return np.linalg.norm((start.corner_Ex3 - end.corner_Ex3[nearest]) * spacing, axis=1)


def _percentile(distance_mm: np.ndarray, area_mm2: np.ndarray, share: float) -> float:
    """The smallest distance within which `share` of the area lies."""
    order = np.argsort(distance_mm, kind="stable")
    reached = np.cumsum(area_mm2[order]) / area_mm2.sum()
    return float(distance_mm[order][min(int(np.searchsorted(reached, share - ROUNDING_SHARE)), len(order) - 1)])


def _inside(mask: np.ndarray) -> np.ndarray:
    return np.asarray(mask) != 0


def _check_shapes(prediction: np.ndarray, reference: np.ndarray) -> None:
    if prediction.shape != reference.shape:
        raise ValueError(f"a prediction of shape {prediction.shape} for a reference of {reference.shape}")
