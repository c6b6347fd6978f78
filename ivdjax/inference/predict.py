"""From a volume to the probability of each class in each of its voxels: stacks of whole slices, and back."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array

from ivdjax.config import Predict
from ivdjax.data import stacks

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
    parts = []
    for first in range(0, Z, config.batch_size):
        # The last batch repeats the last slice, so that every batch has one shape.
        centres_B = np.minimum(np.arange(first, first + config.batch_size), Z - 1)
        parts.append(_stack_probability(model, config.flip, K, params, padded_ZxHxWxC, centres_B, present_C))
    return np.concatenate([np.asarray(part) for part in parts])[:Z, :H, :W]


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
    stack_BxKxHxWxC = stacks.all_stacks(volume_ZxHxWxC, centres_B, K).astype(jnp.float32)
    # A left-right flip only reverses the order of the slices: the picture of the centre slice stays as it is.
    views = [stack_BxKxHxWxC, stack_BxKxHxWxC[:, ::-1]] if flip else [stack_BxKxHxWxC]
    present = () if present_C is None else (jnp.broadcast_to(present_C, (stack_BxKxHxWxC.shape[0], len(present_C))),)
    return sum(jax.nn.softmax(model.apply({"params": params}, view, *present)) for view in views) / len(views)


def mask(probability_ZxHxWxN: np.ndarray) -> np.ndarray:
    """Most probable class of each voxel, uint8 (Z,H,W)."""
    return probability_ZxHxWxN.argmax(-1).astype(np.uint8)
