import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from ivdjax.config import Predict
from ivdjax.inference import predict

IMAGE_ZxHxWxC = np.random.default_rng(0).normal(size=(7, 20, 33, 1)).astype(np.float32)


class Echo(nn.Module):
    """Gives each pixel of a chosen slice as its own logit."""

    slice_: int

    @nn.compact
    def __call__(self, stack_BxKxHxWxC):
        pixel_BxHxW = stack_BxKxHxWxC[:, self.slice_, ..., 0]
        return jnp.stack([jnp.zeros_like(pixel_BxHxW), pixel_BxHxW], -1)


def chances(slice_, config):
    return predict.probability(Echo(slice_), {}, IMAGE_ZxHxWxC, 3, config)[..., 1]


def test_every_voxel_is_answered_in_its_own_place():
    for batch_size in (1, 3, 8):
        np.testing.assert_allclose(
            chances(1, Predict(flip=False, batch_size=batch_size)), jax.nn.sigmoid(IMAGE_ZxHxWxC[..., 0]), rtol=1e-5
        )


def test_the_flip_averages_a_stack_with_its_reverse():
    sigmoid = np.asarray(jax.nn.sigmoid(IMAGE_ZxHxWxC[..., 0]))
    before, after = sigmoid[[0, *range(6)]], sigmoid[[*range(1, 7), 6]]
    np.testing.assert_allclose(chances(0, Predict(flip=True)), (before + after) / 2, rtol=1e-5)


def test_the_mask_is_the_likelier_class():
    probability = np.array([0.9, 0.1, 0.2, 0.8]).reshape(2, 1, 1, 2)
    assert predict.mask(probability).ravel().tolist() == [0, 1]


class Flags(nn.Module):
    """Gives the number of channels that are there as the logit."""

    @nn.compact
    def __call__(self, stack_BxKxHxWxC, present_BxC):
        logit_BxHxW = jnp.ones(stack_BxKxHxWxC[:, 0, ..., 0].shape) * present_BxC.sum(-1)[:, None, None]
        return jnp.stack([jnp.zeros_like(logit_BxHxW), logit_BxHxW], -1)


def test_a_network_that_takes_subsets_is_told_what_is_there():
    image_ZxHxWxC = IMAGE_ZxHxWxC.repeat(3, -1)
    for present in ([1, 1, 0], [0, 1, 0]):
        told = np.array(present, np.float32)
        answer = predict.probability(Flags(), {}, image_ZxHxWxC, 3, Predict(), told)[..., 1]
        np.testing.assert_allclose(answer, jax.nn.sigmoid(told.sum()), rtol=1e-5)
