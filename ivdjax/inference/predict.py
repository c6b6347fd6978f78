"""From a volume to the probability of each class in each of its voxels: stacks of whole slices, and back."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array

from ivdjax.config import Predict
from ivdjax.data import stacks
from ivdjax.models import labelled_slices
from ivdjax.models.blocks import WHOLE_LOGITS

# Slices, heights and widths are padded to multiples of these, so that volumes of nearly one size share a program.
_SIZE_STEPS = (12, 32, 32)


def probability(
    model: nn.Module,
    params: dict,
    image_ZxHxWxC: np.ndarray,
    K: int,
    config: Predict,
    present_C: np.ndarray | None = None,
) -> np.ndarray:
    """Probability of each class, probability_ZxHxWxN in float32.

    Args:
        model: the network.
        params: its weights.
        image_ZxHxWxC: normalised as the training volumes were.
        K: slices of a stack.
        config: stacks at once, and whether to average with the left-right flipped volume.
        present_C: 1 for channels that are there, 0 for those that are not and whose intensities are 0; None for a
            network that is not told.
    """
    Z, H, W, _ = image_ZxHxWxC.shape
    padding = [*((0, -size % step) for size, step in zip((Z, H, W), _SIZE_STEPS, strict=True)), (0, 0)]
    # In one piece to the accelerator, where each slice is then used in K stacks.
    padded_ZxHxWxC = jax.device_put(np.pad(image_ZxHxWxC, padding, mode="edge"))
    # Stacks of which all slices are segmented overlap by half; a slice counts the more, the nearer to the centre.
    L = labelled_slices(model, K)
    weight_L = 1 + L // 2 - np.abs(np.arange(L) - L // 2)
    centres = np.arange(0, Z, max(1, L // 2))
    total_ZxHxWxN, weight_Z = 0, np.zeros(Z, np.float32)
    for first in range(0, len(centres), config.batch_size):
        # The last batch repeats the last slice, so that every batch has one shape.
        own = centres[first : first + config.batch_size]
        centres_B = np.pad(own, (0, config.batch_size - len(own)), mode="edge")
        part = np.asarray(_stack_probability(model, config.flip, K, params, padded_ZxHxWxC, centres_B, present_C))
        if not first:
            total_ZxHxWxN = np.zeros((Z, H, W, part.shape[-1]), np.float32)
        for centre, stack_LxHxWxN in zip(own, part, strict=False):
            for z, weight, slice_HxWxN in zip(centre + np.arange(L) - L // 2, weight_L, stack_LxHxWxN, strict=True):
                if 0 <= z < Z:
                    total_ZxHxWxN[z] += weight * slice_HxWxN[:H, :W]
                    weight_Z[z] += weight
    return total_ZxHxWxN / weight_Z[:, None, None, None]


@partial(jax.jit, static_argnums=(0, 1, 2))
def _stack_probability(
    model: nn.Module,
    flip: bool,
    K: int,
    params: dict,
    volume_ZxHxWxC: Array,
    centres_B: Array,
    present_C: Array | None,
) -> Array:
    """Probability_BxLxHxWxN of the slices that the network segments."""
    stack_BxKxHxWxC = stacks.all_stacks(volume_ZxHxWxC, centres_B, K).astype(jnp.float32)
    # A left-right flip only reverses the order of the slices: the picture of the centre slice stays as it is.
    views = [stack_BxKxHxWxC, stack_BxKxHxWxC[:, ::-1]] if flip else [stack_BxKxHxWxC]
    present = () if present_C is None else (jnp.broadcast_to(present_C, (stack_BxKxHxWxC.shape[0], len(present_C))),)
    total_BxLxHxWxN = 0
    for flipped, view in enumerate(views):
        logits_BxHxWxN, sown = model.apply({"params": params}, view, *present, mutable=[WHOLE_LOGITS[0]])
        whole_BxLxHxWxN = sown.get(WHOLE_LOGITS[0], {}).get(WHOLE_LOGITS[1], logits_BxHxWxN[:, None])
        total_BxLxHxWxN += jax.nn.softmax(whole_BxLxHxWxN[:, ::-1] if flipped else whole_BxLxHxWxN)
    return total_BxLxHxWxN / len(views)


def mask(probability_ZxHxWxN: np.ndarray) -> np.ndarray:
    """Most probable class of each voxel, uint8 (Z,H,W)."""
    return probability_ZxHxWxN.argmax(-1).astype(np.uint8)
