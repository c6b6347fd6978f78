"""From a volume to the probability of each class in each of its voxels: stacks of whole slices, and back."""

from collections.abc import Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array

from ivdjax.config import Predict
from ivdjax.data import stacks
from ivdjax.errors import UsageError
from ivdjax.inference.uncertainty import consensus
from ivdjax.models import labelled_slices
from ivdjax.models.blocks import WHOLE_LOGITS

# Slices, heights and widths are padded to multiples of these, so that volumes of nearly one size share a program.
_SIZE_STEPS = (12, 32, 32)

# Voxels along H and W by which a volume is shifted, in the order in which `Predict.shifts` takes them. Two: no network
# here that halves its grid more than once sees the same voxels together then.
SHIFTS = ((0, 2), (0, -2), (2, 0), (-2, 0), (2, 2), (-2, -2), (2, -2), (-2, 2))


def check(config: Predict) -> None:
    """Refuse settings of prediction that cannot be.

    Raises:
        UsageError: a number is out of range.
    """
    rules = config.postprocess
    if not 0 <= config.shifts <= len(SHIFTS) or config.batch_size < 1 or rules.specks_mm3 < 0 or rules.lowest < 0:
        raise UsageError(
            f"--predict: shifts is 0 to {len(SHIFTS)}, batch-size 1 or more, postprocess.specks-mm3 and "
            "postprocess.lowest 0 or more"
        )


def probability(
    model: nn.Module,
    params: dict,
    image_ZxHxWxC: np.ndarray,
    K: int,
    config: Predict,
    present_C: np.ndarray | None = None,
) -> np.ndarray:
    """Probability of each class, probability_ZxHxWxN in float32: the mean over the `views` of one network."""
    return consensus(views(model, params, image_ZxHxWxC, K, config, present_C)).probability_ZxHxWxN


def views(
    model: nn.Module,
    params: dict,
    image_ZxHxWxC: np.ndarray,
    K: int,
    config: Predict,
    present_C: np.ndarray | None = None,
) -> Iterator[np.ndarray]:
    """Yield what a network says of a volume as it is, then flipped, then shifted: probability_ZxHxWxN in float32 each.

    A shifted view lies where the volume does. What was shifted out of it is as in the view that was not shifted.

    Args:
        model: the network.
        params: its weights.
        image_ZxHxWxC: normalised as the training volumes were.
        K: slices of a stack.
        config: stacks at once; whether there is a flipped view beside each; and how many shifts of `SHIFTS`.
        present_C: 1 for channels that are there, 0 for those that are not and whose intensities are 0; None for a
            network that is not told.
    """
    unshifted = _segment(model, params, image_ZxHxWxC, K, config, present_C)
    yield from unshifted
    for h, w in SHIFTS[: config.shifts]:
        shifted_ZxHxWxC = _shift(image_ZxHxWxC, h, w)
        for view_ZxHxWxN, whole_ZxHxWxN in zip(
            _segment(model, params, shifted_ZxHxWxC, K, config, present_C), unshifted, strict=True
        ):
            back_ZxHxWxN = _shift(view_ZxHxWxN, -h, -w)
            for axis, lost in ((1, h), (2, w)):
                at = [slice(None)] * 4
                # Moved on by `lost`, the last of them left the volume; moved back, the first.
                at[axis] = slice(-lost, None) if lost > 0 else slice(0, -lost)
                back_ZxHxWxN[tuple(at)] = whole_ZxHxWxN[tuple(at)]
            yield back_ZxHxWxN


def _shift(volume_ZxHxWxC: np.ndarray, h: int, w: int) -> np.ndarray:
    """A volume moved on by some voxels along H and W; its edge is repeated."""
    _, H, W, _ = volume_ZxHxWxC.shape
    rows, columns = np.clip(np.arange(H) - h, 0, H - 1), np.clip(np.arange(W) - w, 0, W - 1)
    return volume_ZxHxWxC[:, rows][:, :, columns]


def _segment(
    model: nn.Module,
    params: dict,
    image_ZxHxWxC: np.ndarray,
    K: int,
    config: Predict,
    present_C: np.ndarray | None,
) -> np.ndarray:
    """Probability_VxZxHxWxN of a volume as it is and, where asked for, flipped."""
    Z, H, W, _ = image_ZxHxWxC.shape
    padding = [*((0, -size % step) for size, step in zip((Z, H, W), _SIZE_STEPS, strict=True)), (0, 0)]
    # In one piece to the accelerator, where each slice is then used in K stacks.
    padded_ZxHxWxC = jax.device_put(np.pad(image_ZxHxWxC, padding, mode="edge"))
    # Stacks of which all slices are segmented overlap by half; a slice counts the more, the nearer to the centre.
    L = labelled_slices(model, K)
    weight_L = 1 + L // 2 - np.abs(np.arange(L) - L // 2)
    centres = np.arange(0, Z, max(1, L // 2))
    total_VxZxHxWxN, weight_Z = np.zeros(0, np.float32), np.zeros(Z, np.float32)
    for first in range(0, len(centres), config.batch_size):
        # The last batch repeats the last slice, so that every batch has one shape.
        own = centres[first : first + config.batch_size]
        centres_B = np.pad(own, (0, config.batch_size - len(own)), mode="edge")
        part = np.asarray(_stack_probability(model, config.flip, K, params, padded_ZxHxWxC, centres_B, present_C))
        if not first:
            total_VxZxHxWxN = np.zeros((len(part), Z, H, W, part.shape[-1]), np.float32)
        for b, centre in enumerate(own):
            for k, (z, weight) in enumerate(zip(centre + np.arange(L) - L // 2, weight_L, strict=True)):
                if 0 <= z < Z:
                    total_VxZxHxWxN[:, z] += weight * part[:, b, k, :H, :W]
                    weight_Z[z] += weight
    return total_VxZxHxWxN / weight_Z[:, None, None, None]


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
    """Probability_VxBxLxHxWxN of the stacks at some slices of a volume (see `stack_probability`)."""
    stack_BxKxHxWxC = stacks.all_stacks(volume_ZxHxWxC, centres_B, K).astype(jnp.float32)
    present = () if present_C is None else (jnp.broadcast_to(present_C, (stack_BxKxHxWxC.shape[0], len(present_C))),)
    return stack_probability(model, flip, params, stack_BxKxHxWxC, *present)


def stack_probability(model: nn.Module, flip: bool, params: dict, stack_BxKxHxWxC: Array, *present_BxC: Array) -> Array:
    """Probability_VxBxLxHxWxN of the slices of stacks that a network segments, as they are and, where asked, flipped.

    Pure; H and W are multiples of what the network halves. present_BxC: for networks that are told which channels
    are there.
    """
    # A left-right flip only reverses the order of the slices: the picture of the centre slice stays as it is.
    views = [stack_BxKxHxWxC, stack_BxKxHxWxC[:, ::-1]] if flip else [stack_BxKxHxWxC]
    told = []
    for flipped, view in enumerate(views):
        logits_BxHxWxN, sown = model.apply({"params": params}, view, *present_BxC, mutable=[WHOLE_LOGITS[0]])
        whole_BxLxHxWxN = sown.get(WHOLE_LOGITS[0], {}).get(WHOLE_LOGITS[1], logits_BxHxWxN[:, None])
        told.append(jax.nn.softmax(whole_BxLxHxWxN[:, ::-1] if flipped else whole_BxLxHxWxN))
    return jnp.stack(told)


def mask(probability_ZxHxWxN: np.ndarray) -> np.ndarray:
    """Most probable class of each voxel, uint8 (Z,H,W)."""
    return probability_ZxHxWxN.argmax(-1).astype(np.uint8)
