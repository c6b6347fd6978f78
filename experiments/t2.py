"""Discs in one channel: T2 slabs of consecutive sagittal slices, one scan a subject.

    python -m experiments.t2 --data.root FOLDER

FOLDER holds NN/NN_t2.nii.gz and NN/NN_Labels.nii.gz; `ivdjax convert spider` makes one of SPIDER's files. Six named
cases are held out; name others with `--data.hold-out`. Another single contrast is `--data.channels NAME`. On 24 slabs
of the SPIDER set: volume Dice 0.907 on the six held out, all 45 discs found, in 15 minutes on two shared cores.
`--init-from default` starts from the weights in the package, `--init-from RUN` from a run of
`experiments.phantom_pretrain`; the channel here then takes the place of water there.
"""

from ivdjax import command_line
from ivdjax.config import Data, Experiment, Train
from ivdjax.models import UNet


def experiment() -> Experiment:
    """A small 2.5D U-Net whose training fits two cores and twenty minutes."""
    return Experiment(
        name="t2",
        model=UNet(),
        data=Data(
            channels=("t2",),
            subjects="single",
            hold_out=("04", "08", "12", "16", "20", "24"),
            slices=5,
            window=(160, 160),
            foreground_share=0.67,
        ),
        init_channels=("wat",),
        train=Train(steps=1400, batch_size=8, log_every=20, validate_every=350, checkpoint_every=100),
    )


if __name__ == "__main__":
    command_line.experiment(experiment(), __doc__)
