"""Which Dixon channels does a network need?

    python -m experiments.ablate_channels
    python -m experiments.ablate_channels baseline --data.root IVDM3Seg

Each channel alone, all but each, and all of them, the base; every variant is trained with the channels it has. (What
one network does without a channel it was trained with is another question: `--augment.channel-dropout`.) The first
line is a cross-validation of each on a small digital phantom, whose contrasts are cleaner than a patient's.
"""

from dataclasses import replace

from experiments import ablation_bases
from ivdjax import command_line
from ivdjax.config import Experiment


def variants(base: Experiment) -> dict[str, Experiment]:
    """The base, and what is left of it with one channel and without one."""
    channels = base.data.channels

    def of(*kept: str) -> Experiment:
        return replace(base, data=replace(base.data, channels=kept))

    alone = {f"{channel}_alone": of(channel) for channel in channels}
    without = {f"without_{channel}": of(*(other for other in channels if other != channel)) for channel in channels}
    return {"all": base, **without, **alone} if len(channels) > 2 else {"all": base, **alone}


if __name__ == "__main__":
    command_line.ablation("ablate_channels", variants, ablation_bases.bases(), __doc__)
