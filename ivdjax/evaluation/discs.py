"""Which disc is which: the discs of a mask told apart, put in order along the spine and named by level.

A level is a number: 1 is L5/S1, 2 is L4/L5, upwards. Levels are counted from the lowest disc of a mask, since that is
where lumbar levels are counted from; a mask without its lowest disc would get wrong names, so whatever speaks against
the count comes back as a line to read. Label values of other tools mean levels under a `Scheme` that the user names;
they are never guessed.
"""

import enum
from dataclasses import dataclass

import numpy as np

from ivdjax.data import column
from ivdjax.data.instances import (
    LEVELS,
    Spacing,
    boxes,
    components,
    forwards,
    has_labels,
    instances,
    specks,
    upwards,
    voxels,
)

__all__ = [
    "IVDM3SEG_DISCS", "LEVELS", "Column", "Scheme", "components", "count_warnings", "from_scheme", "has_labels",
    "instances", "level_name", "name", "specks", "to_scheme", "upwards",
]  # fmt: skip

IVDM3SEG_DISCS = 7  # T11/T12 to L5/S1

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
    centers = [voxels(discs_ZxHxW, *found).mean(axis=0) * spacing_mm for found in boxes(discs_ZxHxW, numbers)]
    center_Nx3 = np.reshape(centers, (-1, 3))
    volume_mm3_N = np.bincount(discs_ZxHxW.ravel(), minlength=256)[numbers] * float(np.prod(spacing_mm))
    warnings = []
    on = column.through(center_Nx3, volume_mm3_N)
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
        (lowest,) = boxes(discs_ZxHxW, numbers[:1])
        tilt = _tilt_degrees(voxels(discs_ZxHxW, *lowest) * spacing_mm)
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


def _tilt_degrees(voxel_mm_Vx3: np.ndarray) -> float:
    """By how much a disc falls forwards, seen from the side; negative where it rises."""
    down, back = forwards(voxel_mm_Vx3)
    return float(np.degrees(np.arctan2(down, -back)))
