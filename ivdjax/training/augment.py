"""Random changes of training samples: on the accelerator, under jit, each a pure function of a key.

The geometric part is one affine map in the plane of the slices, the same for all slices of a stack and for the label,
and a left-right flip, which reverses the order of the slices. The intensity part is in `contrast`.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array

from ivdjax.config import Augment
from ivdjax.training import contrast


def augment(
    key: Array, stack_KxHxWxC: Array, label_LxHxW: Array, config: Augment, channels: Sequence[str]
) -> tuple[Array, Array, Array]:
    """Change one sample.

    Args:
        key: of this sample alone.
        stack_KxHxWxC: normalised intensities.
        label_LxHxW: classes of the L middle slices.
        config: how strong each part is; a part of strength zero is left out of the program.
        channels: names of the C channels; physics that needs fat, inn, opp or wat by name is left out without them.

    Returns:
        The stack in float32 and the label, of the same shapes, and present_C, 0 for channels that were dropped.
    """
    mixing, geometry, flip, fading, bias, bend, tone, blur, grain, loss = jax.random.split(key, 10)
    stack_KxHxWxC = stack_KxHxWxC.astype(jnp.float32)
    if config.mix or config.swap:
        stack_KxHxWxC = contrast.remix(mixing, stack_KxHxWxC, channels, config)
    if config.rotation_degrees or config.log_scale or config.log_stretch or config.shift_voxels:
        stack_KxHxWxC, label_LxHxW = affine(geometry, stack_KxHxWxC, label_LxHxW, config)
    if config.flip:
        reverse = jax.random.bernoulli(flip, config.flip)
        stack_KxHxWxC = jnp.where(reverse, stack_KxHxWxC[::-1], stack_KxHxWxC)
        label_LxHxW = jnp.where(reverse, label_LxHxW[::-1], label_LxHxW)
    if config.blur_voxels or config.blur_through:
        stack_KxHxWxC = contrast.blur(blur, stack_KxHxWxC, config)
    shading = config.decay or config.bias or config.curve or config.invert or config.noise
    if shading or config.gain or config.offset or config.log_gamma:
        low_C, high_C = stack_KxHxWxC.min((0, 1, 2)), stack_KxHxWxC.max((0, 1, 2))
        range_C = jnp.maximum(high_C - low_C, 1e-3)
        unit_KxHxWxC = (stack_KxHxWxC - low_C) / range_C
        if config.decay:
            unit_KxHxWxC = contrast.decay(fading, unit_KxHxWxC, channels, config)
        if config.bias:
            unit_KxHxWxC = contrast.bias_field(bias, unit_KxHxWxC, config)
        if config.curve or config.invert:
            unit_KxHxWxC = contrast.curve(bend, unit_KxHxWxC, config)
        if config.noise:
            unit_KxHxWxC = add_noise(grain, unit_KxHxWxC, range_C, config)
        stack_KxHxWxC = change_tone(tone, unit_KxHxWxC, low_C, range_C, config)
    stack_KxHxWxC, present_C = contrast.drop_channels(loss, stack_KxHxWxC, config)
    return stack_KxHxWxC, label_LxHxW, present_C


def affine(key: Array, stack_KxHxWxC: Array, label_LxHxW: Array, config: Augment) -> tuple[Array, Array]:
    """Rotate, zoom, stretch and shift about the window's centre; linear for the stack, nearest for the label."""
    K, H, W, C = stack_KxHxWxC.shape
    turn, zoom, stretch, shift = jax.random.split(key, 4)
    angle = jnp.deg2rad(config.rotation_degrees) * jax.random.normal(turn)
    log_zoom = config.log_scale * jax.random.normal(zoom)
    log_stretch = config.log_stretch * jax.random.normal(stretch) / 2
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    scale_2 = jnp.exp(-(log_zoom + jnp.array([log_stretch, -log_stretch])))
    matrix_2x2 = jnp.array([[cos, -sin], [sin, cos]]) * scale_2[:, None]
    centre_2 = jnp.array([H - 1, W - 1]) / 2
    grid_HxWx2 = jnp.stack(jnp.meshgrid(jnp.arange(H), jnp.arange(W), indexing="ij"), -1)
    shift_2 = config.shift_voxels * jax.random.normal(shift, (2,))
    # Written out: a matrix product may run in reduced precision on an accelerator, which would shake the positions.
    source_HxWx2 = ((grid_HxWx2 - centre_2)[..., None, :] * matrix_2x2).sum(-1) + centre_2 + shift_2
    source_HxWx2 = jnp.clip(source_HxWx2, 0, jnp.array([H - 1, W - 1]))

    low_HxWx2 = jnp.clip(jnp.floor(source_HxWx2).astype(jnp.int32), 0, jnp.array([max(H - 2, 0), max(W - 2, 0)]))
    part_HxWx2 = source_HxWx2 - low_HxWx2
    # Slices and channels last and pixels in one axis: then a pixel is one run of memory, fetched at once.
    pixels_PxD = stack_KxHxWxC.transpose(1, 2, 0, 3).reshape(H * W, K * C)
    first_HxW = low_HxWx2[..., 0] * W + low_HxWx2[..., 1]
    moved_HxWxD = jnp.zeros((H, W, K * C))
    for down, right in ((0, 0), (0, min(1, W - 1)), (min(1, H - 1), 0), (min(1, H - 1), min(1, W - 1))):
        weight_HxW = (part_HxWx2[..., 0] if down else 1 - part_HxWx2[..., 0]) * (
            part_HxWx2[..., 1] if right else 1 - part_HxWx2[..., 1]
        )
        moved_HxWxD += weight_HxW[..., None] * pixels_PxD[first_HxW + down * W + right]
    nearest_HxWx2 = jnp.round(source_HxWx2).astype(jnp.int32)
    nearest_HxW = nearest_HxWx2[..., 0] * W + nearest_HxWx2[..., 1]
    moved_label_HxWxL = label_LxHxW.reshape(-1, H * W).T[nearest_HxW]
    return moved_HxWxD.reshape(H, W, K, C).transpose(2, 0, 1, 3), moved_label_HxWxL.transpose(2, 0, 1)


def change_tone(key: Array, unit_KxHxWxC: Array, low_C: Array, range_C: Array, config: Augment) -> Array:
    """Bring intensities of 0..1 back to their range, with a random gain, offset and gamma a channel.

    Gamma acts on the intensities brought to 0..1 over the window, as in nnU-Net's augmentation.
    """
    gain, offset, gamma = jax.random.split(key, 3)
    C = unit_KxHxWxC.shape[-1]
    if config.log_gamma:
        gamma_C = jnp.exp(config.log_gamma * jax.random.normal(gamma, (C,)))
        unit_KxHxWxC = jnp.maximum(unit_KxHxWxC, 1e-6) ** gamma_C
    gain_C = jnp.exp(config.gain * jax.random.normal(gain, (C,)))
    return (unit_KxHxWxC * range_C + low_C) * gain_C + config.offset * jax.random.normal(offset, (C,))


def add_noise(key: Array, unit_KxHxWxC: Array, range_C: Array, config: Augment) -> Array:
    """Add noise of a standard deviation drawn evenly between zero and `config.noise`, of the normalised stack."""
    strength, grain = jax.random.split(key)
    return contrast.noise(grain, unit_KxHxWxC, config.noise * jax.random.uniform(strength) / range_C)
