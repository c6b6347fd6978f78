"""The training loop, top to bottom: devices, data, state, restore, loop."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

import grain
import jax
import jax.numpy as jnp
import numpy as np

from ivdjax.config import Experiment
from ivdjax.data import pipeline, pool, stacks
from ivdjax.data.cache import CachedCase
from ivdjax.data.pipeline import Batch
from ivdjax.data.splits import Member
from ivdjax.errors import DataError, Preempted
from ivdjax.inference import predict
from ivdjax.models import labelled_slices
from ivdjax.training import distributed, optimizer, parallel, preemption
from ivdjax.training import state as training_state
from ivdjax.training.checkpoint import Checkpoints
from ivdjax.training.logbook import Logbook
from ivdjax.training.state import Params, State
from ivdjax.training.step import Metrics, train_step
from ivdjax.training.trackers import NO_TRACKING, Tracking

_DEVICE_SHARE = 0.25  # of a device's free memory that volumes may take; a step needs the rest


def train(
    experiment: Experiment,
    members: Sequence[Member],
    cases: Sequence[CachedCase],
    folder: Path,
    start_params: Params | None = None,
    tracking: Tracking = NO_TRACKING,
    started: Callable[[int], object] = lambda step: None,
) -> list[Params]:
    """Train from the newest checkpoint in `folder/checkpoints`, or from scratch, to the last step, and save it.

    A run that was killed and resumed ends bit for bit as one that was not, on the same machine: batches are addressed
    by the pipeline's saved position, random changes by step and sample. Resumed on other devices it ends as one that
    was trained there, to rounding.

    Args:
        experiment: what to train and how.
        members: the networks to train beside each other, which cases each learns from and which are held out; the
            latter are scored on the way and never change its weights.
        cases: of the whole run.
        folder: of the run.
        start_params: weights to start from where there is no checkpoint; None draws random ones.
        tracking: also told of what is logged, on the first process.
        started: told the step that training goes on from, once that is sure.

    Returns:
        The mean weights of each network, of the checkpoint that `experiment.predict` names, as NumPy arrays.

    Raises:
        DataError: no checkpoint that is there is sound, one cannot be saved, a file of a case cannot be read, or the
            loss is not finite any more.
        UsageError: the batch does not fit the devices.
        Preempted: SIGTERM came; a checkpoint was saved.
    """
    config, F = experiment.train, len(members)

    # Devices and data.
    spread = parallel.spread(config, F)
    volumes, iterator = _data(experiment, members, cases, spread)
    per_call = parallel.steps_per_call(config, on_host=volumes is None and not experiment.data.fresh.per_step)

    # A call: steps of all networks.
    keys = spread.make(partial(_keys, members))
    step_fn = spread.compile(partial(train_step, experiment, optimizer.create(experiment.optimizer, config.steps)))

    def call(states: list[State], batches: list[Batch]) -> tuple[list[State], list[Metrics]]:
        return step_fn(states, batches, volumes, keys)

    # State: the newest checkpoint's, or a new one.
    checkpoints = Checkpoints(folder / "checkpoints")
    step, states = _start(experiment, members, spread, checkpoints, iterator, start_params)
    started(step)

    # Loop.
    logbook = Logbook(folder, config.steps, step, config.batch_size * F, tracking, jax.process_index() == 0)
    steps = _Steps(experiment, members, cases, spread, iterator, per_call, call, checkpoints, logbook)
    with logbook, checkpoints, preemption.deferred() as asked_to_stop:
        states = _loop(steps, step, states, asked_to_stop)
    if experiment.predict.checkpoint == "best":
        best = checkpoints.best or config.steps  # none was scored
        states = spread.load(checkpoints.restore(best, spread.blank(_initial(experiment, members))))
    checkpoints.close()
    return split_members(jax.device_get(spread.whole(_mean_params(states))))


@dataclass(frozen=True)
class _Steps:
    """What all steps of a training share."""

    experiment: Experiment
    members: Sequence[Member]
    cases: Sequence[CachedCase]
    spread: parallel.Spread
    iterator: grain.DatasetIterator[Batch]
    per_call: int
    call: Callable[[list[State], list[Batch]], tuple[list[State], list[Metrics]]]
    checkpoints: Checkpoints
    logbook: Logbook


def _loop(run: _Steps, step: int, states: list[State], asked_to_stop: Callable[[int], bool]) -> list[State]:
    """Go on after `step` to the last one: score, save, next batches, steps. The last is scored and saved, too."""
    config, start = run.experiment.train, step
    recent: list[list[Metrics]] = []
    while True:
        last, fresh = step == config.steps, step > start
        if recent and (last or step % config.log_every == 0):
            run.logbook.train(step, _sound_means(run, step, recent))
            recent = []
        score = None
        if config.validate_every and fresh and (last or step % config.validate_every == 0):
            score = volume_dice(run.experiment, run.spread.whole(_mean_params(states)), run.members, run.cases)
            if score is not None:
                run.logbook.validation(step, {"dice": score})
        stop = asked_to_stop(step)
        if fresh and (last or stop or step % config.checkpoint_every == 0 or score is not None):
            if recent:
                _sound_means(run, step, recent)
            run.checkpoints.save(step, run.spread.saved(_without_pool(states)), run.iterator, score)
        if last:
            return states
        if stop:
            run.checkpoints.wait()
            raise Preempted(f"stopped by SIGTERM; step {step} is saved and the same command goes on")
        # Calls begin where all log lines, scores and checkpoints fall; an interruption may have left off between.
        count = run.per_call if step % run.per_call == 0 else 1
        batches = run.spread.place_batch(together([next(run.iterator) for _ in range(count)]))
        states, metrics = run.call(states, batches)
        recent.append(metrics)
        step += count
        run.logbook.advance(step)
        # The host stays two calls ahead of the devices: they never wait, and batches do not pile up.
        jax.block_until_ready(recent[-3:-2])


def initial_state(experiment: Experiment, seeds: Sequence[int]) -> State:
    """States of networks before the first step, F on the first axis; pure, so shapes can be had without values."""
    data = experiment.data
    shape = (1, data.slices, *data.window, len(data.channels))
    transform = optimizer.create(experiment.optimizer, experiment.train.steps)
    create = partial(training_state.create, experiment.model, transform, shape, subsets=experiment.subsets)
    return jax.vmap(create)(jnp.stack([jax.random.key(seed) for seed in seeds]))


def split_members(tree_F: Any) -> list[Any]:
    """Weights or states of each network of those that have them on one leading axis."""
    F = len(jax.tree.leaves(tree_F)[0])
    return [jax.tree.map(itemgetter(member), tree_F) for member in range(F)]


def volume_dice(
    experiment: Experiment, params_F: Params, members: Sequence[Member], cases: Sequence[CachedCase]
) -> float | None:
    """Mean over networks and their held-out cases of the Dice of whole masks; None where none is held out.

    Each process scores its share of the cases.
    """
    present_C = np.ones(len(experiment.data.channels), np.float32) if experiment.subsets else None
    pairs = [(member, case) for member, each in enumerate(members) for case in each.held_out]
    if not pairs:
        return None
    scores = np.zeros(len(pairs))
    networks = split_members(params_F)
    for pair in range(jax.process_index(), len(pairs), jax.process_count()):
        member, case = pairs[pair]
        image_ZxHxWxC = np.asarray(cases[case].image_ZxHxWxC)
        chances = predict.probability(
            experiment.model, networks[member], image_ZxHxWxC, experiment.data.slices, experiment.predict, present_C
        )
        found, wanted = predict.mask(chances) > 0, np.asarray(cases[case].label_ZxHxW) > 0
        scores[pair] = 2 * (found & wanted).sum() / max(found.sum() + wanted.sum(), 1)
    return float(distributed.add_up(scores).mean())


def _data(
    experiment: Experiment, members: Sequence[Member], cases: Sequence[CachedCase], spread: parallel.Spread
) -> tuple[stacks.Volumes | None, grain.DatasetIterator[Batch]]:
    """Volumes on the devices, where they are to lie there, and an iterator over what is shipped every step."""
    data, B = experiment.data, experiment.train.batch_size
    share = spread.share(B)
    if data.fresh.per_step:
        return None, pipeline.counted(len(members), B, share)
    places = pipeline.places(cases, members, data, B)
    shape_ZxHxW = stacks.packed_shape([case.label_ZxHxW.shape for case in cases], data.slices, data.window)
    size = len(cases) * int(np.prod(shape_ZxHxW)) * (2 * len(data.channels) + 1)
    fits = size <= _DEVICE_SHARE * parallel.free_bytes()
    if data.residency == "host" or (data.residency == "auto" and not fits):
        L = labelled_slices(experiment.model, data.slices)
        return None, pipeline.gathered(places, cases, data, L, share)
    packed = stacks.pack(
        [case.image_ZxHxWxC for case in cases], [case.label_ZxHxW for case in cases], data.slices, data.window
    )
    return spread.place_volumes(packed), pipeline.resident(places, share)


def _start(
    experiment: Experiment,
    members: Sequence[Member],
    spread: parallel.Spread,
    checkpoints: Checkpoints,
    iterator: grain.DatasetIterator[Batch],
    start_params: Params | None,
) -> tuple[int, list[State]]:
    """Step and states, round by round, that training goes on from; the iterator is moved there."""
    initial = _initial(experiment, members)
    found = checkpoints.resume(spread.blank(initial), iterator)
    if found is not None:
        step, states = found[0], spread.load(found[1])
    else:
        step, states = 0, spread.make(initial)
        if start_params is not None:
            for_all = partial(jax.tree.map, lambda leaf: jnp.broadcast_to(leaf, (len(members), *leaf.shape)))
            # Made twice: the step gives its state's memory away, which it cannot do with one array twice.
            starts = zip(*(spread.make(for_all, start_params) for _ in range(2)), strict=True)
            states = [
                replace(state, params=params, mean_params=mean_params)
                for state, (params, mean_params) in zip(states, starts, strict=True)
            ]
    if experiment.data.fresh.per_step:
        # The step is an argument, so that a run that goes on finds the program compiled.
        draw = partial(pool.create, data=experiment.data)
        pools = spread.make(lambda at: jax.lax.map(partial(draw, step=at), _keys(members)), np.int32(step))
        states = [replace(state, pool=own) for state, own in zip(states, pools, strict=True)]
    return step, states


def _mean_params(states: Sequence[State]) -> list[Params]:
    return [state.mean_params for state in states]


def _without_pool(states: Sequence[State]) -> list[State]:
    return [replace(state, pool=None) for state in states]


def _initial(experiment: Experiment, members: Sequence[Member]) -> Callable[[], State]:
    return partial(initial_state, experiment, [member.seed for member in members])


def _keys(members: Sequence[Member]) -> jax.Array:
    return jnp.stack([jax.random.key(member.seed) for member in members])


def together(batches: list[Batch]) -> Batch:
    """Batches of as many steps as one call makes, on a new first axis S."""
    if len(batches) == 1:
        return {name: array[None] for name, array in batches[0].items()}
    return {name: np.stack([batch[name] for batch in batches]) for name in batches[0]}


def _sound_means(run: _Steps, step: int, calls: Sequence[list[Metrics]]) -> dict[str, float]:
    """Means of the metrics of some calls, which must be numbers: weights that are not are never saved."""
    means = _means([run.spread.whole(metrics) for metrics in calls])
    if not np.isfinite(means["loss"]):
        raise DataError(
            f"{run.experiment.folder}: the loss is not a finite number any more at step {step}; choose a lower "
            "--optimizer.learning-rate, and another --run-dir for it"
        )
    return means


def _means(calls: Sequence[Metrics]) -> dict[str, float]:
    """Means over networks and steps, and each network's loss where there are several."""
    calls = jax.device_get(calls)
    all_FxS = {name: np.concatenate([call_FxS[name] for call_FxS in calls], 1) for name in calls[0]}
    means = {name: float(value_FxS.mean()) for name, value_FxS in all_FxS.items()}
    loss_F = all_FxS["loss"].mean(1)
    return means | ({f"loss_{i}": float(loss) for i, loss in enumerate(loss_F)} if len(loss_F) > 1 else {})
