import dataclasses
from functools import partial

import jax
import numpy as np
import pytest

from ivdjax.config import Augment, Data, Experiment, Optimizer, Train
from ivdjax.data import pipeline
from ivdjax.models import UNet
from ivdjax.training import loop, optimizer, parallel
from ivdjax.training.checkpoint import Checkpoints
from ivdjax.training.step import train_step

EXPERIMENT = Experiment(
    name="tiny",
    model=UNet(features=(4, 8)),
    data=Data(channels=("t2",), slices=3, window=(24, 24), threads=1),
    optimizer=Optimizer(learning_rate=1e-2, warmup_steps=2),
    train=Train(steps=100, batch_size=4),
)


def prepare(experiment, cases):
    transform = optimizer.create(experiment.optimizer, experiment.train.steps)
    mesh = parallel.mesh(experiment.train.batch_size)
    step = parallel.compile_step(partial(train_step, experiment, transform), mesh)
    batches = pipeline.batches(cases, experiment.data, experiment.train.batch_size, experiment.seed)
    state = parallel.place_state(partial(loop.initial_state, experiment), mesh)
    return step, state, (parallel.place_batch(batch, mesh) for batch in batches)


def test_learning_lowers_the_loss(made_cases):
    step, state, batches = prepare(EXPERIMENT, made_cases)
    losses = []
    for _ in range(100):
        state, metrics = step(state, next(batches), jax.random.key(0))
        losses.append(float(metrics["loss"]))
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:5])
    assert int(state.step) == 100


def test_a_sample_of_no_weight_changes_nothing(made_cases):
    experiment = dataclasses.replace(EXPERIMENT, augment=Augment(noise=0.0))
    step, state, batches = prepare(experiment, made_cases)
    batch = {name: np.array(value) for name, value in next(batches).items()}
    batch["weight"][-1] = 0
    spoilt = {name: value.copy() for name, value in batch.items()}
    spoilt["stack"][-1] = 7.0
    spoilt["label"][-1] = 1
    results = []
    for one in (batch, spoilt):
        fresh = jax.tree.map(jax.numpy.copy, state)
        results.append(step(fresh, one, jax.random.key(0)))
    for a, b in zip(jax.tree.leaves(results[0]), jax.tree.leaves(results[1]), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_the_mean_of_the_weights_follows_them(made_cases):
    step, state, batches = prepare(EXPERIMENT, made_cases)
    for _ in range(3):
        state, _ = step(state, next(batches), jax.random.key(0))
    gaps = [
        float(np.abs(a - b).max())
        for a, b in zip(jax.tree.leaves(state.params), jax.tree.leaves(state.mean_params), strict=True)
    ]
    assert 0 < max(gaps) < 0.05


def test_warm_up_and_decay():
    rate = optimizer.schedule(Optimizer(learning_rate=1.0, warmup_steps=10), 1000)
    assert float(rate(0)) == 0
    assert float(rate(10)) == pytest.approx(1.0)
    assert float(rate(505)) == pytest.approx(0.5, abs=0.01)
    assert float(rate(1000)) == pytest.approx(0.0, abs=1e-6)


def test_given_weights_are_what_training_starts_from(made_cases, tmp_path):
    still = dataclasses.replace(
        EXPERIMENT, optimizer=Optimizer(learning_rate=0.0), train=Train(steps=2, batch_size=2, checkpoint_every=1)
    )
    start = jax.jit(partial(loop.initial_state, dataclasses.replace(still, seed=7)))().params
    loop.train(still, made_cases, (), tmp_path, start_params=start)
    checkpoints = Checkpoints(tmp_path / "checkpoints", read_only=True)
    state = checkpoints.restore(2, jax.jit(partial(loop.initial_state, still))())
    for params in (state.params, state.mean_params):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), params, start)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(start))  # not given away
