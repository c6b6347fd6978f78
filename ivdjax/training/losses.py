"""Segmentation losses: a value a sample, which the training step averages over the batch."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax
from jax import Array

from ivdjax.config import Loss

# Pixels added to both parts of the soft Dice ratio, so that a slice without discs has one and the loss is smooth.
DICE_SMOOTHING = 1.0


def soft_dice_loss(logits_BxHxWxN: Array, label_BxHxW: Array) -> Array:
    """Return 1 - soft Dice a sample (B,), averaged over all classes but the background (arXiv:1606.04797)."""
    N = logits_BxHxWxN.shape[-1]
    probability_BxHxWxM = jax.nn.softmax(logits_BxHxWxN)[..., 1:]
    target_BxHxWxM = jax.nn.one_hot(label_BxHxW, N)[..., 1:]
    both_BxM = (probability_BxHxWxM * target_BxHxWxM).sum((1, 2))
    sizes_BxM = (probability_BxHxWxM + target_BxHxWxM).sum((1, 2))
    return 1.0 - ((2.0 * both_BxM + DICE_SMOOTHING) / (sizes_BxM + DICE_SMOOTHING)).mean(-1)


def cross_entropy(logits_BxHxWxN: Array, label_BxHxW: Array) -> Array:
    """Return the cross-entropy a sample (B,), averaged over its pixels, in nats."""
    label_BxHxW = label_BxHxW.astype(jnp.int32)
    return optax.softmax_cross_entropy_with_integer_labels(logits_BxHxWxN, label_BxHxW).mean((1, 2))


def segmentation_loss(
    logits_BxHxWxN: Array, coarse: Sequence[Array], label_BxHxW: Array, config: Loss
) -> dict[str, Array]:
    """Weighted sum of soft Dice and cross-entropy, with deep supervision (Lee 2015, arXiv:1409.5185).

    Args:
        logits_BxHxWxN: at full resolution.
        coarse: logits at coarser resolutions, finest first; their label is every second (fourth, ...) pixel.
        label_BxHxW: class of each pixel.
        config: the weights.

    Returns:
        `loss` and its parts at full resolution, each a value a sample (B,).
    """
    dice_B, entropy_B = soft_dice_loss(logits_BxHxWxN, label_BxHxW), cross_entropy(logits_BxHxWxN, label_BxHxW)
    total_B = config.dice_weight * dice_B + config.cross_entropy_weight * entropy_B
    weight, weights = config.deep_supervision_weight, 1.0
    for level, coarse_BxhxwxN in enumerate(coarse, 1):
        stride = 2**level
        small_Bxhxw = label_BxHxW[:, ::stride, ::stride]
        # The network pads to what its resolutions need, so its coarse maps may reach beyond the label.
        cropped = coarse_BxhxwxN[:, : small_Bxhxw.shape[1], : small_Bxhxw.shape[2]]
        part_B = config.dice_weight * soft_dice_loss(cropped, small_Bxhxw)
        total_B += weight * (part_B + config.cross_entropy_weight * cross_entropy(cropped, small_Bxhxw))
        weights, weight = weights + weight, weight / 2
    return {"loss": total_B / weights, "dice_loss": dice_B, "cross_entropy": entropy_B}
