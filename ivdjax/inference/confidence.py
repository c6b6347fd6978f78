"""How sure a network is of each disc it found, without a reference: the Dice that its own probabilities expect."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields

import numpy as np
from scipy import ndimage

from ivdjax.data.instances import Spacing, instances, largest

# How far around a disc its probabilities are asked: what it may have missed lies there.
RIM_MM = 5.0


@dataclass(frozen=True)
class DiscConfidence:
    """A predicted disc and how sure of it the network is. The fields are the first columns of `confidence.csv`."""

    disc: int
    """Number of the predicted disc, 1 = lowest, upwards."""
    confidence: float
    """0 to 1: the Dice to be expected."""
    volume_mm3: float
    """Its volume, mm3."""


def box_around(mask_ZxHxW: np.ndarray, spacing_mm: Spacing, margin_mm: float) -> tuple[slice, slice, slice]:
    """The part of a volume that holds what is within `margin_mm` of a mask that is not empty."""
    found = ndimage.find_objects((mask_ZxHxW != 0).astype(np.uint8))
    reach = [int(np.ceil(margin_mm / spacing)) for spacing in spacing_mm]
    z, h, w = (slice(max(part.start - r, 0), part.stop + r) for part, r in zip(found[0], reach, strict=True))
    return z, h, w


def discs(
    mask_ZxHxW: np.ndarray, probability_ZxHxW: np.ndarray, spacing_mm: Spacing
) -> tuple[np.ndarray, list[DiscConfidence]]:
    """Tell the discs of a predicted mask apart, and say how sure of each the network is.

    Were the probabilities p true, a disc of n voxels would overlap the truth by the sum of p over it, and the truth
    around it would have the size of the sum of p over the disc and its rim. So 2 sum(p in the disc) / (n + sum(p in
    disc and rim)) is the Dice to be expected, up to the order of mean and quotient; Z. Li et al. (arXiv:2207.09957)
    foresee the Dice of whole scans so. The rim is what lies within `RIM_MM` of the disc and nearer to it than to any
    other.

    Args:
        mask_ZxHxW: the predicted mask, H running downwards.
        probability_ZxHxW: probability of disc.
        spacing_mm: voxel size along Z, H, W.

    Returns:
        discs_ZxHxW: number of each voxel's disc, as `instances` numbers them; and their confidences, the lowest first.
    """
    discs_ZxHxW = np.zeros(mask_ZxHxW.shape, np.uint8)
    if not mask_ZxHxW.any():
        return discs_ZxHxW, []
    box = box_around(mask_ZxHxW, spacing_mm, RIM_MM)
    discs_ZxHxW[box] = instances(largest(mask_ZxHxW[box] != 0, spacing_mm), spacing_mm)
    numbered, chance = discs_ZxHxW[box], probability_ZxHxW[box]
    distance_mm, nearest = ndimage.distance_transform_edt(numbered == 0, sampling=spacing_mm, return_indices=True)
    near = distance_mm <= RIM_MM
    owner_V = numbered[tuple(nearest[:, near])]
    inside, around = (
        np.bincount(owner, weights)[1:]
        for owner, weights in ((numbered.ravel(), chance.ravel()), (owner_V, chance[near]))
    )
    voxels = np.bincount(numbered.ravel())[1:]
    expected = 2 * inside / (voxels + around)
    voxel_mm3 = float(np.prod(spacing_mm))
    rows = enumerate(zip(expected, voxels, strict=True), start=1)
    return discs_ZxHxW, [DiscConfidence(disc, float(dice), float(count * voxel_mm3)) for disc, (dice, count) in rows]


def to_csv(discs: Mapping[str, Sequence[DiscConfidence]]) -> str:
    """A table of the discs of cases: the case, then the fields of `DiscConfidence`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["case", *(field.name for field in fields(DiscConfidence))])
    for case, found in discs.items():
        for disc in found:
            writer.writerow([case, *(round(v, 6) if isinstance(v, float) else v for v in astuple(disc))])
    return text.getvalue()
