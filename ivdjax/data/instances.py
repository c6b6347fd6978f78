"""The discs of a mask told apart: its components, split where discs touch, put together where one is torn."""

from collections.abc import Sequence
from typing import NamedTuple

import cc3d
import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree

from ivdjax.data.dataset import SPECK_MM3, SPECK_SHARE

Spacing = tuple[float, float, float]

LEVELS = 23  # C2/C3 to L5/S1

# More pieces than these are noise of a network that has learnt little; the largest are kept, to tell discs among them.
MOST_PIECES = 64

# All discs of a large spine, 500 cm3, on voxels of a quarter of a millimetre through slices of a millimetre have 8e6.
MOST_VOXELS = 2**24

# Seen from the side a disc is some 35 mm long, its neighbours are as far away and its own parts lie in one plane. So,
# in lengths of a disc: what is farther than this off a disc's plane belongs to another one,
STACKED = 0.35
# and what is nearer than this, with no wider gap between, is a piece of one that degeneration or the grid has torn.
TORN, TORN_GAP = 0.2, 0.3
# A part that is split off must have this share of the largest, or it is a bump of a disc rather than another one.
SPLIT_SHARE = 0.2
# And be this much longer than high, seen from the side: only then its plane is known.
SLENDER = 1.8


class _Space(NamedTuple):
    """The scale of a mask: its voxels along Z, H, W, and a disc's length seen from the side."""

    spacing_mm: np.ndarray
    disc_mm: float


def instances(mask_ZxHxW: np.ndarray, spacing_mm: Spacing) -> np.ndarray:
    """Tell the discs of a mask apart: uint8 of the mask's shape, 0 outside, 1 the lowest disc, upwards.

    A mask with one value other than 0 is taken apart into components, 26-connected: a degenerated disc one or two
    voxels thin, lying oblique, hangs together by edges and corners alone, whereas a vertebra keeps neighbours far
    apart. Components smaller than `SPECK_MM3` and than `SPECK_SHARE` of the largest one are specks and become 0.
    Discs that touch are split where they are thinnest, and the pieces of a torn disc are put together; both only
    where a disc's shape leaves no doubt (`STACKED`, `TORN`). A mask with several values is taken at its
    word: each value is a disc and stays what it is.

    Args:
      mask_ZxHxW: integers or booleans, H running downwards (superior to inferior).
      spacing_mm: voxel size along Z, H, W.

    Raises:
      ValueError: more than 255 discs, a label that is not an integer of 0..255, or too much to be discs.
    """
    mask_ZxHxW = np.asarray(mask_ZxHxW)
    check_amount(mask_ZxHxW)
    if has_labels(mask_ZxHxW):
        labels_ZxHxW = mask_ZxHxW.astype(np.uint8)
        if not np.array_equal(labels_ZxHxW, mask_ZxHxW):
            raise ValueError("holds labels that are not integers of 0..255")
        if (values := np.count_nonzero(np.bincount(labels_ZxHxW.ravel())[1:])) > LEVELS:
            raise ValueError(f"holds {values} labels where a spine has {LEVELS} discs; is it an image?")
        return labels_ZxHxW
    pieces_ZxHxW, volume_mm3 = components(mask_ZxHxW, spacing_mm)
    kept = np.flatnonzero(~specks(volume_mm3, volume_mm3)) + 1
    if len(kept) > 255:
        raise ValueError(f"holds {len(kept)} separate pieces; it is no mask of discs")
    boxes = ndimage.find_objects(pieces_ZxHxW)
    pieces = [np.argwhere(pieces_ZxHxW[box] == k) + [part.start for part in box] for k, box in enumerate(boxes, 1)]
    pieces = [pieces[k - 1] for k in kept]
    space = _Space(np.asarray(spacing_mm), _typical_length_mm(pieces, spacing_mm))
    pieces = _mend([disc for piece in pieces for disc in _split(piece, space)], space)
    discs_ZxHxW = np.zeros(mask_ZxHxW.shape, np.uint8)
    for number, voxel_Vx3 in enumerate(sorted(pieces, key=lambda voxel_Vx3: -voxel_Vx3[:, 1].mean()), start=1):
        discs_ZxHxW[tuple(voxel_Vx3.T)] = number
    return discs_ZxHxW


def check_amount(mask_ZxHxW: np.ndarray) -> None:
    """Refuse a mask of so many voxels that it cannot be one of discs.

    Raises:
      ValueError: it has over `MOST_VOXELS`.
    """
    if (voxels := np.count_nonzero(mask_ZxHxW)) > MOST_VOXELS:
        raise ValueError(f"holds {voxels} voxels that are not 0, more than all discs of a spine; is it an image?")


def largest(mask_ZxHxW: np.ndarray, spacing_mm: Spacing, most: int = MOST_PIECES) -> np.ndarray:
    """A mask with its `most` largest components alone, so that `instances` can take what any network made."""
    pieces_ZxHxW, volume_mm3 = components(mask_ZxHxW, spacing_mm)
    if len(volume_mm3) <= most:
        return mask_ZxHxW
    kept = np.zeros(len(volume_mm3) + 1, bool)
    kept[np.argsort(-volume_mm3, kind="stable")[:most] + 1] = True
    return np.where(kept[pieces_ZxHxW], mask_ZxHxW, 0).astype(mask_ZxHxW.dtype)


def components(mask_ZxHxW: np.ndarray, spacing_mm: Spacing) -> tuple[np.ndarray, np.ndarray]:
    """The 26-connected components of a mask, numbered from 1, and the volume of each in mm3."""
    pieces_ZxHxW = cc3d.connected_components(mask_ZxHxW != 0, connectivity=26)
    return pieces_ZxHxW, np.bincount(pieces_ZxHxW.ravel())[1:] * float(np.prod(spacing_mm))


def specks(volume_mm3: np.ndarray, disc_mm3: np.ndarray) -> np.ndarray:
    """Which of some pieces are too small to be a disc beside discs of these volumes."""
    return volume_mm3 < min(SPECK_MM3, SPECK_SHARE * disc_mm3.max(initial=0.0))


def has_labels(mask_ZxHxW: np.ndarray) -> bool:
    """Whether a mask has more than one value other than 0."""
    values = mask_ZxHxW[mask_ZxHxW != 0]
    return bool(values.size) and bool(values.min() != values.max())


def upwards(labels_ZxHxW: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """`labels` in the order of their structures' centres, the lowest first."""
    centers = [voxels(labels_ZxHxW, label, box)[:, 1].mean() for label, box in boxes(labels_ZxHxW, labels)]
    return labels[np.argsort(np.negative(centers), kind="stable")]


def boxes(labels_ZxHxW: np.ndarray, labels: np.ndarray) -> list[tuple[int, tuple[slice, ...]]]:
    """Each of some labels with the box around its structure, so that no other voxel need be looked at."""
    found = ndimage.find_objects(labels_ZxHxW)
    return [(int(label), found[int(label) - 1]) for label in labels]


def voxels(labels_ZxHxW: np.ndarray, label: int, box: tuple[slice, ...]) -> np.ndarray:
    """Indices (V,3) of a structure's voxels, given the box around it."""
    return np.argwhere(labels_ZxHxW[box] == label) + [part.start for part in box]


def _split(voxel_Vx3: np.ndarray, space: _Space) -> list[np.ndarray]:
    """A connected piece as one disc or, where discs that touch lie one above the other in it, as several."""
    low, high = voxel_Vx3.min(axis=0) - 1, voxel_Vx3.max(axis=0) + 2
    if (high - low)[1] * space.spacing_mm[1] < STACKED * space.disc_mm:
        return [voxel_Vx3]
    inside = np.zeros(high - low, bool)
    inside[tuple((voxel_Vx3 - low).T)] = True
    depth_mm = ndimage.distance_transform_edt(inside, sampling=space.spacing_mm)
    # The deeper, the more bridges are gone; it is cut at the first depth at which discs come apart.
    for depth in np.linspace(0, depth_mm.max(), 9)[1:-1]:
        core_ZxHxW = cc3d.connected_components(depth_mm > depth, connectivity=26)
        cores = range(1, int(core_ZxHxW.max()) + 1)
        parts = _grow(core_ZxHxW, cores, voxel_Vx3, low, space)
        largest = max(parts, key=lambda core: len(parts[core]))
        # Both ways: what bridges two discs runs from one to the other and has the other in its own plane.
        stacked = [
            core
            for core, part in parts.items()
            if len(part) > SPLIT_SHARE * len(parts[largest])
            and min(_slenderness(part, space), _slenderness(parts[largest], space)) > SLENDER
            and _off_plane(part, parts[largest], space) > STACKED
            and _off_plane(parts[largest], part, space) > STACKED
        ]
        if stacked:
            parts = _grow(core_ZxHxW, [largest, *stacked], voxel_Vx3, low, space)
            return [disc for part in parts.values() for disc in _split(part, space)]
    return [voxel_Vx3]


def _grow(
    core_ZxHxW: np.ndarray, cores: Sequence[int], voxel_Vx3: np.ndarray, low: np.ndarray, space: _Space
) -> dict[int, np.ndarray]:
    """The voxels of a piece, each given to the nearest of some cores, by core."""
    if len(cores) == 1:
        return {cores[0]: voxel_Vx3}
    nearest_3xZxHxW = ndimage.distance_transform_edt(
        ~np.isin(core_ZxHxW, cores), sampling=space.spacing_mm, return_distances=False, return_indices=True
    )
    core_V = core_ZxHxW[tuple(nearest_3xZxHxW)][tuple((voxel_Vx3 - low).T)]
    return {core: voxel_Vx3[core_V == core] for core in cores}


def _mend(pieces: list[np.ndarray], space: _Space) -> list[np.ndarray]:
    """Put together the pieces of torn discs: a smaller one beside a larger one and in its plane."""
    mended: list[np.ndarray] = []
    for piece in sorted(pieces, key=len, reverse=True):
        for i, disc in enumerate(mended):
            if _off_plane(piece, disc, space) < TORN:
                tree, reach_mm = KDTree(disc * space.spacing_mm), TORN_GAP * space.disc_mm
                gap_mm, _ = tree.query(piece * space.spacing_mm, distance_upper_bound=reach_mm)
                if np.isfinite(gap_mm).any():
                    mended[i] = np.concatenate([disc, piece])
                    break
        else:
            mended.append(piece)
    return mended


def _off_plane(piece_Vx3: np.ndarray, disc_Vx3: np.ndarray, space: _Space) -> float:
    """How far a piece's centre lies off a disc's plane, seen from the side, in lengths of a disc."""
    offset_3 = (piece_Vx3.mean(axis=0) - disc_Vx3.mean(axis=0)) * space.spacing_mm
    down, back = forwards(disc_Vx3 * space.spacing_mm)
    return float(abs(offset_3[1] * back - offset_3[2] * down)) / space.disc_mm


def _slenderness(piece_Vx3: np.ndarray, space: _Space) -> float:
    """Length over height of a piece, seen from the side."""
    spread = np.linalg.eigvalsh(np.cov((piece_Vx3[:, 1:] * space.spacing_mm[1:]).T, bias=True))
    return float(np.sqrt(spread[1] / max(spread[0], 1e-6)))


def forwards(voxel_mm_Vx3: np.ndarray) -> np.ndarray:
    """Unit vector (H, W) along a disc from back to front, seen from the side.

    From the side every disc is far longer than high, whereas a slab of a few slices cuts it short across.
    """
    side_Vx2 = voxel_mm_Vx3[:, 1:] - voxel_mm_Vx3[:, 1:].mean(axis=0)
    forwards_2 = np.linalg.eigh(side_Vx2.T @ side_Vx2)[1][:, -1]
    return forwards_2 if forwards_2[1] < 0 else -forwards_2


def _typical_length_mm(pieces: Sequence[np.ndarray], spacing_mm: Spacing) -> float:
    """Length of a disc seen from the side, from the pieces of a mask, some of which may be several discs."""
    sides = [piece[:, 1:] * spacing_mm[1:] for piece in pieces]
    if not sides:
        return 0.0
    # A bar with the same spread; and no disc is longer than the whole column is deep.
    lengths = [np.sqrt(12 * np.linalg.eigvalsh(np.atleast_2d(np.cov(side.T, bias=True)))[-1]) for side in sides]
    depth = max(side[:, 1].max() for side in sides) - min(side[:, 1].min() for side in sides)
    return float(max(min(np.median(lengths), depth), *spacing_mm))
