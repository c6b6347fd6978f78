"""Layers the networks share.

Shapes: B batch, F features, X the axes of the pixels: H superior-inferior and W anterior-posterior, with K slices
before them in three dimensions. G stands for the features of a layer's input where they differ from F.
"""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from ivdjax.config import Precision

# Where a network leaves its coarser logits_BxLxhxwxN for deep supervision: collection and name for `sow`.
COARSE_LOGITS = ("deep_supervision", "coarse_logits")
# Where a network that segments all slices of its stack leaves their logits_BxKxHxWxN.
WHOLE_LOGITS = ("whole_stack", "whole_logits")


def newest(_: object, new: object) -> object:
    """How `sow` leaves one value instead of a list of them."""
    return new


def labelled_slices(model: nn.Module, K: int) -> int:
    """L, slices of a stack whose labels a network learns from: all K where it says `whole_stack`, else the centre."""
    return K if getattr(model, "whole_stack", False) else 1


class InstanceNorm(nn.Module):
    """Normalise each sample and feature over its pixels (Ulyanov et al. 2016, arXiv:1607.08022).

    Mean and variance come from one pass over the pixels in float32 and are folded with the learnt scale and offset
    into one multiply-add, which compilers fuse with the activation after it.
    """

    dtype: Precision = "float32"
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x_BxXxF: Array) -> Array:
        """Return an array of the same shape."""
        features, pixels = x_BxXxF.shape[-1], tuple(range(1, x_BxXxF.ndim - 1))
        scale_F = self.param("scale", nn.initializers.ones, (features,))
        offset_F = self.param("offset", nn.initializers.zeros, (features,))
        x32_BxXxF = x_BxXxF.astype(jnp.float32)
        mean_Bx1xF = x32_BxXxF.mean(pixels, keepdims=True)
        square_Bx1xF = jnp.square(x32_BxXxF).mean(pixels, keepdims=True)
        variance_Bx1xF = jnp.maximum(square_Bx1xF - jnp.square(mean_Bx1xF), 0.0)
        gain_Bx1xF = scale_F / jnp.sqrt(variance_Bx1xF + self.epsilon)
        shift_Bx1xF = offset_F - mean_Bx1xF * gain_Bx1xF
        return (x32_BxXxF * gain_Bx1xF + shift_Bx1xF).astype(self.dtype)


class FlagShift(nn.Module):
    """Shift features by what flags, constant over a picture, say; nothing before it is trained.

    It belongs behind a norm: as inputs of a convolution before it the norm would take the flags out again.
    """

    dtype: Precision = "float32"

    @nn.compact
    def __call__(self, x_BxXxF: Array, flags_BxC: Array) -> Array:
        """Return an array of the first one's shape."""
        kernel_CxF = self.param("kernel", nn.initializers.zeros, (flags_BxC.shape[-1], x_BxXxF.shape[-1]))
        shift_BxF = flags_BxC.astype(self.dtype) @ kernel_CxF.astype(self.dtype)
        return x_BxXxF + jnp.expand_dims(shift_BxF, range(1, x_BxXxF.ndim - 1))


class ConvNorm(nn.Module):
    """Convolution and instance norm, and a shift by flags where there are any."""

    features: int
    kernel: tuple[int, ...] = (3, 3)
    stride: int = 1
    dilation: int = 1
    dtype: Precision = "float32"

    @nn.compact
    def __call__(self, x_BxXxG: Array, flags_BxC: Array | None = None) -> Array:
        """Return (B, X / stride, features)."""
        convolve = nn.Conv(
            self.features,
            self.kernel,
            strides=self.stride,
            kernel_dilation=self.dilation,
            use_bias=False,
            dtype=self.dtype,
        )
        x_BxXxF = InstanceNorm(self.dtype)(convolve(x_BxXxG))
        return x_BxXxF if flags_BxC is None else FlagShift(self.dtype, name="flags")(x_BxXxF, flags_BxC)


class ConvBlock(nn.Module):
    """`depth` times: convolution, instance norm, leaky ReLU. Flags shift the features of the first norm."""

    features: int
    depth: int = 2
    dtype: Precision = "float32"
    kernel: tuple[int, ...] = (3, 3)

    @nn.compact
    def __call__(self, x_BxXxF: Array, flags_BxC: Array | None = None) -> Array:
        """Return an array of the same height and width with `features` features."""
        for i in range(self.depth):
            x_BxXxF = nn.Conv(self.features, self.kernel, use_bias=False, dtype=self.dtype)(x_BxXxF)
            x_BxXxF = InstanceNorm(self.dtype)(x_BxXxF)
            if flags_BxC is not None and not i:
                x_BxXxF = FlagShift(self.dtype, name="flags")(x_BxXxF, flags_BxC)
            x_BxXxF = nn.leaky_relu(x_BxXxF, 0.01)
        return x_BxXxF


class Downsample(nn.Module):
    """Halve height and width by a learnt 2x2 convolution with stride 2, written as one matrix product."""

    features: int
    dtype: Precision = "float32"

    @nn.compact
    def __call__(self, x_BxXxF: Array) -> Array:
        """Return (B, .., H/2, W/2, features); H and W must be even."""
        *before, H, W, F = x_BxXxF.shape
        x_Bxhx2xwx2xF = x_BxXxF.reshape(*before, H // 2, 2, W // 2, 2, F)
        x_BxhxwxG = x_Bxhx2xwx2xF.swapaxes(-4, -3).reshape(*before, H // 2, W // 2, 4 * F)
        return nn.Dense(self.features, use_bias=False, dtype=self.dtype)(x_BxhxwxG)


class Upsample(nn.Module):
    """Double height and width by a learnt 2x2 transposed convolution with stride 2, as one matrix product."""

    features: int
    dtype: Precision = "float32"

    @nn.compact
    def __call__(self, x_BxXxF: Array) -> Array:
        """Return (B, .., 2H, 2W, features)."""
        *before, H, W, _ = x_BxXxF.shape
        x_BxXxG = nn.Dense(4 * self.features, use_bias=False, dtype=self.dtype)(x_BxXxF)
        x_BxHxWx2x2xF = x_BxXxG.reshape(*before, H, W, 2, 2, self.features)
        return x_BxHxWx2x2xF.swapaxes(-4, -3).reshape(*before, 2 * H, 2 * W, self.features)


def pad(stack_BxKxHxWxC: Array, levels: int) -> Array:
    """Repeat the last row and column until height and width can be halved `levels` times."""
    H, W = stack_BxKxHxWxC.shape[2:4]
    return jnp.pad(stack_BxKxHxWxC, [(0, 0), (0, 0), (0, -H % 2**levels), (0, -W % 2**levels), (0, 0)], mode="edge")


def decode(network: nn.Module, skips: Sequence[Array], block: Callable[[int, str], nn.Module]) -> Array:
    """The decoder of a U-Net, in layers of the network that calls this.

    Args:
        network: has `classes`, `deep_supervision` and `dtype`. Coarser logits_BxLxhxwxN, finest first, are sown into
            its collection `deep_supervision` where that is mutable and the field is set.
        skips: features_BxXxF at each resolution, finest first; decoding begins at the last.
        block: makes the block of a resolution from its level, 0 the finest, and a name.

    Returns:
        logits_BxXxN in float32.
    """
    *skips, x_BxXxF = skips
    coarse: list[Array] = []
    for level in reversed(range(len(skips))):
        upsample = Upsample(skips[level].shape[-1], network.dtype, name=f"Upsample_{len(skips) - 1 - level}")
        x_BxXxF = jnp.concatenate([upsample(x_BxXxF), skips[level]], -1)
        x_BxXxF = block(level, f"ConvBlock_{2 * len(skips) - level}")(x_BxXxF)
        if network.deep_supervision and level:
            of_level = logits(x_BxXxF, network.classes, f"coarse_logits_{level}")
            coarse.insert(0, of_level if of_level.ndim == 5 else of_level[:, None])
    if network.deep_supervision:
        network.sow(*COARSE_LOGITS, tuple(coarse), reduce_fn=newest)
    return logits(x_BxXxF, network.classes, "logits")


def logits(x_BxXxF: Array, classes: int, name: str) -> Array:
    """Class scores of each pixel, logits_BxXxN in float32, by a layer of the network that calls this."""
    return nn.Dense(classes, name=name)(x_BxXxF.astype(jnp.float32))
