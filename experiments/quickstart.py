"""The first run: a digital phantom of eight scans, six to learn from, two of another subject to score.

    python -m experiments.quickstart

Draws the phantom, trains a small network, scores the held-out subject and writes runs/quickstart/report.html. Its
figures tell that everything works, and nothing about patients: all 14 discs found and a Dice of 0.92, in three
minutes on two cores.
"""

from ivdjax import command_line
from ivdjax.config import Data, Experiment, Phantom, Train
from ivdjax.models import UNet


def experiment() -> Experiment:
    """A small U-Net on small phantoms."""
    return Experiment(
        name="quickstart",
        model=UNet(features=(16, 32, 64, 96)),
        data=Data(
            phantom=Phantom(cases=8, shape=(24, 224, 144)),
            fold=3,
            slices=3,
            window=(128, 128),
            foreground_share=0.67,
        ),
        train=Train(steps=300, batch_size=8, validate_every=150, checkpoint_every=100),
    )


if __name__ == "__main__":
    command_line.experiment(experiment(), __doc__)
