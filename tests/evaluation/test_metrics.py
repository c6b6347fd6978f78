"""Overlap and surface distances against published cases, against surface-distance itself, and against their laws."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from surface_distance import metrics as published

from ivdjax.evaluation.metrics import bounding_box, dice, surface_scores


def ball(shape, center, radius_mm, spacing_mm):
    z, h, w = np.indices(shape)
    offsets = [(axis - c) * s for axis, c, s in zip((z, h, w), center, spacing_mm, strict=True)]
    return sum(offset**2 for offset in offsets) <= radius_mm**2


def test_two_boxes_as_published():
    prediction, reference = np.zeros((2, 100, 100, 100), bool)
    prediction[:51], reference[:50] = True, True
    scores = surface_scores(prediction, reference, (2, 1, 1))
    assert scores.asd_reference_to_prediction_mm == pytest.approx(0.322, abs=5e-4)
    assert scores.asd_prediction_to_reference_mm == pytest.approx(0.339, abs=5e-4)
    assert scores.asd_mm == pytest.approx((0.322 + 0.339) / 2, abs=5e-4)
    assert scores.hd95_mm == 2.0
    assert scores.nsd_1mm == pytest.approx(0.836, abs=5e-4)
    assert dice(prediction, reference) == pytest.approx(0.990, abs=5e-4)


def test_two_single_voxels_as_published():
    prediction, reference = np.zeros((2, 20, 20, 20), bool)
    prediction[5, 6, 7], reference[5, 6, 9] = True, True
    scores = surface_scores(prediction, reference, (3, 2, 1))
    assert (scores.asd_mm, scores.hd95_mm, scores.nsd_1mm) == pytest.approx((1.5, 2.0, 0.5))
    assert dice(prediction, reference) == 0.0


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (2.0, 1.25, 1.25), (0.9, 0.94, 0.94)])
def test_agrees_with_surface_distance(spacing_mm):
    rng = np.random.default_rng(0)
    prediction, reference = (ball((14, 20, 22), c, 7, spacing_mm) for c in ((6, 9, 10), (7, 10, 12)))
    prediction ^= rng.random(prediction.shape) < 0.01
    prediction[0, 0, 0] = True  # a speck in the corner of the volume
    theirs = published.compute_surface_distances(reference, prediction, spacing_mm)
    back, forth = published.compute_average_surface_distance(theirs)
    scores = surface_scores(prediction, reference, spacing_mm)
    assert scores.asd_prediction_to_reference_mm == pytest.approx(forth)
    assert scores.asd_reference_to_prediction_mm == pytest.approx(back)
    assert scores.hd95_mm == pytest.approx(published.compute_robust_hausdorff(theirs, 95))
    assert scores.nsd_1mm == pytest.approx(published.compute_surface_dice_at_tolerance(theirs, 1.0))
    assert dice(prediction, reference) == pytest.approx(published.compute_dice_coefficient(reference, prediction))


@pytest.mark.parametrize("spacing_mm", [(2.0, 1.25, 1.25), (1.0, 1.0, 1.0)])
def test_concentric_balls_lie_their_radii_apart(spacing_mm):
    shape = tuple(round(62 / s) for s in spacing_mm)
    inner, outer = (ball(shape, np.array(shape) // 2, radius_mm, spacing_mm) for radius_mm in (22.0, 28.0))
    scores = surface_scores(outer, inner, spacing_mm)
    # Elements lie on both sides of a curved surface, and a distance is taken to the nearer: short by half a voxel.
    assert 6.0 - 0.6 * max(spacing_mm) < scores.asd_mm < 6.0
    assert scores.hd95_mm == pytest.approx(6.0, abs=0.5 * max(spacing_mm))
    assert scores.nsd_1mm == 0.0
    assert dice(outer, inner) == pytest.approx(2 * 22**3 / (22**3 + 28**3), abs=0.005)


def test_a_box_that_shifts_moves_only_the_faces_across_the_shift():
    prediction, reference = np.zeros((2, 30, 30, 30), bool)
    reference[5:25, 5:25, 5:25], prediction[5:25, 5:25, 8:28] = True, True
    scores = surface_scores(prediction, reference, (1, 1, 1))
    # Of six equal faces two move by 3 mm along their normal and four slide in their own plane.
    assert 3.0 * 2 / 6 - 0.2 < scores.asd_mm < 3.0 * 2 / 6 + 0.2
    assert scores.hd95_mm == 3.0
    assert dice(prediction, reference) == pytest.approx(17 / 20)


def test_a_header_rounded_up_is_still_within_1_mm():
    prediction, reference = np.zeros((2, 20, 20, 20), bool)
    reference[5:15, 5:15, 5:15], prediction[5:15, 5:15, 5:16] = True, True
    assert surface_scores(prediction, reference, (1.0000003,) * 3).nsd_1mm == 1.0


def test_identical_masks_are_perfect_and_any_non_zero_value_is_inside():
    mask = ball((12, 16, 16), (6, 8, 8), 5, (1, 1, 1)).astype(np.uint8)
    scores = surface_scores(mask * 7, mask, (2.0, 1.25, 1.25))
    assert (scores.asd_mm, scores.hd95_mm, scores.nsd_1mm) == (0.0, 0.0, 1.0)
    assert dice(mask * 7, mask) == 1.0


def test_empty_masks():
    empty, full = np.zeros((4, 4, 4), bool), np.ones((4, 4, 4), bool)
    assert dice(empty, empty) == 1.0
    assert dice(empty, full) == 0.0
    for pair in ((empty, full), (full, empty), (empty, empty)):
        with pytest.raises(ValueError, match="not empty"):
            surface_scores(*pair, (1, 1, 1))


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"\(4, 4, 4\).*\(4, 4, 5\)"):
        dice(np.ones((4, 4, 4)), np.ones((4, 4, 5)))
    with pytest.raises(ValueError, match="shape"):
        surface_scores(np.ones((4, 4, 4)), np.ones((4, 4, 5)), (1, 1, 1))


def test_bounding_box_is_tight():
    mask = np.zeros((5, 6, 7), bool)
    mask[1, 2, 3] = mask[3, 2, 6] = True
    assert bounding_box(mask) == (slice(1, 4), slice(2, 3), slice(3, 7))


@st.composite
def two_masks(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    masks = rng.random((2, 5, 6, 7)) < draw(st.floats(0.02, 0.6))
    masks[:, 2, 3, 3] = True
    spacing_mm = tuple(draw(st.sampled_from([0.5, 0.94, 1.0, 1.25, 2.0, 3.7])) for _ in range(3))
    return masks[0], masks[1], spacing_mm


def values(scores):
    return scores.asd_mm, scores.hd95_mm, scores.nsd_1mm


@settings(max_examples=20, deadline=None)
@given(two_masks())
def test_exchanging_the_masks_exchanges_only_the_directions(drawn):
    a, b, spacing_mm = drawn
    forth, back = surface_scores(a, b, spacing_mm), surface_scores(b, a, spacing_mm)
    assert values(forth) == pytest.approx(values(back))
    assert forth.asd_prediction_to_reference_mm == pytest.approx(back.asd_reference_to_prediction_mm)
    assert dice(a, b) == dice(b, a)


@settings(max_examples=20, deadline=None)
@given(two_masks(), st.tuples(*[st.integers(0, 3)] * 3), st.permutations(range(3)))
def test_moving_or_turning_the_volume_changes_nothing(drawn, moved, axes):
    a, b, spacing_mm = drawn
    before = surface_scores(a, b, spacing_mm)
    padding = [(n, 3 - n) for n in moved]
    assert surface_scores(np.pad(a, padding), np.pad(b, padding), spacing_mm) == before
    turned = surface_scores(a.transpose(axes), b.transpose(axes), tuple(spacing_mm[i] for i in axes))
    assert values(turned) == pytest.approx(values(before))
    assert dice(np.pad(a, padding), np.pad(b, padding)) == dice(a.transpose(axes), b.transpose(axes)) == dice(a, b)


@settings(max_examples=20, deadline=None)
@given(two_masks(), st.sampled_from([0.25, 2.0, 8.0]))
def test_distances_scale_with_the_voxel(drawn, factor):
    a, b, spacing_mm = drawn
    before, after = surface_scores(a, b, spacing_mm), surface_scores(a, b, tuple(s * factor for s in spacing_mm))
    assert after.asd_mm == pytest.approx(before.asd_mm * factor)
    assert after.hd95_mm == pytest.approx(before.hd95_mm * factor)
    # The tolerance does not grow with the voxel: what lay within 1 mm may lie farther, never the other way round.
    assert (after.nsd_1mm - before.nsd_1mm) * (factor - 1) <= 1e-12
