"""What augmentation costs of a training step."""

from functools import partial

import jax

from ivdjax.bench import sizes, step
from ivdjax.bench.sizes import Sizes
from ivdjax.bench.timing import shortest
from ivdjax.training import augment


def share(measured: Sizes) -> float:
    """Seconds of the augmentation alone over those of a whole step with it, both compiled by themselves."""
    experiment = measured.experiment
    batch = jax.device_put(sizes.fixed_batch(experiment))
    change = partial(augment.augment, config=experiment.augment, channels=experiment.data.channels)
    changed = jax.jit(jax.vmap(change))
    keys_B = jax.random.split(jax.random.key(0), experiment.train.batch_size)
    calls = {
        "augmentation": lambda: changed(keys_B, batch["stack"], batch["label"]),
        "step": step.compiled(experiment, batch, step.initial_state(experiment)),
    }
    taken = shortest(calls, measured.rounds)
    return taken["augmentation"] / taken["step"]
