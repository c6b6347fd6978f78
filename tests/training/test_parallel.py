"""One device or eight, jit or pmap, one process or two, alone or beside others: the same training."""

import json
import os
import re
import subprocess
import sys
from functools import partial

import jax
import numpy as np
import pytest

from ivdjax import trained
from ivdjax.config import Train
from ivdjax.data.stacks import Volumes
from ivdjax.errors import UsageError
from ivdjax.training import loop, optimizer, parallel
from ivdjax.training.checkpoint import Checkpoints
from ivdjax.training.logbook import read
from ivdjax.training.step import train_step
from tests import runs
from tests.training.on_devices import MEMBERS, run, tiny

ROOT = runs.ROOT


def launch(folder, devices, trainings, *more):
    """Start a process with so many devices."""
    words = [f"{name}={json.dumps(settings)}" for name, settings in trainings.items()]
    flags = f"--xla_force_host_platform_device_count={devices}"
    return subprocess.Popen(
        [sys.executable, "-m", "tests.training.on_devices", folder, *words, *map(str, more)],
        cwd=ROOT,
        env={**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def losses(folder):
    """Loss of every step."""
    logged = runs.losses(folder)
    assert list(logged) == list(range(1, len(logged) + 1))
    return np.array(list(logged.values()))


def states(folder, step=20, experiment=None):
    """States of a run's networks, read on this process's one device."""
    return trained.read_states(experiment or tiny(), Checkpoints(folder / "checkpoints", read_only=True), step)


def assert_close(a, b, atol):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, atol=atol)


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """Runs on this process's one device."""
    folder = tmp_path_factory.mktemp("one")
    run(folder / "single")
    return folder


@pytest.fixture(scope="module")
def eight(tmp_path_factory):
    """The same runs on eight devices."""
    folder = tmp_path_factory.mktemp("eight")
    trainings = {
        "jit": {},
        "pmap": {"parallel": "pmap"},
        "half": {"until": 10},
        "pmap-half": {"until": 10, "parallel": "pmap"},
        "four": {"members": [0, 1, 2, 3], "steps": 50, "log_every": 5, "steps_per_call": 5},
    }
    assert runs.ended(launch(folder, 8, trainings)) == [0]
    return folder


def test_eight_devices_train_as_one(one, eight):
    np.testing.assert_allclose(losses(eight / "jit"), losses(one / "single"), atol=1e-5)
    assert_close(states(eight / "jit"), states(one / "single"), 1e-4)


def test_pmap_gives_the_state_that_jit_gives(eight):
    np.testing.assert_allclose(losses(eight / "pmap"), losses(eight / "jit"), atol=1e-5)
    assert_close(states(eight / "pmap"), states(eight / "jit"), 1e-5)


@pytest.mark.parametrize("name", ["half", "pmap-half"])
def test_what_eight_devices_began_one_goes_on_with(one, eight, name):
    assert len(losses(eight / name)) == 10
    run(eight / name)
    np.testing.assert_allclose(losses(eight / name), losses(one / "single"), atol=1e-5)


def test_two_processes_train_as_one_by_pmap_too(one, tmp_path):
    """What two processes do by jit is tested in tests/launch, from the command line."""
    where = f"127.0.0.1:{runs.free_port()}"
    trainings = {"pmap": {"parallel": "pmap", "residency": "host"}}
    processes = [launch(tmp_path, 4, trainings, "--distributed", where, 2, process) for process in range(2)]
    assert runs.ended(*processes) == [0, 0]
    np.testing.assert_allclose(losses(tmp_path / "pmap"), losses(one / "single"), atol=1e-5)
    assert_close(states(tmp_path / "pmap"), states(one / "single"), 1e-4)


def test_networks_beside_each_other_are_what_each_is_alone(eight, tmp_path):
    settings = {"steps": 50, "log_every": 5}
    run(tmp_path / "four", members=(0, 1, 2, 3), **settings)
    beside = states(tmp_path / "four", 50)
    for member in (1, 3):
        run(tmp_path / f"{member}", members=(member,), **settings)
        (alone,) = states(tmp_path / f"{member}", 50)
        assert_close(beside[member], alone, 0)
    # Over devices along the axis of the networks, several steps a call: the same but for the rounding of sums, which
    # fifty steps of Adam make larger.
    ours, theirs = (read(folder / "four" / "log.jsonl") for folder in (eight, tmp_path))
    for row, other in zip(ours, theirs, strict=True):
        for i in range(len(MEMBERS)):
            assert row[f"loss_{i}"] == pytest.approx(other[f"loss_{i}"], abs=1e-4)
    seeds = [np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(beside[i].params)]) for i in (0, 3)]
    assert np.abs(seeds[0] - seeds[1]).max() > 0.01


def shapes(experiment, networks, steps):
    """Shapes of the arguments of a compiled step, for volumes of three cases."""
    data, B = experiment.data, experiment.train.batch_size
    seeds = list(range(networks))
    state = jax.eval_shape(partial(loop.initial_state, experiment, seeds))
    batch = {
        "place": jax.ShapeDtypeStruct((steps, networks, B, 4), "int32"),
        "sample": jax.ShapeDtypeStruct((steps, networks, B), "int32"),
        "weight": jax.ShapeDtypeStruct((steps, networks, B), "float32"),
    }
    grid = (3, 9, 42, 36)
    image = jax.ShapeDtypeStruct((*grid, len(data.channels)), "float16")
    volumes = Volumes(image, jax.ShapeDtypeStruct(grid, "uint8"), (0, 0))
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), networks))
    return state, batch, volumes, keys


def compiled_step(experiment, networks):
    spread = parallel.spread(experiment.train, networks)
    transform = optimizer.create(experiment.optimizer, experiment.train.steps)
    return spread.program(partial(train_step, experiment, transform))


@pytest.mark.parametrize("steps", [1, 3])
def test_the_step_lowers_for_tpu_and_cuda(steps):
    exported = jax.export.export(compiled_step(tiny(), 1), platforms=["tpu", "cuda"])(*shapes(tiny(), 1, steps))
    assert exported.platforms == ("tpu", "cuda")
    assert "stablehlo.convolution" in exported.mlir_module()


HLO = """
from tests.training import test_parallel as t
print(t.compiled_step(t.tiny(), NETWORKS).lower(*t.shapes(t.tiny(), NETWORKS, 2)).compile().as_text())
"""


@pytest.mark.parametrize("networks", [1, 2])
def test_devices_exchange_gradients_and_nothing_else(networks):
    done = subprocess.run(
        [sys.executable, "-c", HLO.replace("NETWORKS", str(networks))],
        cwd=ROOT,
        env={
            **os.environ,
            "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
            "PYTHONPATH": str(ROOT),
            "JAX_PLATFORMS": "cpu",
        },
        capture_output=True,
        text=True,
        check=True,
    )
    found = re.findall(r"= .* (all-[a-z]+|collective-[a-z]+|reduce-scatter)(?:-start)?\(", done.stdout)
    assert found
    assert set(found) == {"all-reduce"}
    # The sums that one step asks for: of every gradient, of three parts of the loss and of the weights.
    leaves = len(jax.tree.leaves(jax.eval_shape(partial(loop.initial_state, tiny(), [0])).params))
    operands = sum(
        len(re.findall(r"%", line.split("all-reduce(")[1].split(")")[0]))
        for line in done.stdout.splitlines()
        if "all-reduce(" in line
    )
    assert operands == leaves + 4


def test_a_batch_that_devices_cannot_share_is_refused(monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 8)
    for how in ("jit", "pmap"):
        with pytest.raises(UsageError, match=r"--train.batch-size 6: must be a multiple of the 8 devices"):
            parallel.spread(Train(batch_size=6, parallel=how), 1)


@pytest.mark.parametrize(
    ("wanted", "dues", "expected"),
    [(10, (1400, 20, 350, 100), 10), (8, (1400, 20, 350, 100), 5), (10, (300, 20, 0, 100), 10), (10, (7, 7, 0, 7), 7)],
)
def test_a_call_never_steps_over_what_is_due(wanted, dues, expected):
    steps, log, validate, checkpoint = dues
    train = Train(
        steps=steps, log_every=log, validate_every=validate, checkpoint_every=checkpoint, steps_per_call=wanted
    )
    assert parallel.steps_per_call(train, on_host=False) == expected
