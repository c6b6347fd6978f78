import dataclasses

import pytest

from ivdjax.bench.sizes import NO_AUGMENTATION, Sizes
from ivdjax.config import Data, Experiment, Train
from ivdjax.models import UNet


@pytest.fixture
def tiny():
    """Sizes at which everything is measured in seconds."""
    experiment = Experiment(
        name="tiny",
        model=UNet(features=(4,), depth=1),
        data=Data(slices=3, window=(16, 24), threads=1),
        augment=dataclasses.replace(NO_AUGMENTATION, gain=0.1),
        train=Train(batch_size=8),
    )
    return Sizes(experiment, volume=(6, 32, 24), cases=2, rounds=2, steps=2)
