"""Weights for a start: a network that has seen nothing but digital phantoms, each drawn while it trains.

    python -m experiments.phantom_pretrain

Every step draws a new subject, gives its tissues contrasts of their own, images it, and takes channels away, so that
the network learns what discs are like under any contrast and whatever channels are there. Start another experiment
from it with `--init-from runs/phantom_pretrain`. In 43 minutes on two cores that other work shared: volume Dice 0.899
on two scans of a phantom subject it has not seen. The weights in the package (`--init-from default`) are of this run.
"""

from ivdjax import command_line
from ivdjax.config import Augment, Data, Experiment, Fresh, Optimizer, Phantom, Train
from ivdjax.models import UNet


def experiment() -> Experiment:
    """The network of `experiments.t2` in four channels, any of which may be missing."""
    return Experiment(
        name="phantom_pretrain",
        model=UNet(),
        data=Data(
            phantom=Phantom(cases=2, shape=(36, 224, 160)),
            fresh=Fresh(per_step=1),
            slices=5,
            window=(144, 144),
        ),
        augment=Augment(
            rotation_degrees=10.0,
            mix=0.0,
            swap=0.1,
            decay=0.2,
            bias=0.2,
            curve=0.08,
            invert=0.05,
            blur_voxels=1.2,
            blur_through=0.6,
            gain=0.25,
            noise=0.25,
            channel_dropout=0.9,
        ),
        optimizer=Optimizer(ema_decay=0.995),
        train=Train(steps=1600, batch_size=8, validate_every=500, checkpoint_every=100),
    )


if __name__ == "__main__":
    command_line.experiment(experiment(), __doc__)
