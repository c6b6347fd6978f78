"""placeholder."""

from ivdjax.config import Data, Experiment, Train
from ivdjax.models import UNet


def experiment() -> Experiment:
    """One T2 channel, one scan a subject."""
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
        train=Train(steps=1900, batch_size=8, log_every=20, validate_every=400, checkpoint_every=200),
    )
