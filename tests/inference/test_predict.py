import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from ivdjax.config import Predict
from ivdjax.inference import predict
from ivdjax.models.blocks import WHOLE_LOGITS

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


class Named3D(nn.Module):
    """Says of each slice of its stack how bright it is and how far from the centre, in its logits."""

    whole_stack = True

    @nn.compact
    def __call__(self, stack_BxKxHxWxC, present_BxC=None):
        K = stack_BxKxHxWxC.shape[1]
        off_K = jnp.abs(jnp.arange(K) - K // 2).astype(jnp.float32)[:, None, None]
        chance = jnp.clip(stack_BxKxHxWxC[..., 0], 0.01, 0.99) / (1 + off_K)
        logits = jnp.stack([jnp.log1p(-chance), jnp.log(chance)], -1)
        self.sow(*WHOLE_LOGITS, logits, reduce_fn=lambda _, new: new)
        return logits[:, K // 2]


@pytest.mark.parametrize("Z", [1, 4, 11])
def test_overlapping_patches_are_weighted_by_how_near_their_centres_are(Z):
    image_ZxHxWxC = np.random.default_rng(0).uniform(0.1, 0.9, (Z, 6, 5, 1)).astype(np.float32)
    K = 5
    found = predict.probability(Named3D(), {}, image_ZxHxWxC, K, Predict(batch_size=2, flip=True))
    expected_Z = np.zeros(Z)
    for z in range(Z):
        # Patches stand at every second slice; of one at distance d the answer is 1 / (1 + d), and its weight 3 - d.
        near = [abs(z - centre) for centre in range(0, Z, 2) if abs(z - centre) <= 2]
        expected_Z[z] = sum((3 - d) / (1 + d) for d in near) / sum(3 - d for d in near)
    np.testing.assert_allclose(found[..., 1], image_ZxHxWxC[..., 0] * expected_Z[:, None, None], rtol=1e-4)


def test_shifts_leave_a_network_without_a_neighbourhood_as_it_is():
    plain = chances(1, Predict(flip=False))
    np.testing.assert_allclose(chances(1, Predict(shifts=len(predict.SHIFTS))), plain, rtol=1e-5)


class Left(nn.Module):
    """Gives the pixel to the left as the logit; the first column has the last one's, as on a ring."""

    @nn.compact
    def __call__(self, stack_BxKxHxWxC):
        pixel_BxHxW = jnp.roll(stack_BxKxHxWxC[:, 1, ..., 0], 1, axis=2)
        return jnp.stack([jnp.zeros_like(pixel_BxHxW), pixel_BxHxW], -1)


def test_a_shifted_view_is_moved_back_and_its_lost_edge_filled_from_the_whole_one():
    config = Predict(flip=False, shifts=2)
    whole, right, left = (view[..., 1] for view in predict.views(Left(), {}, IMAGE_ZxHxWxC, 3, config))
    sigmoid = np.asarray(jax.nn.sigmoid(IMAGE_ZxHxWxC[..., 0]))
    W = sigmoid.shape[2]
    # The network looks one column to the left of wherever the volume lies: the first column alone looks beyond.
    np.testing.assert_allclose(whole[..., 1:], sigmoid[..., :-1], rtol=1e-5)
    np.testing.assert_allclose(
        right[..., : W - 2], np.concatenate([sigmoid[..., :1], sigmoid[..., : W - 3]], -1), rtol=1e-5
    )
    np.testing.assert_allclose(left[..., 3:], sigmoid[..., 2:-1], rtol=1e-5)
    for view, lost in ((right, slice(-2, None)), (left, slice(0, 2))):
        np.testing.assert_array_equal(view[..., lost], whole[..., lost])
