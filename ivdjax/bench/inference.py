"""Seconds a case takes to segment, once everything is compiled."""

import numpy as np

from ivdjax.bench import step
from ivdjax.bench.sizes import Sizes
from ivdjax.bench.timing import shortest
from ivdjax.inference import predict


def measure(sizes: Sizes) -> float:
    """Seconds from the normalised volume in memory to its probabilities there, with the left-right flip."""
    experiment = sizes.experiment
    params = step.initial_state(experiment).params
    shape_ZxHxWxC = (*sizes.volume, len(experiment.data.channels))
    image_ZxHxWxC = np.random.default_rng(0).normal(size=shape_ZxHxWxC).astype(np.float16)
    slices, config = experiment.data.slices, experiment.predict

    def segment() -> np.ndarray:
        return predict.probability(experiment.model, params, image_ZxHxWxC, slices, config)

    return shortest({"case": segment}, min(sizes.rounds, 3))["case"]
