"""Phantoms drawn while training: what the pool holds follows from the step alone."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ivdjax.config import Data, Fresh
from ivdjax.data import pool

DATA = Data(
    fresh=Fresh(per_step=1, pool=3, slab=4, spacing_mm=(4.0, 6.0), reach_mm=(15.0, 30.0, 10.0)),
    slices=3,
    window=(40, 32),
)
KEY = jax.random.key(0)
create = jax.jit(partial(pool.create, data=DATA))
renew = jax.jit(partial(pool.renew, data=DATA))


@pytest.fixture(scope="module")
def history():
    """Pools before steps 0 to 4, each made of the one before."""
    pools = [create(KEY, 0)]
    for step in range(4):
        pools.append(renew(pools[-1], KEY, step))
    return pools


def test_a_resumed_run_has_the_pool_of_one_that_went_on(history):
    for step in (1, 4):
        for ours, theirs in zip(jax.tree.leaves(create(KEY, step)), jax.tree.leaves(history[step]), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_each_step_replaces_the_oldest_slab_alone(history):
    for step, (before, after) in enumerate(itertools.pairwise(history)):
        changed = np.abs(after.signal_PxZxHxWx2 - before.signal_PxZxHxWx2).max((1, 2, 3, 4)) > 0
        assert np.flatnonzero(changed).tolist() == [step % 3]


def test_slabs_are_different_subjects_on_different_grids(history):
    slabs = np.asarray(history[0].signal_PxZxHxWx2, np.float32).reshape(3, -1)
    assert np.abs(np.corrcoef(slabs)[np.triu_indices(3, 1)]).max() < 0.95


def test_a_sample_is_a_stack_of_a_slab_with_the_labels_of_its_slices(history):
    phantoms = history[2]
    take = jax.jit(partial(pool.sample, K=3, L=3))
    found = set()
    for seed in range(10):
        signal, tissue, label = take(phantoms, jax.random.key(seed))
        assert signal.shape == (3, 40, 32, 2)
        at = [
            (slab, z)
            for slab in range(3)
            for z in (1, 2)
            if np.array_equal(phantoms.tissue_PxZxHxW[slab, z - 1 : z + 2], tissue)
            and np.array_equal(phantoms.label_PxZxHxW[slab, z - 1 : z + 2], label)
            and np.array_equal(phantoms.signal_PxZxHxWx2[slab, z - 1 : z + 2], signal.astype(jnp.float16))
        ]
        assert len(at) == 1
        found |= set(at)
    assert len(found) > 2
