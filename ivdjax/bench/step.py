"""A training step on one fixed batch, without augmentation, on one device: ours, and PyTorch's beside it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any

import jax
import jax.numpy as jnp

from ivdjax.bench import floor, sizes
from ivdjax.bench.sizes import Sizes
from ivdjax.bench.timing import shortest
from ivdjax.config import Experiment
from ivdjax.training import optimizer
from ivdjax.training import state as training_state
from ivdjax.training.state import State
from ivdjax.training.step import train_step


@dataclass(frozen=True)
class Step:
    """What a step takes, and what it would at least."""

    seconds: float
    """Of our step."""
    pytorch_seconds: float | None
    """Of PyTorch's; None where there is no PyTorch."""
    floor_seconds: float
    """Its convolutions and matrix products at the device's measured peak and bandwidth."""
    layers: list[floor.Layer]
    """Those convolutions and products."""
    device: floor.Device
    """That peak and bandwidth."""


def measure(measured: Sizes) -> Step:
    """Time both steps in turn, and work out the floor."""
    experiment = sizes.without_augmentation(measured.experiment)
    batch = sizes.fixed_batch(experiment)
    calls = {"ours": compiled(experiment, batch)}
    if find_spec("torch") is not None:
        from ivdjax.bench import torch_unet

        params = jax.device_get(initial_state(experiment).params)
        calls["pytorch"] = torch_unet.train_step(experiment, params, batch)
    taken = shortest(calls, measured.rounds)
    work = floor.layers(partial(_gradients, experiment), initial_state(experiment), batch)
    device = floor.measure(experiment.model.dtype)
    return Step(taken["ours"], taken.get("pytorch"), floor.seconds(work, device), work, device)


def compiled(experiment: Experiment, batch: dict[str, Any]) -> Callable[[], jax.Array]:
    """Return a function that makes one training step on the batch and returns its loss, which it does not wait for."""
    transform = optimizer.create(experiment.optimizer, experiment.train.steps)
    step = jax.jit(partial(train_step, experiment, transform), donate_argnums=0)
    state, batch, key = initial_state(experiment), jax.device_put(batch), jax.random.key(experiment.seed)

    def call() -> jax.Array:
        nonlocal state
        state, metrics = step(state, batch, None, key)
        return metrics["loss"]

    return call


def initial_state(experiment: Experiment) -> State:
    """State before the first step."""
    data = experiment.data
    shape = (1, data.slices, *data.window, len(data.channels))
    transform = optimizer.create(experiment.optimizer, experiment.train.steps)
    create = partial(training_state.create, experiment.model, transform, shape)
    return jax.jit(create)(jax.random.key(experiment.seed))


def _gradients(experiment: Experiment, state: State, batch: dict[str, Any]) -> Any:
    transform = optimizer.create(experiment.optimizer, experiment.train.steps)
    return train_step(experiment, transform, state, jax.tree.map(jnp.asarray, batch), None, jax.random.key(0))
