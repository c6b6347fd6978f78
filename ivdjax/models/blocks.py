"""Layers the networks share. Shapes: B batch, H superior-inferior, W anterior-posterior, F features."""

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from ivdjax.config import Precision


class InstanceNorm(nn.Module):
    """Normalise each sample and feature over its pixels (Ulyanov et al. 2016, arXiv:1607.08022).

    Mean and variance come from one pass over the pixels in float32 and are folded with the learnt scale and offset
    into one multiply-add, which compilers fuse with the activation after it.
    """

    dtype: Precision = "float32"
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x_BxHxWxF: Array) -> Array:
        """Return an array of the same shape."""
        features = x_BxHxWxF.shape[-1]
        scale_F = self.param("scale", nn.initializers.ones, (features,))
        offset_F = self.param("offset", nn.initializers.zeros, (features,))
        x32_BxHxWxF = x_BxHxWxF.astype(jnp.float32)
        mean_Bx1x1xF = x32_BxHxWxF.mean((1, 2), keepdims=True)
        square_Bx1x1xF = jnp.square(x32_BxHxWxF).mean((1, 2), keepdims=True)
        variance_Bx1x1xF = jnp.maximum(square_Bx1x1xF - jnp.square(mean_Bx1x1xF), 0.0)
        gain_Bx1x1xF = scale_F / jnp.sqrt(variance_Bx1x1xF + self.epsilon)
        shift_Bx1x1xF = offset_F - mean_Bx1x1xF * gain_Bx1x1xF
        return (x32_BxHxWxF * gain_Bx1x1xF + shift_Bx1x1xF).astype(self.dtype)


class ConvBlock(nn.Module):
    """`depth` times: 3x3 convolution, instance norm, leaky ReLU.

    Flags, constant over a picture, shift the features of the first norm; as inputs of a convolution the norm would
    take them out again.
    """

    features: int
    depth: int = 2
    dtype: Precision = "float32"

    @nn.compact
    def __call__(self, x_BxHxWxF: Array, flags_BxC: Array | None = None) -> Array:
        """Return an array of the same height and width with `features` features."""
        for i in range(self.depth):
            x_BxHxWxF = nn.Conv(self.features, (3, 3), use_bias=False, dtype=self.dtype)(x_BxHxWxF)
            x_BxHxWxF = InstanceNorm(self.dtype)(x_BxHxWxF)
            if flags_BxC is not None and not i:
                shift = nn.Dense(
                    self.features, use_bias=False, dtype=self.dtype, kernel_init=nn.initializers.zeros, name="flags"
                )
                x_BxHxWxF += shift(flags_BxC)[:, None, None]
            x_BxHxWxF = nn.leaky_relu(x_BxHxWxF, 0.01)
        return x_BxHxWxF


class Downsample(nn.Module):
    """Halve height and width by a learnt 2x2 convolution with stride 2, written as one matrix product."""

    features: int
    dtype: Precision = "float32"

    @nn.compact
    def __call__(self, x_BxHxWxF: Array) -> Array:
        """Return (B, H/2, W/2, features); H and W must be even."""
        B, H, W, F = x_BxHxWxF.shape
        x_BxhxwxG = x_BxHxWxF.reshape(B, H // 2, 2, W // 2, 2, F).swapaxes(2, 3).reshape(B, H // 2, W // 2, 4 * F)
        return nn.Dense(self.features, use_bias=False, dtype=self.dtype)(x_BxhxwxG)


class Upsample(nn.Module):
    """Double height and width by a learnt 2x2 transposed convolution with stride 2, as one matrix product."""

    features: int
    dtype: Precision = "float32"

    @nn.compact
    def __call__(self, x_BxHxWxF: Array) -> Array:
        """Return (B, 2H, 2W, features)."""
        B, H, W, _ = x_BxHxWxF.shape
        x_BxHxWxG = nn.Dense(4 * self.features, use_bias=False, dtype=self.dtype)(x_BxHxWxF)
        return x_BxHxWxG.reshape(B, H, W, 2, 2, self.features).swapaxes(2, 3).reshape(B, 2 * H, 2 * W, self.features)
