"""What augmentation costs of a training step of the baseline network.

    python tests/benchmarks/bench_augment.py [stacks a step]

Both are compiled and timed alone; both grow with the number of stacks, so a few tell the share.
"""

import dataclasses
import os
import platform
import sys
import time
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from experiments import baseline
from ivdjax.training import augment, loop, optimizer
from ivdjax.training.step import train_step

REPEATS = 5


def seconds(call: Callable[[], object]) -> float:
    """Shortest of a few timings of a compiled call: what other programs add is left out as far as can be."""
    jax.block_until_ready(call())
    took = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        jax.block_until_ready(call())
        took.append(time.perf_counter() - began)
    return min(took)


def main() -> None:
    """Time and print."""
    B = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    experiment = baseline.experiment()
    experiment = dataclasses.replace(experiment, train=dataclasses.replace(experiment.train, batch_size=B))
    data, key = experiment.data, jax.random.key(0)
    batch = {
        "stack": jax.random.normal(key, (B, data.slices, *data.window, len(data.channels)), jnp.float16),
        "label": jnp.zeros((B, *data.window), jnp.uint8),
        "weight": jnp.ones(B),
    }
    state = jax.jit(partial(loop.initial_state, experiment))()
    step = jax.jit(partial(train_step, experiment, optimizer.create(experiment.optimizer, 100)))

    @jax.jit
    def change(keys, stack, label):
        config, channels = experiment.augment, data.channels
        return jax.vmap(augment.augment, (0, 0, 0, None, None))(keys, stack, label, config, channels)

    keys = jax.random.split(key, B)
    augmenting = seconds(lambda: change(keys, batch["stack"], batch["label"]))
    training = seconds(lambda: step(state, batch, key))
    device = jax.devices()[0]
    print(f"machine: {device.device_kind} ({platform.machine()}, {os.cpu_count()} cores), jax {jax.__version__}")
    print(f"{B} stacks of {data.slices} x {data.window[0]} x {data.window[1]}, {len(data.channels)} channels")
    print(f"augmentation {augmenting:.3f} s, whole step {training:.3f} s: {augmenting / training:.1%}")


if __name__ == "__main__":
    main()
