"""How many slices does a network need to see, and how should it see them?

    python -m experiments.ablate_context
    python -m experiments.ablate_context baseline --data.root IVDM3Seg --folds all

K = 1 is the 2D network, K = 5 the base; `attention` has its slices encoded one by one and fused by attention, `3d` is a
3D network on patches of seven slices, all of which it segments. A step learns from as many labelled slices whichever
way, so a batch of the 3D network has as many fewer patches. The first line is a cross-validation of each on a small
digital phantom.
"""

from dataclasses import replace

from experiments import ablation_bases
from ivdjax import command_line
from ivdjax.config import Experiment
from ivdjax.models import SliceAttentionUNet, UNet3D

_PATCH = 7


def variants(base: Experiment) -> dict[str, Experiment]:
    """Stacks of 1, 3, 5 and 7 slices, attention across those of the base, and patches in three dimensions."""

    def stacks(slices: int) -> Experiment:
        return replace(base, data=replace(base.data, slices=slices))

    model = base.model
    names = ("classes", "features", "depth", "decoder_depth", "deep_supervision", "dtype")
    shared = {name: getattr(model, name) for name in names}
    patches = max(1, round(base.train.batch_size / _PATCH))
    return {
        **{f"k{slices}": stacks(slices) for slices in (1, 3, 5, 7)},
        "attention": replace(base, model=SliceAttentionUNet(**shared)),
        "3d": replace(stacks(_PATCH), model=UNet3D(**shared), train=replace(base.train, batch_size=patches)),
    }


if __name__ == "__main__":
    command_line.ablation("ablate_context", variants, ablation_bases.bases(), __doc__)
