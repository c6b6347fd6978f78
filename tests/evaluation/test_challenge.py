"""The challenge's rules: sections, penalties, false discs, and which disc is which."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ivdjax.evaluation.challenge import score_case
from ivdjax.evaluation.discs import instances

SPACING_MM = (2.0, 1.25, 1.25)
DIAGONAL_MM = 458.24
STEP = 28  # voxels from a disc to the next, 35 mm


def spine(discs=range(7), shape=(36, 256, 256)):
    """Boxes of 40 x 10 x 40 mm on the challenge's grid, number 0 the lowest."""
    mask = np.zeros(shape, np.uint8)
    for k in discs:
        mask[8:28, 220 - STEP * k : 228 - STEP * k, 100:132] = 1
    return mask


def score(prediction, reference):
    return score_case("01", prediction, reference, SPACING_MM)


def test_a_perfect_prediction():
    scores = score(spine(), spine())
    assert [disc.disc for disc in scores.discs] == [1, 2, 3, 4, 5, 6, 7]
    for disc in scores.discs:
        assert disc.case == "01"
        assert disc.found
        assert (disc.dice, disc.asd_mm, disc.center_mm, disc.hd95_mm, disc.nsd_1mm) == (1.0, 0.0, 0.0, 0.0, 1.0)
        assert disc.reference_mm3 == disc.predicted_mm3 == pytest.approx(40 * 10 * 40)
    assert scores.volume_dice == 1.0
    assert scores.false_discs == 0


def test_nothing_predicted_scores_the_diagonal_for_every_disc():
    scores = score(np.zeros_like(spine()), spine())
    for disc in scores.discs:
        assert not disc.found
        assert disc.dice == disc.nsd_1mm == disc.predicted_mm3 == 0.0
        assert (disc.asd_mm, disc.center_mm, disc.hd95_mm) == pytest.approx((DIAGONAL_MM,) * 3, abs=0.005)
    assert scores.volume_dice == 0.0


def test_a_missed_disc_is_penalised_alone_even_beside_a_stray_voxel():
    prediction = spine([0, 1, 2, 4, 5, 6])
    prediction[10, 220 - 3 * STEP - 4, 110] = 1  # 4 voxels above the missed disc
    scores = score(prediction, spine())
    missed = scores.discs[3]
    assert [disc.found for disc in scores.discs] == [True, True, True, False, True, True, True]
    assert (missed.dice, missed.asd_mm, missed.center_mm) == pytest.approx((0.0, DIAGONAL_MM, DIAGONAL_MM), abs=0.005)
    assert missed.predicted_mm3 == pytest.approx(2 * 1.25 * 1.25)
    assert all(disc.dice == 1.0 for disc in scores.discs if disc.found)
    assert scores.volume_dice == pytest.approx(2 * 6 / (6 + 7), abs=1e-3)


def test_a_disc_predicted_beside_its_place_is_not_found_but_is_measured():
    prediction = spine([0, 1, 2, 4, 5, 6]) | np.roll(spine([3]), 10, axis=1)
    disc = score(prediction, spine()).discs[3]
    assert not disc.found
    assert disc.dice == 0.0
    assert disc.center_mm == pytest.approx(10 * 1.25)
    assert 2 < disc.asd_mm < 12.5


def test_a_shift_by_a_whole_level_loses_one_disc_and_doubles_another():
    scores = score(spine(range(1, 8)), spine())
    lowest, *between, highest = scores.discs
    assert not lowest.found
    assert lowest.asd_mm == pytest.approx(DIAGONAL_MM, abs=0.005)
    assert all(disc.dice == 1.0 and disc.asd_mm == 0.0 for disc in between)
    # The eighth disc lies nearest to the highest reference disc, whose section then holds two.
    assert highest.found
    assert highest.dice == pytest.approx(2 / 3)
    assert highest.center_mm == pytest.approx(35 / 2)
    assert scores.false_discs == 1
    assert scores.volume_dice == pytest.approx(6 / 7)


def test_a_shift_downwards_loses_the_highest_disc():
    *between, highest = score(spine(range(-1, 6)), spine()).discs
    assert not highest.found
    assert (highest.dice, highest.center_mm) == (0.0, pytest.approx(DIAGONAL_MM, abs=0.005))
    assert [disc.dice for disc in between] == pytest.approx([2 / 3, 1, 1, 1, 1, 1])


def test_an_eighth_disc_is_false_and_a_speck_or_a_frayed_edge_is_not():
    assert score(spine(range(8)), spine()).false_discs == 1
    speck, fray = spine(), spine()
    speck[0:2, 0:3, 0:3] = 1
    fray[8:28, 230:234, 100:132] = 1  # 2 voxels below the lowest disc, and a third as large
    assert score(speck, spine()).false_discs == 0
    assert score(fray, spine()).false_discs == 0


def test_a_ball_moved_by_half_its_radius():
    radius_mm, spacing_mm = 20.0, (1.0, 1.25, 1.25)
    voxels_mm = np.moveaxis(np.indices((57, 48, 56)), 0, -1) * spacing_mm
    prediction, reference = (
        np.linalg.norm(voxels_mm - center_mm, axis=-1) <= radius_mm for center_mm in ((28, 30, 40), (28, 30, 30))
    )
    (disc,) = score_case("01", prediction, reference, spacing_mm).discs
    share = 10 / radius_mm  # of two balls' volume 1 - 3/4 x share + 1/16 x share^3 is in both
    assert disc.dice == pytest.approx(1 - 0.75 * share + share**3 / 16, abs=0.005)
    assert disc.center_mm == pytest.approx(10.0)
    assert disc.reference_mm3 == pytest.approx(4 / 3 * np.pi * radius_mm**3, rel=0.01)
    # A point of one sphere at angle t from the shift lies r - sqrt(r^2 + d^2 - 2 r d cos t) off the other, in modulus.
    cosine = np.linspace(-1, 1, 100_001)
    off_mm = np.abs(radius_mm - np.sqrt(radius_mm**2 + 10**2 - 2 * radius_mm * 10 * cosine))
    # Elements lie on both sides of a curved surface, and a distance is taken to the nearer: short by half a voxel.
    assert off_mm.mean() - 0.6 * 1.25 < disc.asd_mm < off_mm.mean()
    assert disc.hd95_mm == pytest.approx(np.quantile(off_mm, 0.95), abs=0.5 * 1.25)


def test_two_single_voxels_as_published():
    prediction, reference = np.zeros((2, 20, 20, 20), np.uint8)
    prediction[5, 6, 7], reference[5, 6, 9] = 1, 1
    (disc,) = score_case("01", prediction, reference, (3, 2, 1)).discs
    assert (disc.asd_mm, disc.hd95_mm, disc.nsd_1mm, disc.dice) == pytest.approx((1.5, 2.0, 0.5, 0.0))
    assert (disc.found, disc.center_mm, disc.predicted_mm3) == (False, 2.0, 6.0)


def test_every_far_voxel_goes_to_the_nearest_disc():
    prediction = spine()
    prediction[0, 255, 0] = prediction[35, 0, 255] = 1
    discs = score(prediction, spine()).discs
    voxel_mm3 = 2 * 1.25 * 1.25
    extra = [disc.predicted_mm3 - disc.reference_mm3 for disc in discs]
    assert extra == pytest.approx([voxel_mm3, 0, 0, 0, 0, 0, voxel_mm3])
    assert 0 < discs[0].asd_mm < 1
    assert all(disc.asd_mm == 0 for disc in discs[1:-1])


def test_labels_are_scored_label_by_label():
    reference = instances(spine(), SPACING_MM)
    shifted = np.where(reference == 7, 0, reference + (reference > 0))  # every label one level too low
    assert all(disc.dice == 1.0 for disc in score(reference, reference).discs)
    assert all(disc.dice == 1.0 for disc in score(reference, spine()).discs)
    scores = score(shifted, reference)
    assert not any(disc.found for disc in scores.discs)
    assert [round(disc.center_mm, 2) for disc in scores.discs[1:]] == [35.0] * 6
    assert scores.discs[0].center_mm == pytest.approx(DIAGONAL_MM, abs=0.005)
    assert scores.volume_dice == pytest.approx(2 * 6 / (6 + 7))


def test_discs_are_numbered_by_height_whatever_their_labels():
    numbers = instances(spine(), SPACING_MM)
    downwards = np.where(numbers > 0, 208 - numbers.astype(int), 0)  # 207 the lowest, 201 the highest
    prediction = downwards.copy()
    prediction[downwards == 207] = 0
    assert [disc.found for disc in score(prediction, downwards).discs] == [False] + [True] * 6


def test_labels_of_another_scheme_are_refused():
    numbers = instances(spine(), SPACING_MM)
    with pytest.raises(ValueError, match=r"201, 202.*1, 2.*number the discs alike"):
        score(np.where(numbers > 0, numbers.astype(int) + 200, 0), spine())


def test_a_reference_without_a_disc_and_other_shapes_are_refused():
    with pytest.raises(ValueError, match="no disc"):
        score(spine(), np.zeros_like(spine()))
    with pytest.raises(ValueError, match="shape"):
        score(spine()[:35], spine())


def test_discs_are_told_apart_from_the_lowest_upwards():
    discs = instances(spine(), SPACING_MM)
    assert discs.dtype == np.uint8
    for k in range(7):
        assert np.array_equal(discs == k + 1, spine([k]) > 0)


def test_specks_of_a_reference_are_no_discs():
    mask = spine()
    mask[0, 0, 0:20] = 1  # 62 mm3
    discs = instances(mask, SPACING_MM)
    assert discs.max() == 7
    assert not discs[0].any()
    assert len(score(spine(), mask).discs) == 7


def test_small_discs_of_a_small_anatomy_are_no_specks():
    assert instances(spine(), (0.2, 0.2, 0.2)).max() == 7


def test_an_oblique_disc_one_voxel_thin_is_one_disc():
    mask = np.zeros((6, 30, 30), np.uint8)
    for w in range(30):
        mask[:, w, w] = 1
    assert np.array_equal(instances(mask, SPACING_MM), mask)


def test_labels_are_kept_and_must_fit():
    mask = spine([0, 1]).astype(np.int16)
    mask[:, :210] *= 203
    assert np.array_equal(instances(mask, SPACING_MM), mask)
    with pytest.raises(ValueError, match=r"0\.\.255"):
        instances(np.where(mask == 1, 300, mask), SPACING_MM)


def test_noise_is_no_mask_of_discs():
    mask = np.zeros((1, 80, 80), np.uint8)
    mask[0, ::4, ::4] = 1
    with pytest.raises(ValueError, match="400 separate pieces"):
        instances(mask, SPACING_MM)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_sections_share_out_the_whole_prediction(seed):
    rng = np.random.default_rng(seed)
    reference = np.zeros((8, 40, 16), np.uint8)
    for h in (4, 16, 28):
        reference[1:7, h : h + 5, 3:13] = 1
    prediction = reference & (rng.random(reference.shape) < 0.8) | (rng.random(reference.shape) < 0.03)
    scores = score_case("x", prediction, reference, SPACING_MM)
    voxel_mm3 = np.prod(SPACING_MM)
    assert sum(disc.predicted_mm3 for disc in scores.discs) == pytest.approx(np.count_nonzero(prediction) * voxel_mm3)
    # Brute force: the distance from each predicted voxel to each voxel of each disc.
    voxels = np.argwhere(prediction) * SPACING_MM
    apart = np.stack(
        [
            np.linalg.norm(
                voxels[:, None] - (np.argwhere(instances(reference, SPACING_MM) == k) * SPACING_MM), axis=2
            ).min(1)
            for k in (1, 2, 3)
        ]
    )
    clear = np.sort(apart, axis=0)[1] - apart.min(axis=0) > 1e-9
    for k, disc in enumerate(scores.discs):
        mine = apart.argmin(axis=0) == k
        assert (mine & clear).sum() <= round(disc.predicted_mm3 / voxel_mm3) <= (mine | ~clear).sum()


METRICS = ("dice", "asd_mm", "center_mm", "hd95_mm", "nsd_1mm", "reference_mm3", "predicted_mm3")


@st.composite
def outlines(draw):
    """A box, another one that it overlaps, and a voxel size."""
    reference, prediction = np.zeros((2, 9, 10, 11), bool)
    reference[2:7, 3:7, 2:9] = True
    low, high = draw(st.tuples(*[st.integers(0, 3)] * 3)), draw(st.tuples(*[st.integers(6, 9)] * 3))
    prediction[tuple(slice(*ends) for ends in zip(low, high, strict=True))] = True
    spacing_mm = tuple(draw(st.sampled_from([0.5, 1.0, 1.25, 2.0])) for _ in range(3))
    return prediction, reference, spacing_mm


def measured(prediction, reference, spacing_mm):
    (disc,) = score_case("x", prediction, reference, spacing_mm).discs
    return {name: getattr(disc, name) for name in METRICS}


@settings(max_examples=20, deadline=None)
@given(outlines(), st.tuples(*[st.integers(0, 3)] * 3), st.permutations(range(3)), st.sampled_from([0.25, 2.0]))
def test_the_laws_of_every_metric(drawn, moved, axes, factor):
    prediction, reference, spacing_mm = drawn
    before = measured(prediction, reference, spacing_mm)
    padding = [(n, 3 - n) for n in moved]
    assert measured(np.pad(prediction, padding), np.pad(reference, padding), spacing_mm) == pytest.approx(before)
    turned_mm = tuple(spacing_mm[i] for i in axes)
    assert measured(prediction.transpose(axes), reference.transpose(axes), turned_mm) == pytest.approx(before)
    forth, back = dict(before), measured(reference, prediction, spacing_mm)
    assert (back.pop("reference_mm3"), back.pop("predicted_mm3")) == pytest.approx(
        (forth.pop("predicted_mm3"), forth.pop("reference_mm3"))
    )
    assert back == pytest.approx(forth)
    scaled = measured(prediction, reference, tuple(s * factor for s in spacing_mm))
    for name in ("asd_mm", "center_mm", "hd95_mm"):
        assert scaled[name] == pytest.approx(before[name] * factor)
    for name in ("reference_mm3", "predicted_mm3"):
        assert scaled[name] == pytest.approx(before[name] * factor**3)
    assert scaled["dice"] == before["dice"]
    assert (scaled["nsd_1mm"] - before["nsd_1mm"]) * (factor - 1) <= 1e-12


def test_a_scheme_makes_a_label_of_a_single_value():
    levels = instances(spine(), SPACING_MM)
    only_l4 = np.where(levels == 2, 2, 0)
    scores = score_case("01", only_l4, spine(), SPACING_MM, prediction_labelled=True)
    assert [disc.found for disc in scores.discs] == [False, True, False, False, False, False, False]
    one_level = score_case("01", levels, only_l4, SPACING_MM, prediction_labelled=True, reference_labelled=True)
    assert [disc.dice for disc in one_level.discs] == [1.0]
