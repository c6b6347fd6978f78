"""A training step on one fixed batch, without augmentation, on one device: ours, and PyTorch's beside it."""

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ivdjax.bench import floor, sizes
from ivdjax.bench.sizes import Sizes
from ivdjax.bench.timing import shortest
from ivdjax.config import Experiment
from ivdjax.training import loop, optimizer
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
    start = initial_state(experiment)
    work = floor.layers(partial(train_step, experiment, _transform(experiment)), start, batch, None, jax.random.key(0))
    calls: dict[str, Callable[[], Any]] = {"ours": compiled(experiment, batch, start)}
    # By default PyTorch's threads wait busily for each other, which takes many times as long beside other work.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    with suppress(ModuleNotFoundError):
        from ivdjax.bench import torch_unet

        calls["pytorch"] = torch_unet.train_step(experiment, jax.device_get(start.params), batch)
    taken = shortest(calls, 3 * measured.rounds)
    device = floor.measure(experiment.model.dtype)
    return Step(taken["ours"], taken.get("pytorch"), floor.seconds(work, device), work, device)


def compiled(experiment: Experiment, batch: dict[str, Any], start: State) -> Callable[[], jax.Array]:
    """Return a function that makes one training step on the batch and returns its loss, which it does not wait for."""
    step = jax.jit(partial(train_step, experiment, _transform(experiment)), donate_argnums=0)
    batch, key = jax.device_put(batch), jax.random.key(experiment.seed)
    state = jax.tree.map(jnp.copy, start)  # its memory is given away

    def call() -> jax.Array:
        nonlocal state
        state, metrics = step(state, batch, None, key)
        return metrics["loss"]

    return call


def initial_state(experiment: Experiment) -> State:
    """State before the first step."""
    (state,) = jax.jit(lambda: loop.split_members(loop.initial_state(experiment, [experiment.seed])))()
    return state


def _transform(experiment: Experiment) -> optax.GradientTransformation:
    return optimizer.create(experiment.optimizer, experiment.train.steps)
