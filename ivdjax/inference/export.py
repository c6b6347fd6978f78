"""Trained networks as one file of StableHLO, which jax alone runs, without ivdjax.

The file is what `jax.export` serializes (https://docs.jax.dev/en/latest/export/export.html): the networks with their
weights, for CPUs, CUDA and TPUs at once, and for any number of stacks and any size of slice. Beside it lies
`export.json`, which says what goes in and what comes out.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, export

from ivdjax import files
from ivdjax.config import Experiment
from ivdjax.inference import predict
from ivdjax.models import labelled_slices

FILE, CARD = "network.stablehlo", "export.json"
PLATFORMS = ("cpu", "cuda", "tpu")
# Heights and widths are multiples of this, as networks are given them by `predict`.
SIZE_STEP = 32
_FORMAT = 1


def write(folder: Path, experiment: Experiment, params: Sequence[dict]) -> None:
    """Write networks that answer together, and what must be known of their input.

    Args:
        folder: to make.
        experiment: theirs.
        params: weights of each network; their probabilities, and those of the flipped view where the experiment has
            it, are averaged.

    Raises:
        DataError: the folder cannot be written.
        UsageError: it is there and not empty.
    """
    program = serialize(experiment, params)
    with files.making(folder) as partial:
        (partial / FILE).write_bytes(program)
        files.write_json(partial / CARD, _card(experiment, len(params)))


def serialize(experiment: Experiment, params: Sequence[dict]) -> bytes:
    """The program probability_BxLxHxWxN = f(stack_BxKxHxWxC), float32, with the weights in it; arguments as `write`.

    Networks that take subsets of channels have a second argument, present_BxC. L is 1, the centre slice, or K for
    networks that segment all slices of a stack.
    """
    data, model, flip = experiment.data, experiment.model, experiment.predict.flip

    def probability(stack_BxKxHxWxC: Array, *present_BxC: Array) -> Array:
        told = [predict.stack_probability(model, flip, member, stack_BxKxHxWxC, *present_BxC) for member in params]
        return jnp.concatenate(told).mean(0)

    C = len(data.channels)
    stack, present = export.symbolic_args_specs(
        (np.zeros((1, data.slices, SIZE_STEP, SIZE_STEP, C), np.float32), np.zeros((1, C), np.float32)),
        (f"B, {data.slices}, {SIZE_STEP}*h, {SIZE_STEP}*w, {C}", f"B, {C}"),
    )
    inputs = (stack, present) if experiment.subsets else (stack,)
    return bytes(export.export(jax.jit(probability), platforms=PLATFORMS)(*inputs).serialize())


def _card(experiment: Experiment, networks: int) -> dict[str, Any]:
    data = experiment.data
    inputs = {
        "stack": {
            "shape": ["B", data.slices, f"{SIZE_STEP} h", f"{SIZE_STEP} w", len(data.channels)],
            "axes": "stack, sagittal slice towards the patient's right, superior to inferior, anterior to posterior, "
            "channel",
        }
    }
    if experiment.subsets:
        inputs["present"] = {"shape": ["B", len(data.channels)], "axes": "stack, channel: 1 where it is there, else 0"}
    return {
        "format": _FORMAT,
        "name": experiment.name,
        "networks": networks,
        "jax": jax.__version__,
        "platforms": list(PLATFORMS),
        "channels": list(data.channels),
        "slices": data.slices,
        "labelled_slices": labelled_slices(experiment.model, data.slices),
        "size_step": SIZE_STEP,
        "clip_percentiles": list(data.clip_percentiles),
        "inputs": inputs,
    }
