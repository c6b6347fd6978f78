"""2.5D U-Net with early fusion of slices and channels."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from ivdjax.config import Precision
from ivdjax.models import blocks
from ivdjax.models.blocks import ConvBlock, Downsample


class UNet(nn.Module):
    """U-Net (Ronneberger 2015, arXiv:1505.04597) on a stack whose slices and channels enter as one set of features.

    Instance norm and leaky ReLU as in nnU-Net (Isensee 2021, doi 10.1038/s41592-020-01008-z); resolution changes by
    learnt 2x2 steps. Any height and width is taken: the stack is padded inside to what the resolutions need. With a
    stack of one slice it is the 2D U-Net.
    """

    classes: int = 2
    """N, classes of a voxel with the background."""
    features: tuple[int, ...] = (16, 32, 64, 128, 192)
    """Features at each resolution, finest first."""
    depth: int = 2
    """Convolutions at each resolution of the encoder."""
    decoder_depth: int = 1
    """Convolutions at each resolution of the decoder."""
    deep_supervision: bool = False
    """Also learn from logits at the coarser resolutions of the decoder."""
    dtype: Precision = "float32"
    """Type of the arithmetic; parameters, norms and logits stay in float32."""
    remat: bool = False
    """Compute each block's inside again for the gradients instead of keeping it: less memory, a third more work."""

    @nn.compact
    def __call__(self, stack_BxKxHxWxC: Array, present_BxC: Array | None = None) -> Array:
        """Segment the centre slice of each stack.

        Args:
            stack_BxKxHxWxC: K neighbouring sagittal slices with C channels, normalised; 0 where a channel is absent.
            present_BxC: 1 for channels that are there, 0 for absent ones; for networks that are trained to do without
                some. None: all are there, and the network has no weights for flags.

        Returns:
            logits_BxHxWxN in float32. Coarser logits, finest first, are sown into the collection `deep_supervision`
            where it is mutable and `deep_supervision` is set.
        """
        H, W = stack_BxKxHxWxC.shape[2:4]
        padded_BxKxHxWxC = blocks.pad(stack_BxKxHxWxC, len(self.features) - 1).astype(self.dtype)
        B, _, height, width, _ = padded_BxKxHxWxC.shape
        x_BxHxWxF = padded_BxKxHxWxC.transpose(0, 2, 3, 1, 4).reshape(B, height, width, -1)

        absent_BxC = None if present_BxC is None else 1 - present_BxC
        block = nn.remat(ConvBlock) if self.remat else ConvBlock
        skips = []
        for level, features in enumerate(self.features):
            if level:
                x_BxHxWxF = Downsample(features, self.dtype)(x_BxHxWxF)
            x_BxHxWxF = block(features, self.depth, self.dtype, name=f"ConvBlock_{level}")(x_BxHxWxF, absent_BxC)
            skips.append(x_BxHxWxF)

        def upwards(level: int, name: str) -> nn.Module:
            return block(self.features[level], self.decoder_depth, self.dtype, name=name)

        return blocks.decode(self, skips, upwards)[:, :H, :W]

    def keep_channels(self, params: dict, channels: int, kept: tuple[int, ...], flags: bool) -> dict:
        """Weights of the same network on some of its channels, which answers as this one does without the others.

        Args:
            params: of this network.
            channels: C of its stacks.
            kept: places of the channels that stay, in their new order.
            flags: whether the new network is told which of the kept are present.

        Returns:
            Params of the new network. The shift that the absence of the others makes is put into the norms.
        """
        params = jax.tree.map(jnp.asarray, params)
        lost = [c for c in range(channels) if c not in kept]
        first = params["ConvBlock_0"]["Conv_0"]
        height, width, KC, F = first["kernel"].shape
        kernel = first["kernel"].reshape(height, width, KC // channels, channels, F)[..., list(kept), :]
        first["kernel"] = kernel.reshape(height, width, -1, F)
        for level, features in enumerate(self.features):
            block = params[f"ConvBlock_{level}"]
            told = block.pop("flags", {"kernel": jnp.zeros((channels, features))})["kernel"]
            block["InstanceNorm_0"]["offset"] += told[lost, :].sum(0)
            if flags:
                block["flags"] = {"kernel": told[list(kept), :]}
        return params
