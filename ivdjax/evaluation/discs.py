"""Which disc is which: the discs of a mask told apart, put in order along the spine and named by level.

A level is a number: 1 is L5/S1, 2 is L4/L5, upwards. Levels are counted from the lowest disc of a mask, since that is
where lumbar levels are counted from; a mask without its lowest disc would get wrong names, so whatever speaks against
the count comes back as a line to read. Label values of other tools mean levels under a `Scheme` that the user names;
they are never guessed.
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cc3d
import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree

from ivdjax.data.dataset import SPECK_MM3, SPECK_SHARE
from ivdjax.evaluation.metrics import Spacing

IVDM3SEG_DISCS = 7  # T11/T12 to L5/S1
LEVELS = 23  # C2/C3 to L5/S1

# Seen from the side a disc is some 35 mm long, its neighbours are as far away and its own parts lie in one plane. So,
# in lengths of a disc: what is farther than this off a disc's plane belongs to another one,
STACKED = 0.35
# and what is nearer than this, with no wider gap between, is a piece of one that degeneration or the grid has torn.
TORN, TORN_GAP = 0.2, 0.3
# A part that is split off must have this share of the largest, or it is a bump of a disc rather than another one.
SPLIT_SHARE = 0.2
# And be this much longer than high, seen from the side: only then its plane is known.
SLENDER = 1.8

# Degrees by which the way from a disc to the next may leave the vertical, and may turn from one step to the next. In 24
# patients, some with scoliosis or a slipped vertebra, these were at most 37 and 29.
LARGEST_SLANT, LARGEST_BEND = 60.0, 45.0
# The gap between two centres over the median of the other gaps; discs come closer upwards, but slowly.
SKIPPED, CROWDED = 1.6, 0.55
# Seen from the side L5/S1 falls forwards, by 19 to 50 degrees in those patients, and L4/L5 by 3 to 21: a lowest disc
# that lies flatter than this may not be L5/S1.
LOWEST_TILT = 17.0
# Nor may one so much smaller than the next (0.29 of it at least in those patients).
LOWEST_SHARE = 0.25
# More pieces off the column than this are told in one line.
_FEW = 3


class Scheme(enum.Enum):
    """What label values mean, as the value of L5/S1; the levels above have the next values.

    IVDJAX is this package's own. SPIDER: 201 to 225, doi 10.1038/s41597-024-03090-w. MRSPINESEG: 11 to 19, the
    challenge's. TOTALSPINESEG: its releases with 202 to 224, in which 201 is the spinal canal.
    """

    IVDJAX = 1
    MRSPINESEG = 11
    SPIDER = 201
    TOTALSPINESEG = 202

    @property
    def levels(self) -> int:
        """Number of levels it has values for."""
        return 9 if self is Scheme.MRSPINESEG else LEVELS


@dataclass(frozen=True)
class Column:
    """The discs of a spine by level."""

    level_ZxHxW: np.ndarray
    """uint8: 0 outside, elsewhere the level."""
    levels: tuple[int, ...]
    """The levels that are there, upwards."""
    warnings: tuple[str, ...]
    """What speaks against the names, a line each; empty where nothing does."""


class _Space(NamedTuple):
    """The scale of a mask: its voxels along Z, H, W, and a disc's length seen from the side."""

    spacing_mm: np.ndarray
    disc_mm: float


def level_name(level: int) -> str:
    """Name of a level: 1 is L5/S1, 6 is T12/L1, 18 is C7/T1.

    Raises:
      ValueError: a spine has no such level.
    """
    if not 1 <= level <= LEVELS:
        raise ValueError(f"a spine has the levels 1 (L5/S1) to {LEVELS} (C2/C3), no level {level}")
    bones = ["S1", *(f"L{n}" for n in range(5, 0, -1)), *(f"T{n}" for n in range(12, 0, -1))]
    bones += [f"C{n}" for n in range(7, 1, -1)]
    return f"{bones[level]}/{bones[level - 1]}"


def from_scheme(labels_ZxHxW: np.ndarray, scheme: Scheme) -> np.ndarray:
    """Levels, uint8, of a label map; its other structures become 0.

    Raises:
      ValueError: it holds none of the scheme's discs.
    """
    level_ZxHxW = np.asarray(labels_ZxHxW).astype(np.int32) - (scheme.value - 1)
    level_ZxHxW[(level_ZxHxW < 1) | (level_ZxHxW > scheme.levels)] = 0
    if not level_ZxHxW.any():
        first, last = scheme.value, scheme.value + scheme.levels - 1
        raise ValueError(f"holds none of the discs of {scheme.name.lower()}, values {first} to {last}")
    return level_ZxHxW.astype(np.uint8)


def to_scheme(level_ZxHxW: np.ndarray, scheme: Scheme) -> np.ndarray:
    """A label map, uint8, of levels under a scheme.

    Raises:
      ValueError: there is a level the scheme has no value for.
    """
    level_ZxHxW = np.asarray(level_ZxHxW)
    if (top := int(level_ZxHxW.max(initial=0))) > scheme.levels:
        raise ValueError(f"{scheme.name.lower()} has no value for {level_name(top)}")
    return np.where(level_ZxHxW > 0, level_ZxHxW.astype(np.int32) + scheme.value - 1, 0).astype(np.uint8)


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
      ValueError: more than 255 discs, or a label that is not an integer of 0..255.
    """
    mask_ZxHxW = np.asarray(mask_ZxHxW)
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
    heights = np.arange(labels_ZxHxW.shape[1])
    centers = [np.average(heights, weights=(labels_ZxHxW == label).sum(axis=(0, 2))) for label in labels]
    return labels[np.argsort(np.negative(centers), kind="stable")]


def name(discs_ZxHxW: np.ndarray, spacing_mm: Spacing, expected: int | None = IVDM3SEG_DISCS) -> Column:
    """Give each disc its level, the lowest being L5/S1.

    A piece that the column of the others cannot pass through is left out. A gap about twice as wide as the others
    counts as a level that the mask lacks, and the names above it go on past that level. Each is a warning, as are a
    count other than the expected one, discs too close to be two, and a lowest disc that lies too flat to be L5/S1.

    Args:
      discs_ZxHxW: as `instances` numbers them.
      spacing_mm: voxel size along Z, H, W.
      expected: number of discs that a whole mask has; None where that is not known.

    Raises:
      ValueError: more discs than a spine has.
    """
    numbers = upwards(discs_ZxHxW, np.unique(discs_ZxHxW[discs_ZxHxW != 0]))
    centers = [np.argwhere(discs_ZxHxW == number).mean(axis=0) * spacing_mm for number in numbers]
    center_Nx3 = np.reshape(centers, (-1, 3))
    volume_mm3_N = np.bincount(discs_ZxHxW.ravel(), minlength=256)[numbers] * float(np.prod(spacing_mm))
    warnings = []
    on = _column(center_Nx3, volume_mm3_N)
    off = np.setdiff1d(np.arange(len(numbers)), on)
    if len(off) > _FEW:
        warnings.append(f"{len(off)} pieces of {volume_mm3_N[off].sum():.0f} mm3 lie off the column of discs; left out")
    else:
        for i in off:
            place = f"{i} piece{'s' if i != 1 else ''} below it"
            warnings.append(f"a piece of {volume_mm3_N[i]:.0f} mm3, {place}, lies off the column of discs; left out")
    numbers, center_Nx3, volume_mm3_N = numbers[on], center_Nx3[on], volume_mm3_N[on]
    levels, gap_warnings = _count_up(center_Nx3)
    if levels and levels[-1] > LEVELS:
        raise ValueError(f"holds {len(levels)} discs up to level {levels[-1]}; a spine has {LEVELS}")
    warnings += count_warnings(len(levels), expected)
    if levels:
        tilt = _tilt_degrees(np.argwhere(discs_ZxHxW == numbers[0]) * spacing_mm)
        if tilt < LOWEST_TILT:
            falls = (
                f"falls forwards by {tilt:.0f} degrees only" if tilt >= 0 else f"rises forwards by {-tilt:.0f} degrees"
            )
            warnings.append(f"the lowest disc {falls}; is it L5/S1?")
        if len(levels) > 1 and volume_mm3_N[0] < LOWEST_SHARE * volume_mm3_N[1]:
            share = volume_mm3_N[0] / volume_mm3_N[1]
            warnings.append(
                f"the lowest disc has {share:.0%} of the next one's volume; if it is a false piece, all levels are one "
                "too high"
            )
    level = np.zeros(256, np.uint8)
    level[numbers] = levels
    return Column(level[discs_ZxHxW], tuple(levels), tuple(warnings + gap_warnings))


def count_warnings(discs: int, expected: int | None) -> tuple[str, ...]:
    """The line that says there are more or fewer discs than expected, if so."""
    if expected is None or discs == expected:
        return ()
    return (f"{discs} disc{'s' if discs != 1 else ''} where {expected} are expected",)


def _count_up(center_Nx3: np.ndarray) -> tuple[list[int], list[str]]:
    """The levels of discs from the lowest upwards, by the gaps between their centres; and a line for each odd gap."""
    gap_mm = np.linalg.norm(np.diff(center_Nx3, axis=0), axis=1)
    levels, warnings = list(range(1, len(center_Nx3) + 1))[:1], []
    for i, gap in enumerate(gap_mm):
        others = np.delete(gap_mm, i)
        ratio = gap / np.median(others) if len(others) else 1.0
        missing = round(ratio) - 1 if ratio > SKIPPED else 0
        below = levels[-1]
        levels.append(below + 1 + missing)
        if levels[-1] > LEVELS:
            continue
        pair = f"{level_name(levels[-1])} and {level_name(below)} lie {gap:.0f} mm apart"
        if missing:
            lacking = ", ".join(level_name(below + k) for k in range(1, missing + 1))
            warnings.append(f"{pair}, the others {np.median(others):.0f} mm: {lacking} seems to be missing")
        elif ratio < CROWDED:
            warnings.append(f"{pair}, the others {np.median(others):.0f} mm: are they one disc?")
    return levels, warnings


def _column(center_Nx3: np.ndarray, volume_mm3_N: np.ndarray) -> list[int]:
    """The pieces, of some in upward order, that a column can pass through: the way through the most volume of discs."""
    step_NxNx3 = center_Nx3[None] - center_Nx3[:, None]
    length_NxN = np.maximum(np.linalg.norm(step_NxNx3, axis=-1), 1e-6)
    way_NxNx3 = step_NxNx3 / length_NxN[..., None]
    steep_NxN = -way_NxNx3[..., 1] > np.cos(np.radians(LARGEST_SLANT))
    # The best way that ends with a step from i to j, found from below.
    best = {(None, j): (volume_mm3_N[j], [j]) for j in range(len(center_Nx3))}
    for j in range(len(center_Nx3)):
        for i in range(j):
            if not steep_NxN[i, j]:
                continue
            straight = np.cos(np.radians(LARGEST_BEND))
            before = [
                (volume, way)
                for (h, last), (volume, way) in best.items()
                if last == i and (h is None or way_NxNx3[h, i] @ way_NxNx3[i, j] > straight)
            ]
            volume, way = max(before)
            best[i, j] = (volume + volume_mm3_N[j], [*way, j])
    return max(best.values())[1] if best else []


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
    down, back = _forwards(disc_Vx3 * space.spacing_mm)
    return float(abs(offset_3[1] * back - offset_3[2] * down)) / space.disc_mm


def _slenderness(piece_Vx3: np.ndarray, space: _Space) -> float:
    """Length over height of a piece, seen from the side."""
    spread = np.linalg.eigvalsh(np.cov((piece_Vx3[:, 1:] * space.spacing_mm[1:]).T, bias=True))
    return float(np.sqrt(spread[1] / max(spread[0], 1e-6)))


def _forwards(voxel_mm_Vx3: np.ndarray) -> np.ndarray:
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


def _tilt_degrees(voxel_mm_Vx3: np.ndarray) -> float:
    """By how much a disc falls forwards, seen from the side; negative where it rises."""
    down, back = _forwards(voxel_mm_Vx3)
    return float(np.degrees(np.arctan2(down, -back)))
