"""Scores of one case by the rules of the IVDM3Seg challenge (MICCAI 2018), disc by disc.

A binary prediction is cut into sections, one a reference disc: each of its voxels goes to the disc it is nearest to, in
mm between voxel centres. A prediction with labels is scored label by label. The challenge ranks Dice, the average
surface distance and the distance of the centres; how surfaces are measured is said in `metrics`.

Nothing predicted is never dropped: a disc whose Dice is below `FOUND_DICE` is not found, and where next to nothing was
predicted for it there is no distance to take either, so it scores Dice 0 and, for each distance, the diagonal of the
volume (458.24 mm on the challenge's grid). The challenge does not publish what "next to nothing" is; here it is less
than `NEXT_TO_NOTHING` of the disc's own volume.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ivdjax.data.instances import check_amount
from ivdjax.evaluation import discs
from ivdjax.evaluation.metrics import Spacing, bounding_box, dice, surface_scores

FOUND_DICE = 0.001
NEXT_TO_NOTHING = 0.01

# A vertebra is over 15 mm high. What lies nearer than this to a disc is an error of that disc's outline; what lies
# wholly farther is a structure of its own.
FALSE_DISC_GAP_MM = 5.0


@dataclass(frozen=True)
class DiscScore:
    """One reference disc, and what was predicted for it. The fields are the columns of `scores.csv`."""

    case: str
    """Name of the case."""
    disc: int
    """1 = lowest, upwards, by the height of the reference discs' centres."""
    found: bool
    """The Dice reaches `FOUND_DICE`."""
    dice: float
    """Overlap, 0 to 1."""
    asd_mm: float
    """Average symmetric surface distance, mm."""
    center_mm: float
    """Distance between the centres of gravity, mm."""
    hd95_mm: float
    """The larger of the two directed 95th percentiles of the surface distance, mm."""
    nsd_1mm: float
    """Normalised surface Dice at 1 mm, 0 to 1."""
    reference_mm3: float
    """Volume of the reference disc, mm3."""
    predicted_mm3: float
    """Volume of the prediction's section, mm3."""


@dataclass(frozen=True)
class CaseScores:
    """The scores of a case."""

    case: str
    """Name of the case."""
    discs: tuple[DiscScore, ...]
    """One a reference disc, the lowest first."""
    volume_dice: float
    """Dice of the whole masks as they are, all discs at once."""
    false_discs: int
    """Predicted components, no specks, all of which is farther than `FALSE_DISC_GAP_MM` from every reference disc."""


def score_case(
    case: str,
    prediction_ZxHxW: np.ndarray,
    reference_ZxHxW: np.ndarray,
    spacing_mm: Spacing,
    *,
    prediction_labelled: bool = False,
    reference_labelled: bool = False,
) -> CaseScores:
    """Score a predicted mask of discs against its reference.

    The reference is told apart by `discs.instances`. A prediction with several values is compared value by value with
    the reference's labels, or its numbers where it is binary; any other prediction is cut into sections.

    Args:
      case: name to put on the scores.
      prediction_ZxHxW: mask on the reference's grid; may be empty.
      reference_ZxHxW: mask with at least one disc, H running downwards.
      spacing_mm: voxel size along Z, H, W.
      prediction_labelled: the prediction's values are known to be labels, even where there is but one.
      reference_labelled: likewise the reference's.

    Raises:
      ValueError: the shapes differ, one holds too much to be discs, the reference holds no disc, or none of the labels
        of a prediction not known to have any is a disc of the reference.
    """
    prediction_ZxHxW, reference_ZxHxW = np.asarray(prediction_ZxHxW), np.asarray(reference_ZxHxW)
    for mask_ZxHxW in (prediction_ZxHxW, reference_ZxHxW):
        check_amount(mask_ZxHxW)
    volume_dice = dice(prediction_ZxHxW, reference_ZxHxW)
    penalty_mm = float(np.linalg.norm(np.multiply(reference_ZxHxW.shape, spacing_mm)))
    if not reference_ZxHxW.any():
        raise ValueError("the reference holds no disc")
    # Everything below looks at what is inside one of the masks, and so only at the box around both.
    box = bounding_box((prediction_ZxHxW != 0) | (reference_ZxHxW != 0))
    prediction_ZxHxW, reference_ZxHxW = prediction_ZxHxW[box], reference_ZxHxW[box]
    discs_ZxHxW = reference_ZxHxW if reference_labelled else discs.instances(reference_ZxHxW, spacing_mm)
    labels = discs.upwards(discs_ZxHxW, np.unique(discs_ZxHxW[discs_ZxHxW != 0]))
    predicted_Vx3 = np.argwhere(prediction_ZxHxW)
    nearest_Vx3 = _nearest(predicted_Vx3, discs_ZxHxW, spacing_mm)
    sections_ZxHxW = prediction_ZxHxW
    if not prediction_labelled:
        sections_ZxHxW = _cut(prediction_ZxHxW, predicted_Vx3, nearest_Vx3, discs_ZxHxW)
        if discs.has_labels(prediction_ZxHxW):
            _check_labels(prediction_ZxHxW, labels)
    gap_mm_V = np.linalg.norm((predicted_Vx3 - nearest_Vx3) * spacing_mm, axis=1)
    return CaseScores(
        case=case,
        discs=tuple(
            _score_disc(case, number, sections_ZxHxW == label, discs_ZxHxW == label, spacing_mm, penalty_mm)
            for number, label in enumerate(labels, start=1)
        ),
        volume_dice=volume_dice,
        false_discs=_count_false_discs(prediction_ZxHxW, gap_mm_V, discs_ZxHxW, spacing_mm),
    )


def sections(prediction_ZxHxW: np.ndarray, discs_ZxHxW: np.ndarray, spacing_mm: Spacing) -> np.ndarray:
    """The part of a prediction that belongs to each reference disc, by the disc's number; 0 elsewhere.

    A binary prediction's voxels go to the nearest disc in mm between voxel centres; labels stay as they are.

    Args:
      prediction_ZxHxW: mask on the reference's grid; may be empty.
      discs_ZxHxW: the reference as `discs.instances` numbers it, with at least one disc.
      spacing_mm: voxel size along Z, H, W.
    """
    predicted_Vx3 = np.argwhere(prediction_ZxHxW)
    return _cut(prediction_ZxHxW, predicted_Vx3, _nearest(predicted_Vx3, discs_ZxHxW, spacing_mm), discs_ZxHxW)


def _cut(
    prediction_ZxHxW: np.ndarray, predicted_Vx3: np.ndarray, nearest_Vx3: np.ndarray, discs_ZxHxW: np.ndarray
) -> np.ndarray:
    if discs.has_labels(prediction_ZxHxW):
        return prediction_ZxHxW
    sections_ZxHxW = np.zeros_like(discs_ZxHxW)
    sections_ZxHxW[tuple(predicted_Vx3.T)] = discs_ZxHxW[tuple(nearest_Vx3.T)]
    return sections_ZxHxW


def _score_disc(
    case: str,
    disc: int,
    section_ZxHxW: np.ndarray,
    reference_ZxHxW: np.ndarray,
    spacing_mm: Spacing,
    penalty_mm: float,
) -> DiscScore:
    box = bounding_box(section_ZxHxW | reference_ZxHxW)
    section, reference = section_ZxHxW[box], reference_ZxHxW[box]
    voxel_mm3 = math.prod(spacing_mm)
    predicted_mm3, reference_mm3 = (int(np.count_nonzero(mask)) * voxel_mm3 for mask in (section, reference))
    overlap = dice(section, reference)
    found = overlap >= FOUND_DICE
    if not found and predicted_mm3 < NEXT_TO_NOTHING * reference_mm3:
        distances = {"asd_mm": penalty_mm, "center_mm": penalty_mm, "hd95_mm": penalty_mm, "nsd_1mm": 0.0}
        return DiscScore(case, disc, found, 0.0, **distances, reference_mm3=reference_mm3, predicted_mm3=predicted_mm3)
    surfaces = surface_scores(section, reference, spacing_mm)
    return DiscScore(
        case=case,
        disc=disc,
        found=found,
        dice=overlap,
        asd_mm=surfaces.asd_mm,
        center_mm=float(np.linalg.norm(_center_mm(section, spacing_mm) - _center_mm(reference, spacing_mm))),
        hd95_mm=surfaces.hd95_mm,
        nsd_1mm=surfaces.nsd_1mm,
        reference_mm3=reference_mm3,
        predicted_mm3=predicted_mm3,
    )


def _nearest(voxel_Vx3: np.ndarray, discs_ZxHxW: np.ndarray, spacing_mm: Spacing) -> np.ndarray:
    """For each of V voxels the disc voxel it is nearest to in mm, as (V,3) indices; of several, any."""
    # A transform of the whole box takes the same time for a stray voxel, for a few and for a volume full of them.
    nearest_3xZxHxW = ndimage.distance_transform_edt(
        discs_ZxHxW == 0, sampling=spacing_mm, return_distances=False, return_indices=True
    )
    return nearest_3xZxHxW[:, *voxel_Vx3.T].T


def _count_false_discs(
    prediction_ZxHxW: np.ndarray, gap_mm_V: np.ndarray, discs_ZxHxW: np.ndarray, spacing_mm: Spacing
) -> int:
    pieces_ZxHxW, volume_mm3 = discs.components(prediction_ZxHxW, spacing_mm)
    gap_mm = np.full(len(volume_mm3), np.inf)
    np.minimum.at(gap_mm, pieces_ZxHxW[prediction_ZxHxW != 0] - 1, gap_mm_V)
    disc_mm3 = np.bincount(discs_ZxHxW.ravel())[1:] * math.prod(spacing_mm)
    return int(np.count_nonzero((gap_mm > FALSE_DISC_GAP_MM) & ~discs.specks(volume_mm3, disc_mm3)))


def _center_mm(mask_ZxHxW: np.ndarray, spacing_mm: Spacing) -> np.ndarray:
    return np.argwhere(mask_ZxHxW).mean(axis=0) * spacing_mm


def _check_labels(prediction_ZxHxW: np.ndarray, labels: np.ndarray) -> None:
    predicted = np.unique(prediction_ZxHxW[prediction_ZxHxW != 0])
    if not np.isin(predicted, labels).any():
        theirs, ours = (", ".join(str(int(n)) for n in np.sort(a)) for a in (predicted, labels))
        raise ValueError(
            f"its labels {theirs} are none of the reference's {ours}; number the discs alike, or make the mask binary"
        )
