"""How should a network put slices and channels together?

    python -m experiments.ablate_fusion
    python -m experiments.ablate_fusion baseline --data.root IVDM3Seg

The networks of docs/networks.md on the same stacks: `early` is the base, with slices and channels as one set of
features; `residual` has a deeper encoder; `ivdnet` a path a channel; `attention` an encoder a slice. Widths are those
of the base, so that the networks differ in what they do and, the table tells how much, in their number of weights.
"""

from dataclasses import replace

from experiments import ablation_bases
from ivdjax import command_line
from ivdjax.config import Experiment
from ivdjax.models import IVDNet, ResidualUNet, SliceAttentionUNet


def variants(base: Experiment) -> dict[str, Experiment]:
    """The base and the other networks, as wide at each resolution."""
    model = base.model
    shared = {"classes": model.classes, "features": model.features, "dtype": model.dtype}
    deeper = {"decoder_depth": model.decoder_depth, "deep_supervision": model.deep_supervision}
    # As in nnU-Net's presets: one block at the finest resolution, three below it, then more.
    blocks = (1, 3, 4, *[6] * len(model.features))[: len(model.features)]
    return {
        "early": base,
        "residual": replace(base, model=ResidualUNet(**shared, **deeper, blocks=blocks)),
        "ivdnet": replace(base, model=IVDNet(**shared)),
        "attention": replace(base, model=SliceAttentionUNet(**shared, **deeper, depth=model.depth)),
    }


if __name__ == "__main__":
    command_line.ablation("ablate_fusion", variants, ablation_bases.bases(), __doc__)
