"""Training on phantoms that the step itself draws: it learns, and resumes bit for bit."""

import time

import jax
import numpy as np
import pytest

from ivdjax.config import Augment, Data, Experiment, Fresh, Train
from ivdjax.data.splits import Member
from ivdjax.models import UNet
from ivdjax.trained import read_states
from ivdjax.training import loop
from ivdjax.training.checkpoint import Checkpoints

EXPERIMENT = Experiment(
    name="fresh",
    model=UNet(features=(4, 8)),
    data=Data(
        fresh=Fresh(per_step=1, pool=3, slab=4, spacing_mm=(4.0, 6.0), reach_mm=(10.0, 30.0, 10.0)),
        slices=3,
        window=(32, 24),
    ),
    augment=Augment(channel_dropout=0.5),
    train=Train(steps=6, batch_size=2, log_every=1, checkpoint_every=3),
)


def trained(folder):
    """State after the last step."""
    checkpoints = Checkpoints(folder / "checkpoints", read_only=True)
    (state,) = read_states(EXPERIMENT, checkpoints, EXPERIMENT.train.steps)
    return state


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    loop.train(EXPERIMENT, [Member((), (), 0)], (), folder)
    return trained(folder)


def test_a_stopped_run_ends_bit_for_bit_as_one_that_was_not(whole, tmp_path, monkeypatch):
    advance = loop.Logbook.advance

    def stop(logbook, step):
        advance(logbook, step)
        if step == 5:
            # A killed process saves no further; this one would.
            while not (tmp_path / "checkpoints" / "3").exists():
                time.sleep(0.01)
            raise KeyboardInterrupt

    monkeypatch.setattr(loop.Logbook, "advance", stop)
    with pytest.raises(KeyboardInterrupt):
        loop.train(EXPERIMENT, [Member((), (), 0)], (), tmp_path)
    monkeypatch.undo()
    loop.train(EXPERIMENT, [Member((), (), 0)], (), tmp_path)
    for a, b in zip(jax.tree.leaves(trained(tmp_path)), jax.tree.leaves(whole), strict=True):
        np.testing.assert_array_equal(a, b)


def test_no_checkpoint_holds_the_pool_and_the_weights_have_moved(whole):
    assert whole.pool is None
    (start,) = loop.split_members(jax.jit(lambda: loop.initial_state(EXPERIMENT, [0]))())
    moved = [np.abs(a - b).max() for a, b in zip(*map(jax.tree.leaves, (whole.params, start.params)), strict=True)]
    assert min(moved) > 0  # the flags' weights, too
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(whole.params))
