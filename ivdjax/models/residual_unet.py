"""2.5D U-Net with a residual encoder."""

from flax import linen as nn
from jax import Array

from ivdjax.config import Precision
from ivdjax.models import blocks
from ivdjax.models.blocks import ConvBlock, ConvNorm


class ResidualUNet(nn.Module):
    """U-Net with the residual encoder of nnU-Net's ResEnc presets (Isensee 2024, arXiv:2404.09556), early fusion.

    The encoder's blocks are those of ResNet-D (He 2019, arXiv:1812.01187): two convolutions beside a shortcut that
    averages where the resolution falls and is projected where the features change. One convolution a resolution
    decodes. As in those presets a convolution with stride 2 halves the resolution and most blocks lie low; numbers of
    features are fewer, and the shape of patches is not planned from the data.
    """

    classes: int = 2
    """N, classes of a voxel with the background."""
    features: tuple[int, ...] = (16, 32, 64, 128, 192)
    """Features at each resolution, finest first."""
    blocks: tuple[int, ...] = (1, 3, 4, 6, 6)
    """Residual blocks at each resolution of the encoder."""
    decoder_depth: int = 1
    """Convolutions at each resolution of the decoder."""
    deep_supervision: bool = False
    """Also learn from logits at the coarser resolutions of the decoder."""
    dtype: Precision = "float32"
    """Type of the arithmetic; parameters, norms and logits stay in float32."""

    @nn.compact
    def __call__(self, stack_BxKxHxWxC: Array, present_BxC: Array | None = None) -> Array:
        """Segment the centre slice of each stack; arguments and result as of `UNet`."""
        H, W = stack_BxKxHxWxC.shape[2:4]
        padded_BxKxHxWxC = blocks.pad(stack_BxKxHxWxC, len(self.features) - 1).astype(self.dtype)
        B, _, height, width, _ = padded_BxKxHxWxC.shape
        x_BxHxWxF = padded_BxKxHxWxC.transpose(0, 2, 3, 1, 4).reshape(B, height, width, -1)

        absent_BxC = None if present_BxC is None else 1 - present_BxC
        x_BxHxWxF = ConvBlock(self.features[0], 1, self.dtype, name="stem")(x_BxHxWxF, absent_BxC)
        skips = []
        for level, (features, count) in enumerate(zip(self.features, self.blocks, strict=True)):
            for i in range(count):
                stride = 2 if level and not i else 1
                block = ResidualBlock(features, stride, self.dtype, name=f"block_{level}_{i}")
                x_BxHxWxF = block(x_BxHxWxF, absent_BxC if not i else None)
            skips.append(x_BxHxWxF)

        def upwards(level: int, name: str) -> nn.Module:
            return ConvBlock(self.features[level], self.decoder_depth, self.dtype, name=name)

        return blocks.decode(self, skips, upwards)[:, :H, :W]


class ResidualBlock(nn.Module):
    """Two convolutions with norms, beside a shortcut; leaky ReLU between them and after the sum."""

    features: int
    stride: int = 1
    dtype: Precision = "float32"

    @nn.compact
    def __call__(self, x_BxHxWxG: Array, flags_BxC: Array | None = None) -> Array:
        """Return (B, H / stride, W / stride, features); flags shift the features of the first norm."""
        first = ConvNorm(self.features, stride=self.stride, dtype=self.dtype)
        x_BxHxWxF = nn.leaky_relu(first(x_BxHxWxG, flags_BxC), 0.01)
        x_BxHxWxF = ConvNorm(self.features, dtype=self.dtype)(x_BxHxWxF)
        shortcut_BxHxWxG = x_BxHxWxG
        if self.stride > 1:
            window = (self.stride, self.stride)
            shortcut_BxHxWxG = nn.avg_pool(shortcut_BxHxWxG, window, strides=window)
        if shortcut_BxHxWxG.shape[-1] != self.features:
            shortcut_BxHxWxG = ConvNorm(self.features, (1, 1), dtype=self.dtype)(shortcut_BxHxWxG)
        return nn.leaky_relu(x_BxHxWxF + shortcut_BxHxWxG, 0.01)
