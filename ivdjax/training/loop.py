"""The training loop, top to bottom: devices, data, state, restore, loop."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from ivdjax.config import Experiment
from ivdjax.data import pipeline, pool
from ivdjax.data.cache import CachedCase
from ivdjax.inference import predict
from ivdjax.training import optimizer, parallel
from ivdjax.training import state as training_state
from ivdjax.training.checkpoint import Checkpoints
from ivdjax.training.logbook import Logbook
from ivdjax.training.state import Params, State
from ivdjax.training.step import train_step


def train(
    experiment: Experiment,
    cases: Sequence[CachedCase],
    held_out: Sequence[CachedCase],
    folder: Path,
    start_params: Params | None = None,
) -> None:
    """Train from the newest checkpoint in `folder/checkpoints`, or from scratch, to the last step, and save it.

    A run that was killed and resumed ends bit for bit as one that was not, on the same machine: batches are addressed
    by the pipeline's saved position, random changes by step and sample.

    Args:
        experiment: what to train and how.
        cases: to learn from; none are needed where phantoms are drawn while training.
        held_out: scored on the way; they never change the weights.
        folder: of the run.
        start_params: weights to start from where there is no checkpoint; None draws random ones.

    Raises:
        DataError: a checkpoint cannot be read.
        UsageError: the batch does not fit the devices.
    """
    config = experiment.train

    # Devices.
    mesh = parallel.mesh(config.batch_size)

    # Data.
    process, processes = jax.process_index(), jax.process_count()
    if experiment.data.fresh.per_step:
        iterator = pipeline.weights(config.batch_size // processes)
    else:
        iterator = pipeline.batches(cases, experiment.data, config.batch_size, experiment.seed, process, processes)

    # State.
    transform = optimizer.create(experiment.optimizer, config.steps)
    key = jax.random.key(experiment.seed)
    initial = partial(initial_state, experiment)
    step_fn = parallel.compile_step(partial(train_step, experiment, transform), mesh)

    # Restore.
    checkpoints = Checkpoints(folder / "checkpoints")
    start = checkpoints.latest or 0
    state = parallel.place_state(initial, mesh)
    if start:
        state = checkpoints.restore(start, state, iterator)
    elif start_params is not None:
        own = jax.tree.map(lambda new, old: parallel.like(old, new), start_params, state.params)
        state = state.replace(params=own, mean_params=jax.tree.map(jnp.copy, own))
    if experiment.data.fresh.per_step:
        state = state.replace(pool=parallel.place_state(lambda: pool.create(key, start, experiment.data), mesh))

    # Loop: score, save, next batch, step. The last step is scored and saved, too.
    recent = []
    with Logbook(folder, config.steps, start, config.batch_size, active=process == 0) as logbook:
        for step in range(start, config.steps + 1):
            last, fresh = step == config.steps, step > start
            due = fresh and (last or step % config.log_every == 0)
            if due and recent:
                logbook.train(step, _means(recent))
                recent = []
            score = None
            if held_out and config.validate_every and fresh and (last or step % config.validate_every == 0):
                score = volume_dice(experiment, state, held_out)
                logbook.validation(step, {"dice": score})
            if fresh and (last or step % config.checkpoint_every == 0 or score is not None):
                checkpoints.save(step, state.replace(pool=None), iterator, score)
            if last:
                break
            batch = parallel.place_batch(next(iterator), mesh)
            state, metrics = step_fn(state, batch, key)
            recent.append(metrics)
            logbook.advance(step + 1)
    checkpoints.close()


def initial_state(experiment: Experiment) -> State:
    """State before the first step of an experiment; pure, so its shapes can be had without its values."""
    data = experiment.data
    shape = (1, data.slices, *data.window, len(data.channels))
    transform = optimizer.create(experiment.optimizer, experiment.train.steps)
    return training_state.create(
        experiment.model, transform, shape, jax.random.key(experiment.seed), experiment.subsets
    )


def volume_dice(experiment: Experiment, state: State, cases: Sequence[CachedCase]) -> float:
    """Mean over cases of the Dice of whole masks, predicted with the mean weights."""
    present_C = np.ones(len(experiment.data.channels), np.float32) if experiment.subsets else None
    scores = []
    for case in cases:
        image_ZxHxWxC = np.asarray(case.image_ZxHxWxC)
        chances = predict.probability(
            experiment.model, state.mean_params, image_ZxHxWxC, experiment.data.slices, experiment.predict, present_C
        )
        found, wanted = predict.mask(chances) > 0, np.asarray(case.label_ZxHxW) > 0
        scores.append(2 * (found & wanted).sum() / max(found.sum() + wanted.sum(), 1))
    return float(np.mean(scores))


def _means(rows: list[dict[str, jax.Array]]) -> dict[str, float]:
    rows = jax.device_get(rows)
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
