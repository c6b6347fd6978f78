"""Which disc is which: touching, torn, missing and stray discs, names, and label schemes."""

import numpy as np
import pytest

from ivdjax.evaluation.discs import Scheme, from_scheme, instances, level_name, name, to_scheme
from tests.evaluation.analytic import affine, rotation, wedge

SPACING_MM = (2.0, 1.25, 1.25)
SHAPE = (36, 256, 128)
# Centres (mm to the front and upwards) and forward tilts of seven discs of a lordotic spine, L5/S1 first.
SPINE = ((2, -110, 38), (8, -76, 14), (9, -42, 2), (6, -8, -6), (2, 24, -9), (-3, 55, -10), (-8, 84, -9))


def spine(which=range(7), discs=SPINE):
    mask = np.zeros(SHAPE, np.uint8)
    grid = affine(SHAPE, SPACING_MM)
    for k in which:
        front, up, tilt = discs[k]
        mask |= wedge(9, 34, 46, 6, rotation((-tilt, 0, 0)), grid, (0, front, up), SHAPE).astype(np.uint8)
    return mask


def test_seven_discs_are_named_from_the_lowest_upwards():
    column = name(instances(spine(), SPACING_MM), SPACING_MM)
    assert [level_name(level) for level in column.levels] == [
        *("L5/S1", "L4/L5", "L3/L4", "L2/L3", "L1/L2", "T12/L1", "T11/T12")
    ]
    assert column.warnings == ()
    heights = [np.argwhere(column.level_ZxHxW == level)[:, 1].mean() for level in column.levels]
    assert heights == sorted(heights, reverse=True)


@pytest.mark.parametrize("pair", [(0, 1), (2, 3), (5, 6)])
@pytest.mark.parametrize("place", [0.1, 0.5, 0.9])
def test_touching_discs_are_split(pair, place):
    mask = spine()
    whole = instances(mask, SPACING_MM)
    lower, upper = (np.argwhere(whole == k + 1) for k in pair)
    # A bridge 6 mm wide and 5 mm deep, along the front, the middle or the back of the vertebra between.
    w = int(np.quantile(np.concatenate([lower, upper])[:, 2], place))
    mask[17:20, int(upper[:, 1].mean()) : int(lower[:, 1].mean()), w - 2 : w + 2] = 1
    split = instances(mask, SPACING_MM)
    assert split.max() == 7
    for disc in range(1, 8):
        both = np.count_nonzero((split == disc) & (whole == disc))
        # Half of the bridge goes to each; hardly a voxel of a disc goes to another.
        assert both >= 0.98 * np.count_nonzero(whole == disc)


def test_a_chain_of_touching_discs_is_split():
    mask = spine()
    mask[17:19, 60:216, 60:64] = 1
    assert instances(mask, SPACING_MM).max() == 7


def test_a_disc_in_two_pieces_is_one_disc():
    mask = spine()
    whole = instances(mask, SPACING_MM)
    disc = np.argwhere(whole == 3)
    middle = int(disc[:, 2].mean())
    mask[:, disc[:, 1].min() : disc[:, 1].max() + 1, middle : middle + 3] = 0
    mended = instances(mask, SPACING_MM)
    assert mended.max() == 7
    assert np.array_equal(mended == 3, (whole == 3) & (mask == 1))


@pytest.mark.parametrize("dent", [2, 5])
def test_a_disc_with_a_dent_stays_whole(dent):
    mask = spine()
    disc = np.argwhere(instances(mask, SPACING_MM) == 4)
    h, w = disc[:, 1:].mean(axis=0).astype(int)
    mask[:, disc[:, 1].min() : h + 1, w - dent : w + dent] = 0  # from above, to below its middle
    assert instances(mask, SPACING_MM).max() == 7


@pytest.mark.parametrize("seed", range(12))
def test_a_disc_at_any_angle_is_one_disc(seed):
    rng = np.random.default_rng(seed)
    height, ap = rng.uniform(4, 13), rng.uniform(28, 40)
    turn = rotation(rng.uniform(-1, 1, 3) * (55, 30, 30))
    disc = wedge(height, ap, ap * 1.35, rng.uniform(0, 6), turn, affine(), rng.uniform(-1, 1, 3))
    assert np.array_equal(instances(disc, SPACING_MM) > 0, disc)
    assert instances(disc, SPACING_MM).max() == 1


def test_specks_are_no_discs_and_no_part_of_one():
    mask = spine()
    mask[2, 5:7, 3:6] = 1
    discs = instances(mask, SPACING_MM)
    assert discs.max() == 7
    assert not discs[2, 5:7, 3:6].any()


@pytest.mark.parametrize("missing", [1, 3, 5])
def test_a_level_without_a_disc_is_counted_and_told(missing):
    column = name(instances(spine([k for k in range(7) if k != missing]), SPACING_MM), SPACING_MM)
    assert column.levels == tuple(level for level in range(1, 8) if level != missing + 1)
    assert any(f"{level_name(missing + 1)} seems to be missing" in line for line in column.warnings)
    assert any("6 discs where 7 are expected" in line for line in column.warnings)


def test_without_the_lowest_disc_the_names_are_doubted():
    column = name(instances(spine(range(1, 7)), SPACING_MM), SPACING_MM, expected=6)
    assert column.levels == (1, 2, 3, 4, 5, 6)
    assert len(column.warnings) == 1
    assert "is it L5/S1?" in column.warnings[0]


def test_another_count_than_expected_is_told_once():
    discs = instances(spine(range(6)), SPACING_MM)
    assert name(discs, SPACING_MM).warnings == ("6 discs where 7 are expected",)
    assert name(discs, SPACING_MM, expected=None).warnings == ()


@pytest.mark.parametrize(("h", "w"), [(60, 105), (130, 20), (200, 110)])
def test_a_piece_beside_the_column_takes_no_name(h, w):
    mask = spine()
    whole = name(instances(mask, SPACING_MM), SPACING_MM).level_ZxHxW
    mask[10:20, h : h + 8, w : w + 8] = 1
    column = name(instances(mask, SPACING_MM), SPACING_MM)
    assert np.array_equal(column.level_ZxHxW, whole)
    assert len(column.warnings) == 1
    assert "off the column" in column.warnings[0]


def test_two_pieces_on_the_column_that_are_too_close_are_told():
    mask = spine()
    mask[8:28, 119:122, 50:74] = 1  # a slice of the vertebra between two discs
    warnings = name(instances(mask, SPACING_MM), SPACING_MM).warnings
    assert any("are they one disc?" in line for line in warnings)
    assert any("8 discs where 7 are expected" in line for line in warnings)


def test_level_names_reach_the_neck_and_no_farther():
    assert [level_name(level) for level in (1, 5, 6, 17, 18, 23)] == [
        *("L5/S1", "L1/L2", "T12/L1", "T1/T2", "C7/T1", "C2/C3")
    ]
    for level in (0, 24):
        with pytest.raises(ValueError, match="spine has the levels"):
            level_name(level)


@pytest.mark.parametrize(
    ("scheme", "value", "level"),
    [
        (Scheme.SPIDER, 201, "L5/S1"),
        (Scheme.SPIDER, 207, "T11/T12"),
        (Scheme.MRSPINESEG, 11, "L5/S1"),
        (Scheme.MRSPINESEG, 19, "T9/T10"),
        (Scheme.TOTALSPINESEG, 202, "L5/S1"),
        (Scheme.TOTALSPINESEG, 224, "C2/C3"),
        (Scheme.IVDJAX, 7, "T11/T12"),
    ],
)
def test_schemes_in_and_out(scheme, value, level):
    labels = np.zeros((1, 2, 3), np.uint8)
    labels[0, 0, 0] = value
    levels = from_scheme(labels, scheme)
    assert level_name(levels[0, 0, 0]) == level
    assert np.array_equal(to_scheme(levels, scheme), labels)


def test_other_structures_of_a_scheme_are_no_discs():
    labels = np.array([[[0, 1, 100, 201, 202, 25]]], np.uint8)  # vertebrae, canal and discs of SPIDER
    assert from_scheme(labels, Scheme.SPIDER).tolist() == [[[0, 0, 0, 1, 2, 0]]]
    assert from_scheme(labels, Scheme.TOTALSPINESEG).tolist() == [[[0, 0, 0, 0, 1, 0]]]  # its 201 is the canal
    with pytest.raises(ValueError, match="none of the discs of mrspineseg, values 11 to 19"):
        from_scheme(labels, Scheme.MRSPINESEG)


def test_a_level_that_a_scheme_has_no_value_for_is_refused():
    with pytest.raises(ValueError, match="mrspineseg has no value for T8/T9"):
        to_scheme(np.array([[[0, 10]]], np.uint8), Scheme.MRSPINESEG)


def test_a_small_piece_below_the_column_makes_all_names_doubtful():
    mask = spine()
    mask[14:22, 236:241, 40:58] = 1  # below L5/S1, in the sacrum
    column = name(instances(mask, SPACING_MM), SPACING_MM, expected=8)
    assert any("all levels are one too high" in line for line in column.warnings)
    assert not any("too high" in line for line in name(instances(spine(), SPACING_MM), SPACING_MM).warnings)


def test_many_pieces_off_the_column_are_one_line():
    mask = spine()
    for k in range(6):
        mask[10:20, 20 + 30 * k : 26 + 30 * k, 4:12] = 1
    off = [line for line in name(instances(mask, SPACING_MM), SPACING_MM).warnings if "off the column" in line]
    assert len(off) == 1
    assert off[0].startswith("6 pieces")


def test_an_image_is_no_label_map():
    with pytest.raises(ValueError, match="holds 40 labels where a spine has 23 discs"):
        instances(np.arange(41, dtype=np.uint8).reshape(1, 1, 41), SPACING_MM)
