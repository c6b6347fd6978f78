import dataclasses
from functools import partial

import jax
import numpy as np
import pytest

from ivdjax.config import Augment, Data, Experiment, Optimizer, Train
from ivdjax.data import pipeline, stacks
from ivdjax.data.splits import Member
from ivdjax.models import UNet, UNet3D
from ivdjax.trained import read_states
from ivdjax.training import loop, optimizer
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
    """A function of state and batch that makes a step, the first state, and batches of places."""
    data, B = experiment.data, experiment.train.batch_size
    transform = optimizer.create(experiment.optimizer, experiment.train.steps)
    members = [Member(tuple(range(len(cases))), (), experiment.seed)]
    images, labels = zip(*((case.image_ZxHxWxC, case.label_ZxHxW) for case in cases), strict=True)
    volumes = jax.device_put(stacks.pack(images, labels, data.slices, data.window))
    step = jax.jit(partial(train_step, experiment, transform))
    (state,) = loop.split_members(jax.jit(partial(loop.initial_state, experiment, [experiment.seed]))())
    rows = pipeline.resident(pipeline.places(cases, members, data, B))
    batches = ({name: array[0] for name, array in row.items()} for row in rows)
    return lambda state, batch: step(state, batch, volumes, jax.random.key(0)), state, batches


def test_learning_lowers_the_loss(made_cases):
    step, state, batches = prepare(EXPERIMENT, made_cases)
    losses = []
    for _ in range(100):
        state, metrics = step(state, next(batches))
        losses.append(float(metrics["loss"]))
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:5])
    assert int(state.step) == 100


def test_a_sample_of_no_weight_changes_nothing(made_cases):
    experiment = dataclasses.replace(EXPERIMENT, augment=Augment(noise=0.0))
    step, state, batches = prepare(experiment, made_cases)
    batch = {name: np.array(value) for name, value in next(batches).items()}
    batch["weight"][-1] = 0
    spoilt = batch | {"place": batch["place"].copy()}
    spoilt["place"][-1] = [1, 2, 0, 0]
    assert not np.array_equal(batch["place"], spoilt["place"])
    for a, b in zip(*(jax.tree.leaves(step(state, one)) for one in (batch, spoilt)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_parts_of_a_batch_add_up_to_the_whole(made_cases):
    """As devices share a batch: each has some of its samples, and `total` sums what each found."""
    _, state, batches = prepare(EXPERIMENT, made_cases)
    data = EXPERIMENT.data
    images, labels = zip(*((case.image_ZxHxWxC, case.label_ZxHxW) for case in made_cases), strict=True)
    volumes = stacks.pack(images, labels, data.slices, data.window)
    step = partial(train_step, EXPERIMENT, optimizer.create(EXPERIMENT.optimizer, 100))
    batch, key = next(batches), jax.random.key(0)
    whole = jax.jit(step)(state, batch, volumes, key)
    parts = {name: array.reshape(2, 2, *array.shape[1:]) for name, array in batch.items()}
    step = partial(step, total=partial(jax.lax.psum, axis_name="parts"))
    shared = jax.jit(jax.vmap(step, (None, 0, None, None), axis_name="parts"))(state, parts, volumes, key)
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(shared), strict=True):
        np.testing.assert_allclose(a, b[0], atol=2e-5)
        np.testing.assert_array_equal(b[0], b[1])


def test_the_mean_of_the_weights_follows_them(made_cases):
    step, state, batches = prepare(EXPERIMENT, made_cases)
    for _ in range(3):
        state, _ = step(state, next(batches))
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
    initial = jax.jit(partial(loop.initial_state, dataclasses.replace(still, seed=7), [7]))()
    (start,) = loop.split_members(initial.params)
    members = [Member((0, 1, 2), (), 0), Member((0, 1), (2,), 1)]
    trained = loop.train(still, members, made_cases, tmp_path, start_params=start)
    states = read_states(still, Checkpoints(tmp_path / "checkpoints", read_only=True), 2)
    for params in (*trained, *(state.params for state in states), *(state.mean_params for state in states)):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), params, start)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(start))  # not given away


def test_a_3d_network_learns_from_the_labels_of_every_slice_from_either_memory(made_cases):
    """A change of one label beside the centre changes the loss, and stacks from the host give the same."""
    nothing = Augment(**{field.name: 0.0 for field in dataclasses.fields(Augment)})
    experiment = dataclasses.replace(EXPERIMENT, model=UNet3D(features=(4, 8)), augment=nothing)
    step, state, batches = prepare(experiment, made_cases)
    batch = next(batches)
    losses = [float(step(state, batch)[1]["loss"])]

    data, transform = experiment.data, optimizer.create(experiment.optimizer, 100)
    member = [Member((0, 1, 2), (), experiment.seed)]
    places = pipeline.places(made_cases, member, data, experiment.train.batch_size)
    stacked = {name: array[0] for name, array in next(pipeline.gathered(places, made_cases, data, L=3)).items()}
    assert stacked["label"].shape == (4, 3, 24, 24)
    on_host = jax.jit(lambda batch: train_step(experiment, transform, state, batch, None, jax.random.key(0))[1]["loss"])
    losses.append(float(on_host(stacked)))
    stacked["label"] = stacked["label"].copy()
    stacked["label"][0, 2, 5, 5] ^= 1
    losses.append(float(on_host(stacked)))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert losses[2] != pytest.approx(losses[1], rel=1e-6)
