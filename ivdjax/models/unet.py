"""2.5D U-Net with early fusion of slices and channels."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from ivdjax.config import Precision
from ivdjax.models.blocks import ConvBlock, Downsample, Upsample

# Where a network leaves its coarser logits for deep supervision: collection and name for `sow`.
COARSE_LOGITS = ("deep_supervision", "coarse_logits")


class UNet(nn.Module):
    """U-Net (Ronneberger 2015, arXiv:1505.04597) on a stack whose slices and channels enter as one set of features.

    Instance norm and leaky ReLU as in nnU-Net (Isensee 2021, doi 10.1038/s41592-020-01008-z); resolution changes by
    learnt 2x2 steps. Any height and width is taken: the stack is padded inside to what the resolutions need.
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
        B, K, H, W, C = stack_BxKxHxWxC.shape
        coarsest = 2 ** (len(self.features) - 1)
        padding = [(0, 0), (0, -H % coarsest), (0, -W % coarsest), (0, 0)]
        x_BxHxWxF = stack_BxKxHxWxC.transpose(0, 2, 3, 1, 4).reshape(B, H, W, K * C).astype(self.dtype)
        x_BxHxWxF = jnp.pad(x_BxHxWxF, padding, mode="edge")

        absent_BxC = None if present_BxC is None else 1 - present_BxC
        block = nn.remat(ConvBlock) if self.remat else ConvBlock
        skips = []
        for level, features in enumerate(self.features):
            if level:
                x_BxHxWxF = Downsample(features, self.dtype)(x_BxHxWxF)
            x_BxHxWxF = block(features, self.depth, self.dtype, name=f"ConvBlock_{level}")(x_BxHxWxF, absent_BxC)
            skips.append(x_BxHxWxF)
        skips.pop()
        for level in reversed(range(len(skips))):
            features = self.features[level]
            x_BxHxWxF = jnp.concatenate([Upsample(features, self.dtype)(x_BxHxWxF), skips[level]], -1)
            name = f"ConvBlock_{2 * len(skips) - level}"
            x_BxHxWxF = block(features, self.decoder_depth, self.dtype, name=name)(x_BxHxWxF)
            if self.deep_supervision and level:
                coarse_BxHxWxN = nn.Dense(self.classes, name=f"coarse_logits_{level}")(x_BxHxWxF.astype(jnp.float32))
                self.sow(*COARSE_LOGITS, coarse_BxHxWxN, reduce_fn=lambda old, new: (new, *old), init_fn=tuple)
        return nn.Dense(self.classes, name="logits")(x_BxHxWxF.astype(jnp.float32))[:, :H, :W]

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
