"""Rules on masks: what no spine has goes, and no true disc does."""

import numpy as np
import pytest

from ivdjax.config import Postprocess
from ivdjax.data import instances, nifti
from ivdjax.inference import postprocess

SPACING_MM = (2.0, 1.25, 1.25)
COLUMN = Postprocess(column=True)


def box(mask, center_mm, size_mm=(40, 9, 32)):
    """Fill a box about a place, both in mm along Z, H, W."""
    low, high = (np.add(center_mm, np.multiply(size_mm, half)) / SPACING_MM for half in (-0.5, 0.5))
    mask[tuple(slice(max(0, round(a)), max(0, round(b))) for a, b in zip(low, high, strict=True))] = 1


def spine(levels=range(7), bend_mm=0.0, shape=(48, 256, 160)):
    """Discs some 34 mm apart, the lowest first; lordosis from back to front, and a C of scoliosis."""
    mask = np.zeros(shape, np.uint8)
    for level in levels:
        center = (48 + bend_mm * np.sin(level / 6 * np.pi), 270 - 36 * level, 100 + 14 * np.cos(level / 2))
        box(mask, center, (40 - 2 * level, 9, 34 - 2 * level))
    return mask


# Places off the column in mm, and sizes: at the borders, in the bowel before it, behind it, and within a vertebra.
FALSE = {
    "upper border": ((48, 6, 190), (30, 8, 8)),
    "lower border": ((10, 312, 20), (16, 8, 20)),
    "bowel": ((40, 150, 30), (30, 14, 26)),
    "muscle": ((84, 130, 150), (10, 20, 12)),
    "vertebra": ((48, 217, 106), (10, 8, 10)),
    "sacrum": ((48, 293, 122), (16, 6, 14)),
}


@pytest.mark.parametrize("bend_mm", [0, 25])
@pytest.mark.parametrize("place", FALSE)
def test_a_false_piece_goes_and_the_discs_stay(bend_mm, place):
    true = spine(bend_mm=bend_mm)
    mask = true.copy()
    box(mask, *FALSE[place])
    assert mask.sum() > true.sum()
    np.testing.assert_array_equal(postprocess.apply(mask, SPACING_MM, COLUMN), true)


def test_all_at_once_and_with_a_disc_missed():
    for levels in (range(7), (0, 1, 2, 4, 5, 6), (1, 2, 3, 4)):
        true = spine(levels)
        mask = true.copy()
        for name in ("upper border", "bowel", "muscle"):
            box(mask, *FALSE[name])
        np.testing.assert_array_equal(postprocess.apply(mask, SPACING_MM, COLUMN), true)


def test_without_a_column_nothing_goes():
    scattered = np.zeros((48, 256, 160), np.uint8)
    for name in ("bowel", "muscle", "upper border", "lower border"):
        box(scattered, *FALSE[name])
    for mask in (scattered, np.zeros_like(scattered), spine([2]), spine([2, 3])):
        np.testing.assert_array_equal(postprocess.apply(mask, SPACING_MM, COLUMN), mask)


def test_specks_go_by_their_volume():
    mask = spine([0, 1, 2])
    speck = np.zeros_like(mask)
    speck[5, 5, 5:25] = 1  # 20 voxels of 3.125 mm3
    both = mask | speck
    np.testing.assert_array_equal(postprocess.apply(both, SPACING_MM, Postprocess(specks_mm3=63)), mask)
    np.testing.assert_array_equal(postprocess.apply(both, SPACING_MM, Postprocess(specks_mm3=62)), both)


def test_the_lowest_are_counted_on_the_column():
    mask = spine(range(7))
    box(mask, *FALSE["lower border"])  # below all discs, but none
    np.testing.assert_array_equal(
        postprocess.apply(mask, SPACING_MM, Postprocess(column=True, lowest=5)), spine(range(5))
    )
    kept = postprocess.apply(mask, SPACING_MM, Postprocess(lowest=5))
    np.testing.assert_array_equal(kept, mask & ~spine([5, 6]))
    np.testing.assert_array_equal(postprocess.apply(mask, SPACING_MM, Postprocess(lowest=7)), mask)


def test_no_rule_leaves_the_mask_and_noise_is_no_error():
    mask = (np.random.default_rng(0).random((12, 60, 60)) < 0.02).astype(np.uint8)
    assert postprocess.apply(mask, SPACING_MM, Postprocess()) is mask
    assert not Postprocess().on
    left = postprocess.apply(mask, SPACING_MM, Postprocess(10.0, True, 7))
    assert left.dtype == np.uint8
    assert not (left & ~mask).any()


def test_no_disc_of_real_labels_is_taken(real_data):
    discs = 0
    for path in sorted((real_data / "t2").glob("*/*_Labels.nii.gz")):
        label = nifti.read_label(path)
        mask = (label.array == 1).astype(np.uint8)
        kept = postprocess.apply(mask, label.spacing_mm, Postprocess(specks_mm3=100, column=True))
        np.testing.assert_array_equal(kept, mask, err_msg=str(path))
        discs += int(instances.instances(mask, label.spacing_mm).max())
    assert discs == 184
