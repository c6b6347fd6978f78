"""Rules that take out of a mask what no spine has; each is a setting, and none is needed."""

import numpy as np

from ivdjax.config import Postprocess
from ivdjax.data import column
from ivdjax.data.instances import Spacing, components, instances, largest


def apply(mask_ZxHxW: np.ndarray, spacing_mm: Spacing, rules: Postprocess) -> np.ndarray:
    """Apply the rules that are on, in the order of their fields, to a mask whose H runs downwards.

    Returns:
        The mask with voxels set to 0; the mask itself where no rule is on.
    """
    if rules.specks_mm3 > 0:
        mask_ZxHxW = without_specks(mask_ZxHxW, spacing_mm, rules.specks_mm3)
    if rules.column:
        mask_ZxHxW = the_column(mask_ZxHxW, spacing_mm)
    if rules.lowest > 0:
        mask_ZxHxW = the_lowest(mask_ZxHxW, spacing_mm, rules.lowest)
    return mask_ZxHxW


def without_specks(mask_ZxHxW: np.ndarray, spacing_mm: Spacing, least_mm3: float) -> np.ndarray:
    """A mask without its 26-connected pieces of less than `least_mm3`."""
    pieces_ZxHxW, volume_mm3 = components(mask_ZxHxW, spacing_mm)
    kept = np.concatenate([[False], volume_mm3 >= least_mm3])
    return np.where(kept[pieces_ZxHxW], mask_ZxHxW, 0).astype(mask_ZxHxW.dtype)


def the_column(mask_ZxHxW: np.ndarray, spacing_mm: Spacing) -> np.ndarray:
    """A mask with the discs alone that one column can pass through (see `column.plausible`).

    What is no disc of it goes, specks included. Where no column is to be made out the mask stays as it is.
    """
    discs_ZxHxW, numbers = _discs(mask_ZxHxW, spacing_mm)
    return np.where(np.isin(discs_ZxHxW, numbers), mask_ZxHxW, 0).astype(mask_ZxHxW.dtype) if numbers else mask_ZxHxW


def the_lowest(mask_ZxHxW: np.ndarray, spacing_mm: Spacing, discs: int) -> np.ndarray:
    """A mask without what lies above so many discs of its column, counted from the lowest.

    Where no column is to be made out, or it has no more discs, the mask stays as it is.
    """
    discs_ZxHxW, numbers = _discs(mask_ZxHxW, spacing_mm)
    if len(numbers) <= discs:
        return mask_ZxHxW
    # Pieces are numbered upwards, those off the column too.
    return np.where(discs_ZxHxW >= numbers[discs], 0, mask_ZxHxW).astype(mask_ZxHxW.dtype)


def _discs(mask_ZxHxW: np.ndarray, spacing_mm: Spacing) -> tuple[np.ndarray, list[int]]:
    """The pieces of a mask, numbered upwards, and the numbers of those on the column."""
    discs_ZxHxW = instances(largest(mask_ZxHxW != 0, spacing_mm), spacing_mm)
    voxel_mm_Vx3 = np.argwhere(discs_ZxHxW) * spacing_mm
    number_V = discs_ZxHxW[discs_ZxHxW != 0]
    voxels_N = np.bincount(number_V)[1:]
    center_Nx3 = np.stack([np.bincount(number_V, axis_V)[1:] for axis_V in voxel_mm_Vx3.T], -1) / voxels_N[:, None]
    on = column.plausible(center_Nx3, voxels_N * float(np.prod(spacing_mm)))
    return discs_ZxHxW, [i + 1 for i in on]
