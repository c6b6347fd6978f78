import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from ivdjax.config import Loss
from ivdjax.training import losses
from ivdjax.training.distance import signed_distance

LABEL_BxLxHxW = np.zeros((2, 1, 8, 8), np.uint8)
LABEL_BxLxHxW[0, :, 2:6, 2:6] = 1
RIGHT = 20.0 * jax.nn.one_hot(LABEL_BxLxHxW, 2)


def test_a_right_answer_costs_nothing():
    np.testing.assert_allclose(losses.soft_dice_loss(RIGHT, LABEL_BxLxHxW), 0, atol=1e-4)
    np.testing.assert_allclose(losses.cross_entropy(RIGHT, LABEL_BxLxHxW), 0, atol=1e-4)


def test_known_values():
    # Every pixel at one half: 2 * (16/2) + 1 over 32 + 16 + 1, and 1 over 32 + 1 without a disc.
    undecided = jnp.zeros((2, 1, 8, 8, 2))
    np.testing.assert_allclose(losses.soft_dice_loss(undecided, LABEL_BxLxHxW), [1 - 17 / 49, 1 - 1 / 33], rtol=1e-5)
    np.testing.assert_allclose(losses.cross_entropy(undecided, LABEL_BxLxHxW), np.log(2), rtol=1e-5)


def test_each_part_is_weighted_and_reported():
    undecided = jnp.zeros((2, 1, 8, 8, 2))
    parts = losses.segmentation_loss(undecided, (), LABEL_BxLxHxW, Loss(dice_weight=2.0, cross_entropy_weight=0.5))
    np.testing.assert_allclose(parts["loss"], 2 * parts["dice_loss"] + 0.5 * parts["cross_entropy"], rtol=1e-6)


def test_coarse_logits_are_compared_with_every_second_pixel():
    right_coarse = 20.0 * jax.nn.one_hot(LABEL_BxLxHxW[:, :, ::2, ::2], 2)
    # As where a network pads 8 pixels to 12: what lies beyond the label does not count.
    padded = jnp.pad(right_coarse, [(0, 0), (0, 0), (0, 2), (0, 2), (0, 0)], constant_values=9.0)
    good = losses.segmentation_loss(RIGHT, (padded,), LABEL_BxLxHxW, Loss())["loss"]
    np.testing.assert_allclose(good, 0, atol=1e-3)
    bad = losses.segmentation_loss(RIGHT, (-right_coarse,), LABEL_BxLxHxW, Loss())["loss"]
    assert (bad > 1).all()


def test_all_slices_of_a_patch_are_one_picture():
    label_1x2xHxW = LABEL_BxLxHxW.reshape(1, 2, 8, 8)
    logits_1x2xHxWxN = jax.random.normal(jax.random.key(0), (1, 2, 8, 8, 2))
    flat = losses.soft_dice_loss(logits_1x2xHxWxN.reshape(1, 1, 16, 8, 2), label_1x2xHxW.reshape(1, 1, 16, 8))
    np.testing.assert_allclose(losses.soft_dice_loss(logits_1x2xHxWxN, label_1x2xHxW), flat, rtol=1e-6)


def test_tversky_weighs_misses_and_false_pixels():
    # 4 of 16 pixels missed and 8 false: 2 * 12 + 1 over 2 * (12 + misses * 4 + (1 - misses) * 8) + 1.
    answer_BxLxHxW = np.zeros((1, 1, 8, 8), np.uint8)
    answer_BxLxHxW[..., 2:5, 2:6] = answer_BxLxHxW[..., 6:8, 2:6] = 1
    logits = 40.0 * jax.nn.one_hot(answer_BxLxHxW, 2)
    for misses in (0.3, 0.5, 0.9):
        expected = 1 - 25 / (2 * (12 + misses * 4 + (1 - misses) * 8) + 1)
        np.testing.assert_allclose(losses.tversky_loss(logits, LABEL_BxLxHxW[:1], misses), [expected], rtol=1e-5)


def test_focal_loss_passes_over_what_is_right():
    # Every pixel's true class has probability 1 / 4.
    logits = jnp.where(LABEL_BxLxHxW[..., None] == np.arange(2), 0.0, np.log(3.0))
    np.testing.assert_allclose(losses.focal_loss(logits, LABEL_BxLxHxW, 2.0), 0.75**2 * np.log(4), rtol=1e-5)
    gradient = jax.grad(lambda logits: losses.focal_loss(logits, LABEL_BxLxHxW, 2.0).sum())(500 * RIGHT)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("seed", range(3))
def test_distances_are_those_of_scipy(seed):
    inside_HxW = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal((23, 31)), 2) > 0.02
    outside, within = (ndimage.distance_transform_edt(mask) for mask in (~inside_HxW, inside_HxW))
    expected = np.where(inside_HxW, 1 - within, outside)
    np.testing.assert_allclose(jax.jit(signed_distance)(inside_HxW), expected, rtol=1e-5)
    for flat in (np.zeros((5, 5), bool), np.ones((5, 5), bool)):
        np.testing.assert_array_equal(signed_distance(flat), 0)


def test_boundary_loss_is_least_for_the_label_and_grows_with_distance():
    values = []
    for shift in range(4):
        answer_BxLxHxW = np.roll(LABEL_BxLxHxW, shift, -1)
        logits = 40.0 * jax.nn.one_hot(answer_BxLxHxW, 2)
        values.append(losses.boundary_loss(logits, LABEL_BxLxHxW))
    # The box of 4 x 4 holds a ring of 0 and a middle of -1.
    np.testing.assert_allclose(values[0], [-4 / 64, 0], atol=1e-6)
    assert (np.diff([value[0] for value in values]) > 0).all()


def test_losses_of_weight_zero_stay_out_and_others_add_up():
    logits = jax.random.normal(jax.random.key(1), (2, 1, 8, 8, 2))
    plain = losses.segmentation_loss(logits, (), LABEL_BxLxHxW, Loss())["loss"]
    config = Loss(tversky_weight=0.5, focal_weight=2.0, boundary_weight=0.1)
    more = 0.5 * losses.tversky_loss(logits, LABEL_BxLxHxW, 0.7) + 2 * losses.focal_loss(logits, LABEL_BxLxHxW, 2.0)
    more += 0.1 * losses.boundary_loss(logits, LABEL_BxLxHxW)
    np.testing.assert_allclose(
        losses.segmentation_loss(logits, (), LABEL_BxLxHxW, config)["loss"], plain + more, rtol=1e-5
    )
