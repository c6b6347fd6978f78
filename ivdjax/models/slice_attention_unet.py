"""2.5D U-Net whose slices are encoded alike and fused by attention."""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from ivdjax.config import Precision
from ivdjax.models import blocks
from ivdjax.models.blocks import ConvBlock, Downsample


class SliceAttentionUNet(nn.Module):
    """U-Net with one encoder for all slices of a stack, whose features are fused by attention at each resolution.

    Attention across slices follows CAT-Net (Hung 2022, arXiv:2203.15163) and CSA-Net (Kumar 2024, arXiv:2405.00130):
    the centre slice asks, all slices answer. Here a pixel asks the pixels at its own place in the K slices alone, which
    are aligned, so the cost grows with K and not with the number of pixels; that leaves these papers' attention within
    a slice to the convolutions.
    """

    classes: int = 2
    """N, classes of a voxel with the background."""
    features: tuple[int, ...] = (16, 32, 64, 128, 192)
    """Features at each resolution, finest first."""
    depth: int = 2
    """Convolutions at each resolution of the encoder."""
    decoder_depth: int = 1
    """Convolutions at each resolution of the decoder."""
    heads: int = 4
    """Answers, each with weights of its own over the slices, of which a pixel's is put together; divides features."""
    deep_supervision: bool = False
    """Also learn from logits at the coarser resolutions of the decoder."""
    dtype: Precision = "float32"
    """Type of the arithmetic; parameters, norms, attention weights and logits stay in float32."""

    @nn.compact
    def __call__(self, stack_BxKxHxWxC: Array, present_BxC: Array | None = None) -> Array:
        """Segment the centre slice of each stack; arguments and result as of `UNet`."""
        B, K, H, W, _ = stack_BxKxHxWxC.shape
        padded_BxKxHxWxC = blocks.pad(stack_BxKxHxWxC, len(self.features) - 1).astype(self.dtype)
        # To the encoder each slice is a sample.
        x_MxHxWxF = padded_BxKxHxWxC.reshape(B * K, *padded_BxKxHxWxC.shape[2:])
        absent_MxC = None if present_BxC is None else jnp.repeat(1 - present_BxC, K, axis=0)
        skips = []
        for level, features in enumerate(self.features):
            if level:
                x_MxHxWxF = Downsample(features, self.dtype)(x_MxHxWxF)
            encode = ConvBlock(features, self.depth, self.dtype, name=f"ConvBlock_{level}")
            x_MxHxWxF = encode(x_MxHxWxF, absent_MxC)
            attend = SliceAttention(self.heads, self.dtype, name=f"attention_{level}")
            skips.append(attend(x_MxHxWxF.reshape(B, K, *x_MxHxWxF.shape[1:])))

        def upwards(level: int, name: str) -> nn.Module:
            return ConvBlock(self.features[level], self.decoder_depth, self.dtype, name=name)

        return blocks.decode(self, skips, upwards)[:, :H, :W]


class SliceAttention(nn.Module):
    """Attention (Vaswani 2017, arXiv:1706.03762) of each pixel of the centre slice to its place in all K slices."""

    heads: int
    dtype: Precision = "float32"

    @nn.compact
    def __call__(self, x_BxKxHxWxF: Array) -> Array:
        """Return the centre slice's features_BxHxWxF with what the slices add to them."""
        B, K, H, W, F = x_BxKxHxWxF.shape
        centre_BxHxWxF = x_BxKxHxWxF[:, K // 2]
        # A slice is told from the others by its distance to the centre one, in slices.
        place_KxF = self.param("place", nn.initializers.normal(0.02), (K, F)).astype(self.dtype)
        placed_BxKxHxWxF = x_BxKxHxWxF + place_KxF[:, None, None]
        query_BxHxWxF = nn.Dense(F, dtype=self.dtype, name="query")(centre_BxHxWxF)
        key_BxKxHxWxF = nn.Dense(F, dtype=self.dtype, name="key")(placed_BxKxHxWxF)
        value_BxKxHxWxF = nn.Dense(F, dtype=self.dtype, name="value")(placed_BxKxHxWxF)

        by_head = (self.heads, F // self.heads)
        query_BxHxWxNxD = query_BxHxWxF.reshape(B, H, W, *by_head)
        key_BxKxHxWxNxD = key_BxKxHxWxF.reshape(B, K, H, W, *by_head)
        # Written as a sum of products, which compilers fuse; as a matrix product each pixel would be a tiny one.
        match_BxKxHxWxN = (query_BxHxWxNxD[:, None] * key_BxKxHxWxNxD).sum(-1, dtype=jnp.float32)
        weight_BxKxHxWxN = jax.nn.softmax(match_BxKxHxWxN / math.sqrt(by_head[1]), axis=1).astype(self.dtype)
        value_BxKxHxWxNxD = value_BxKxHxWxF.reshape(B, K, H, W, *by_head)
        answer_BxHxWxF = (weight_BxKxHxWxN[..., None] * value_BxKxHxWxNxD).sum(1).reshape(B, H, W, F)
        return centre_BxHxWxF + nn.Dense(F, dtype=self.dtype, name="out")(answer_BxHxWxF)
