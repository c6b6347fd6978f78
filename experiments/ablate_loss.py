"""Which loss should a network learn by?

    python -m experiments.ablate_loss
    python -m experiments.ablate_loss baseline --data.root IVDM3Seg

Soft Dice and cross-entropy together are the base. Beside it: each of them alone, the Tversky loss, which counts misses
more than false voxels, the focal loss, and the boundary loss beside soft Dice. Its weight is small since it counts in
voxels of distance.
"""

from dataclasses import replace

from experiments import ablation_bases
from ivdjax import command_line
from ivdjax.config import Experiment


def variants(base: Experiment) -> dict[str, Experiment]:
    """The base, and losses in its place."""

    def by(**weights: float) -> Experiment:
        nothing = {"dice_weight": 0.0, "cross_entropy_weight": 0.0}
        return replace(base, loss=replace(base.loss, **{**nothing, **weights}))

    return {
        "dice_ce": base,
        "dice": by(dice_weight=1.0),
        "ce": by(cross_entropy_weight=1.0),
        "tversky": by(tversky_weight=1.0),
        "focal": by(focal_weight=1.0),
        "dice_boundary": by(dice_weight=1.0, boundary_weight=0.05),
    }


if __name__ == "__main__":
    command_line.ablation("ablate_loss", variants, ablation_bases.bases(), __doc__)
