import numpy as np
import pytest

from ivdjax.inference import confidence

SPACING_MM = (2.0, 1.0, 1.0)


def two_discs():
    """The upper of 4 x 6 x 20 and the lower of 4 x 6 x 24 voxels, 24 mm apart."""
    mask = np.zeros((10, 70, 50), np.uint8)
    mask[3:7, 10:16, 10:30] = mask[3:7, 40:46, 10:34] = 1
    return mask


def test_sure_and_right_is_one_and_doubt_is_the_dice_to_be_expected():
    mask = two_discs()
    chance = mask.astype(np.float32)
    chance[:, :30] *= 0.5  # half of the upper disc's voxels are not to be expected to be any
    chance[3:7, 46:48, 10:34] = 0.25  # and a third of the lower one again, for a quarter
    discs, (lower, upper) = confidence.discs(mask, chance, SPACING_MM)
    assert (lower.disc, upper.disc) == (1, 2)
    assert (discs[5, 42, 20], discs[5, 12, 20], discs[0, 0, 0]) == (1, 2, 0)
    assert upper.confidence == pytest.approx(2 * 0.5 / (1 + 0.5))
    assert lower.confidence == pytest.approx(2 / (1 + 1 + 0.25 / 3))
    assert (lower.volume_mm3, upper.volume_mm3) == (4 * 6 * 24 * 2, 4 * 6 * 20 * 2)


def test_what_lies_beyond_the_rim_is_not_asked():
    mask = two_discs()
    chance = mask.astype(np.float32)
    chance[3:7, 22:34] = 0.9  # 6 mm or more from either disc
    assert [disc.confidence for disc in confidence.discs(mask, chance, SPACING_MM)[1]] == pytest.approx([1, 1])


def test_nothing_found_is_no_disc_and_noise_has_no_more_than_its_largest_pieces():
    nothing = np.zeros((6, 30, 30), np.uint8)
    assert confidence.discs(nothing, nothing.astype(np.float32), SPACING_MM)[1] == []
    noise = np.zeros((20, 60, 60), np.uint8)
    noise[::2, ::4, ::4] = 1
    assert 0 < len(confidence.discs(noise, noise.astype(np.float32), SPACING_MM)[1]) <= 64


def test_the_table_names_case_and_disc():
    table = confidence.to_csv({"01": [confidence.DiscConfidence(1, 0.9123456789, 800.0)], "02": []})
    assert table == "case,disc,confidence,volume_mm3\n01,1,0.912346,800.0\n"
