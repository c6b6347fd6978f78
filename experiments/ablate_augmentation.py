"""Which random changes of the samples help?

    python -m experiments.ablate_augmentation
    python -m experiments.ablate_augmentation baseline --data.root IVDM3Seg

All parts together are the base; each is left out in turn, and all at once. On a phantom, which lacks most of what they
stand for, this tells that they run, not what they are worth.
"""

from dataclasses import fields, replace

from experiments import ablation_bases
from ivdjax import command_line
from ivdjax.config import Augment, Experiment

PARTS = {
    "affine": ("rotation_degrees", "log_scale", "log_stretch", "shift_voxels"),
    "flip": ("flip",),
    "mix": ("mix",),
    "swap": ("swap",),
    "decay": ("decay",),
    "bias": ("bias",),
    "blur": ("blur_voxels", "blur_through"),
    "tone": ("gain", "offset", "log_gamma"),
    "noise": ("noise",),
}


def variants(base: Experiment) -> dict[str, Experiment]:
    """The base, and the base without one part or without any; parts that are off in the base are passed over."""

    def without(*names: str) -> Experiment:
        return replace(base, augment=replace(base.augment, **dict.fromkeys(names, 0.0)))

    present = {part: names for part, names in PARTS.items() if any(getattr(base.augment, name) for name in names)}
    left_out = {f"without_{part}": without(*names) for part, names in present.items()}
    # Channel dropout and what fresh phantoms draw belong to what a network is for.
    every = [field.name for field in fields(Augment) if field.name not in ("channel_dropout", "tissue", "foreign")]
    return {"all": base, **left_out, "none": without(*every)}


if __name__ == "__main__":
    command_line.ablation("ablate_augmentation", variants, ablation_bases.bases(), __doc__)
