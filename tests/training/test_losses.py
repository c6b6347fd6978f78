import jax
import jax.numpy as jnp
import numpy as np

from ivdjax.config import Loss
from ivdjax.training import losses

LABEL_BxHxW = np.zeros((2, 8, 8), np.uint8)
LABEL_BxHxW[0, 2:6, 2:6] = 1
RIGHT = 20.0 * jax.nn.one_hot(LABEL_BxHxW, 2)


def test_a_right_answer_costs_nothing():
    np.testing.assert_allclose(losses.soft_dice_loss(RIGHT, LABEL_BxHxW), 0, atol=1e-4)
    np.testing.assert_allclose(losses.cross_entropy(RIGHT, LABEL_BxHxW), 0, atol=1e-4)


def test_known_values():
    # Every pixel at one half: 2 * (16/2) + 1 over 32 + 16 + 1, and 1 over 32 + 1 without a disc.
    undecided = jnp.zeros((2, 8, 8, 2))
    np.testing.assert_allclose(losses.soft_dice_loss(undecided, LABEL_BxHxW), [1 - 17 / 49, 1 - 1 / 33], rtol=1e-5)
    np.testing.assert_allclose(losses.cross_entropy(undecided, LABEL_BxHxW), np.log(2), rtol=1e-5)


def test_each_part_is_weighted_and_reported():
    undecided = jnp.zeros((2, 8, 8, 2))
    parts = losses.segmentation_loss(undecided, (), LABEL_BxHxW, Loss(dice_weight=2.0, cross_entropy_weight=0.5))
    np.testing.assert_allclose(parts["loss"], 2 * parts["dice_loss"] + 0.5 * parts["cross_entropy"], rtol=1e-6)


def test_coarse_logits_are_compared_with_every_second_pixel():
    right_coarse = 20.0 * jax.nn.one_hot(LABEL_BxHxW[:, ::2, ::2], 2)
    # As where a network pads 8 pixels to 12: what lies beyond the label does not count.
    padded = jnp.pad(right_coarse, [(0, 0), (0, 2), (0, 2), (0, 0)], constant_values=9.0)
    good = losses.segmentation_loss(RIGHT, (padded,), LABEL_BxHxW, Loss())["loss"]
    np.testing.assert_allclose(good, 0, atol=1e-3)
    bad = losses.segmentation_loss(RIGHT, (-right_coarse,), LABEL_BxHxW, Loss())["loss"]
    assert (bad > 1).all()
