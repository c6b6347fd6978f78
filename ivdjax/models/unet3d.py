"""3D U-Net on patches of a few whole or cropped slices."""

from flax import linen as nn
from jax import Array

from ivdjax.config import Precision
from ivdjax.models import blocks
from ivdjax.models.blocks import WHOLE_LOGITS, ConvBlock, Downsample


class UNet3D(nn.Module):
    """3D U-Net (Cicek 2016, arXiv:1606.06650) that takes a stack for a patch and segments all of its slices.

    Slices of IVDM3Seg are further apart than pixels, so, as nnU-Net plans for such data (Isensee 2021, doi
    10.1038/s41592-020-01008-z), kernels at the finest resolutions lie within a slice. A patch has few slices: their
    number is kept, only height and width are halved. Training learns from all slices of the patch, and prediction
    averages overlapping patches (`inference.predict`); the slices beyond the ends of a patch are zero to a kernel.
    """

    # Tells training that the labels of all slices are wanted, and prediction that their logits are offered.
    whole_stack = True

    classes: int = 2
    """N, classes of a voxel with the background."""
    features: tuple[int, ...] = (16, 32, 64, 128, 192)
    """Features at each resolution, finest first."""
    depth: int = 2
    """Convolutions at each resolution of the encoder."""
    decoder_depth: int = 1
    """Convolutions at each resolution of the decoder."""
    flat: int = 1
    """Resolutions, from the finest, whose kernels are 1x3x3; those below have 3x3x3."""
    deep_supervision: bool = False
    """Also learn from logits at the coarser resolutions of the decoder."""
    dtype: Precision = "float32"
    """Type of the arithmetic; parameters, norms and logits stay in float32."""

    @nn.compact
    def __call__(self, stack_BxKxHxWxC: Array, present_BxC: Array | None = None) -> Array:
        """Segment the centre slice of each stack; arguments and result as of `UNet`.

        The logits_BxKxHxWxN of all slices are sown into the collection `whole_stack` where it is mutable.
        """
        K, H, W, _ = stack_BxKxHxWxC.shape[1:]
        x_BxKxHxWxF = blocks.pad(stack_BxKxHxWxC, len(self.features) - 1).astype(self.dtype)
        absent_BxC = None if present_BxC is None else 1 - present_BxC
        skips = []
        for level, features in enumerate(self.features):
            if level:
                x_BxKxHxWxF = Downsample(features, self.dtype)(x_BxKxHxWxF)
            block = ConvBlock(features, self.depth, self.dtype, self._kernel(level), name=f"ConvBlock_{level}")
            x_BxKxHxWxF = block(x_BxKxHxWxF, absent_BxC)
            skips.append(x_BxKxHxWxF)

        def upwards(level: int, name: str) -> nn.Module:
            return ConvBlock(self.features[level], self.decoder_depth, self.dtype, self._kernel(level), name=name)

        logits_BxKxHxWxN = blocks.decode(self, skips, upwards)[:, :, :H, :W]
        self.sow(*WHOLE_LOGITS, logits_BxKxHxWxN, reduce_fn=blocks.newest)
        return logits_BxKxHxWxN[:, K // 2]

    def _kernel(self, level: int) -> tuple[int, int, int]:
        return (1, 3, 3) if level < self.flat else (3, 3, 3)
