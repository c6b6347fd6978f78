"""IVD-Net: a path for each channel, densely connected to all others."""

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from ivdjax.config import Precision
from ivdjax.models import blocks
from ivdjax.models.blocks import ConvNorm


class IVDNet(nn.Module):
    """IVD-Net (Dolz 2018, arXiv:1811.08305), which fuses channels at every layer.

    Each channel has its own encoder. The input of a path at a lower resolution is what all paths gave at the one above,
    its own first and the others after it in turn, with what that path got there, so every path is connected densely
    within and across (as in HyperDenseNet, arXiv:1804.02967). Blocks are inception modules extended by dilated
    convolutions. One decoder averages what comes up with what all paths give at its resolution.

    Topology and numbers of features follow the paper and its authors' code (github.com/josedolz/IVD-Net). Named
    departures: instance norm in place of batch norm, since a batch is small and spread over devices, and so no bias in
    a convolution before a norm; what a path got above is halved by averaging, where the code takes its middle part,
    whose pixels are those of other places; a path takes the K slices of its channel, the paper one; widths that
    16 does not divide are padded inside.
    """

    classes: int = 2
    """N, classes of a voxel with the background."""
    features: tuple[int, ...] = (32, 64, 128, 256, 512)
    """Features of a path at each resolution, finest first; the last are those of the bridge that ends all paths."""
    dtype: Precision = "float32"
    """Type of the arithmetic; parameters, norms and logits stay in float32."""

    @nn.compact
    def __call__(self, stack_BxKxHxWxC: Array, present_BxC: Array | None = None) -> Array:
        """Segment the centre slice of each stack; arguments and result as of `UNet`."""
        H, W, C = stack_BxKxHxWxC.shape[2:]
        padded_BxKxHxWxC = blocks.pad(stack_BxKxHxWxC, len(self.features) - 1).astype(self.dtype)
        absent_BxC = None if present_BxC is None else 1 - present_BxC

        inputs = [padded_BxKxHxWxC[..., path].transpose(0, 2, 3, 1) for path in range(C)]
        summed = []
        for level, features in enumerate(self.features[:-1]):
            paths = [
                Inception(features, True, self.dtype, name=f"path_{path}_{level}")(inputs[path], absent_BxC)
                for path in range(C)
            ]
            summed.append(sum(paths))
            pooled = [nn.max_pool(x_BxHxWxF, (2, 2), (2, 2)) for x_BxHxWxF in paths]
            # What the channels themselves were is not handed on, only what a layer made of them.
            own = [[nn.avg_pool(x_BxHxWxF, (2, 2), (2, 2))] if level else [] for x_BxHxWxF in inputs]
            inputs = [jnp.concatenate([*pooled[path:], *pooled[:path], *own[path]], -1) for path in range(C)]

        x_BxHxWxF = Inception(self.features[-1], True, self.dtype, name="bridge")(inputs[0], absent_BxC)
        for level in reversed(range(len(summed))):
            features = self.features[level]
            upsample = nn.ConvTranspose(
                features, (3, 3), (2, 2), use_bias=False, dtype=self.dtype, name=f"upsample_{level}"
            )
            x_BxHxWxF = nn.relu(blocks.InstanceNorm(self.dtype, name=f"norm_{level}")(upsample(x_BxHxWxF)))
            x_BxHxWxF = (x_BxHxWxF + summed[level]) / (C + 1)
            x_BxHxWxF = Inception(features, False, self.dtype, name=f"decoder_{level}")(x_BxHxWxF)
        logits = nn.Conv(self.classes, (3, 3), name="logits")(x_BxHxWxF.astype(jnp.float32))
        return logits[:, :H, :W]


class Inception(nn.Module):
    """Convolution; beside each other kernels of 1, 3 and 5 pixels and of 3 dilated 2 and 4 times; convolution."""

    features: int
    asymmetric: bool
    """Whether each of those kernels is a column and then a row."""
    dtype: Precision = "float32"

    @nn.compact
    def __call__(self, x_BxHxWxG: Array, flags_BxC: Array | None = None) -> Array:
        """Return (B, H, W, features); flags shift the features of the first norm."""
        first_BxHxWxF = nn.relu(ConvNorm(self.features, dtype=self.dtype)(x_BxHxWxG, flags_BxC))
        branches = []
        for size, dilation in ((1, 1), (3, 1), (5, 1), (3, 2), (3, 4)):
            x_BxHxWxF = first_BxHxWxF
            for kernel in ((size, 1), (1, size)) if self.asymmetric else ((size, size),):
                x_BxHxWxF = nn.relu(ConvNorm(self.features, kernel, 1, dilation, self.dtype)(x_BxHxWxF))
            branches.append(x_BxHxWxF)
        joined_BxHxWxG = jnp.concatenate(branches, -1)
        joined_BxHxWxF = nn.relu(ConvNorm(self.features, (1, 1), dtype=self.dtype)(joined_BxHxWxG))
        return nn.relu(ConvNorm(self.features, dtype=self.dtype)(first_BxHxWxF + joined_BxHxWxF))
