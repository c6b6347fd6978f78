"""Segmentation losses: a value a sample, which the training step averages over the batch.

L labelled slices of a sample, the centre one or all of a patch, are one picture to a loss.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax
from jax import Array

from ivdjax.config import Loss
from ivdjax.training.distance import signed_distance

# Pixels added to both parts of the soft Dice ratio, so that a slice without discs has one and the loss is smooth.
DICE_SMOOTHING = 1.0


def soft_dice_loss(logits_BxLxHxWxN: Array, label_BxLxHxW: Array) -> Array:
    """Return 1 - soft Dice a sample (B,), averaged over all classes but the background (arXiv:1606.04797)."""
    return tversky_loss(logits_BxLxHxWxN, label_BxLxHxW, misses=0.5)


def tversky_loss(logits_BxLxHxWxN: Array, label_BxLxHxW: Array, misses: float) -> Array:
    """Return 1 - Tversky index a sample (B,), averaged over all classes but the background (arXiv:1706.05721).

    Args:
        logits_BxLxHxWxN: class scores.
        label_BxLxHxW: class of each pixel.
        misses: weight of missed pixels; that of false ones is 1 - misses. One half is soft Dice.
    """
    N = logits_BxLxHxWxN.shape[-1]
    probability_BxLxHxWxM = jax.nn.softmax(logits_BxLxHxWxN)[..., 1:]
    target_BxLxHxWxM = jax.nn.one_hot(label_BxLxHxW, N)[..., 1:]
    pixels = (1, 2, 3)
    both_BxM = (probability_BxLxHxWxM * target_BxLxHxWxM).sum(pixels)
    # Missed and false pixels weigh as the sizes of the label and of the answer, less what both share.
    sizes_BxM = (2 * (1 - misses) * probability_BxLxHxWxM + 2 * misses * target_BxLxHxWxM).sum(pixels)
    return 1.0 - ((2.0 * both_BxM + DICE_SMOOTHING) / (sizes_BxM + DICE_SMOOTHING)).mean(-1)


def cross_entropy(logits_BxLxHxWxN: Array, label_BxLxHxW: Array) -> Array:
    """Return the cross-entropy a sample (B,), averaged over its pixels, in nats."""
    return focal_loss(logits_BxLxHxWxN, label_BxLxHxW, gamma=0.0)


def focal_loss(logits_BxLxHxWxN: Array, label_BxLxHxW: Array, gamma: float) -> Array:
    """Return the focal loss a sample (B,): cross-entropy, each pixel's times (1 - p) ** gamma (arXiv:1708.02002).

    p is the probability of the pixel's true class, so pixels that are right already weigh little.
    """
    label_BxLxHxW = label_BxLxHxW.astype(jnp.int32)
    entropy_BxLxHxW = optax.softmax_cross_entropy_with_integer_labels(logits_BxLxHxWxN, label_BxLxHxW)
    if gamma:
        # -expm1(-entropy) is 1 - p, kept from 0, where a power has no gradient.
        entropy_BxLxHxW *= jnp.maximum(-jnp.expm1(-entropy_BxLxHxW), 1e-6) ** gamma
    return entropy_BxLxHxW.mean((1, 2, 3))


def boundary_loss(logits_BxLxHxWxN: Array, label_BxLxHxW: Array) -> Array:
    """Return the boundary loss a sample (B,), averaged over pixels and all classes but the background.

    The probability of a class times the distance to its boundary in the plane, in pixels, negative inside (Kervadec
    2019, arXiv:1812.07032); a slice without the class adds nothing. It pulls on boundaries that lie nearly right and
    is meant beside a loss over regions.
    """
    N = logits_BxLxHxWxN.shape[-1]
    probability_BxLxHxWxM = jax.nn.softmax(logits_BxLxHxWxN)[..., 1:]
    inside_MxBxLxHxW = label_BxLxHxW == jnp.arange(1, N)[:, None, None, None, None]
    H, W = label_BxLxHxW.shape[2:]
    distance_SxHxW = jax.vmap(signed_distance)(inside_MxBxLxHxW.reshape(-1, H, W))
    distance_MxBxLxHxW = distance_SxHxW.reshape(inside_MxBxLxHxW.shape)
    return (probability_BxLxHxWxM * jnp.moveaxis(distance_MxBxLxHxW, 0, -1)).mean((1, 2, 3, 4))


def segmentation_loss(
    logits_BxLxHxWxN: Array, coarse: Sequence[Array], label_BxLxHxW: Array, config: Loss
) -> dict[str, Array]:
    """Weighted sum of losses, with deep supervision (Lee 2015, arXiv:1409.5185).

    Args:
        logits_BxLxHxWxN: at full resolution.
        coarse: logits_BxLxhxwxN at coarser resolutions, finest first; their label is every second (fourth, ...) pixel.
        label_BxLxHxW: class of each pixel.
        config: the weights.

    Returns:
        `loss`, and soft Dice and cross-entropy at full resolution, each a value a sample (B,).
    """
    dice_B, entropy_B = soft_dice_loss(logits_BxLxHxWxN, label_BxLxHxW), cross_entropy(logits_BxLxHxWxN, label_BxLxHxW)
    total_B = config.dice_weight * dice_B + config.cross_entropy_weight * entropy_B
    total_B += _others(logits_BxLxHxWxN, label_BxLxHxW, config)
    weight, weights = config.deep_supervision_weight, 1.0
    for level, coarse_BxLxhxwxN in enumerate(coarse, 1):
        stride = 2**level
        small_BxLxhxw = label_BxLxHxW[:, :, ::stride, ::stride]
        # The network pads to what its resolutions need, so its coarse maps may reach beyond the label.
        cropped = coarse_BxLxhxwxN[:, :, : small_BxLxhxw.shape[2], : small_BxLxhxw.shape[3]]
        part_B = config.dice_weight * soft_dice_loss(cropped, small_BxLxhxw)
        part_B += config.cross_entropy_weight * cross_entropy(cropped, small_BxLxhxw)
        total_B += weight * (part_B + _others(cropped, small_BxLxhxw, config))
        weights, weight = weights + weight, weight / 2
    return {"loss": total_B / weights, "dice_loss": dice_B, "cross_entropy": entropy_B}


def _others(logits_BxLxHxWxN: Array, label_BxLxHxW: Array, config: Loss) -> Array:
    """Weighted sum of the losses that are left out of the program where their weight is zero."""
    total_B = jnp.zeros(len(logits_BxLxHxWxN))
    if config.tversky_weight:
        total_B += config.tversky_weight * tversky_loss(logits_BxLxHxWxN, label_BxLxHxW, config.tversky_misses)
    if config.focal_weight:
        total_B += config.focal_weight * focal_loss(logits_BxLxHxWxN, label_BxLxHxW, config.focal_gamma)
    if config.boundary_weight:
        total_B += config.boundary_weight * boundary_loss(logits_BxLxHxWxN, label_BxLxHxW)
    return total_B
