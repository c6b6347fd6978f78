"""Phantoms for training that never touch a disk: a pool of slabs on the accelerator, steadily drawn anew.

A slab is a few sagittal slices of one subject, on a grid of its own size and place. Phantom number i of a run is a
pure function of the run's key and i. Step t draws the numbers t n ... t n + n - 1 and each takes the place of the
oldest slab of the pool, so what the pool holds follows from the step alone, and a resumed run draws it again.
"""

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from ivdjax.config import Data, Fresh
from ivdjax.data import phantom

_APART = 2**31 - 1  # keeps the pool's keys from those of the steps, of which no run has so many


@struct.dataclass
class Pool:
    """P slabs of Z slices as large as the window; `label` is 1 in the labelled discs."""

    signal_PxZxHxWx2: Array  # water and fat, float16
    tissue_PxZxHxW: Array  # uint8
    label_PxZxHxW: Array  # uint8


def create(key: Array, step: Array, data: Data) -> Pool:
    """The pool as it is before step `step` of a run with this key."""
    P, n = data.fresh.pool, data.fresh.per_step
    # The numbers below 0 are those the run starts with.
    newest = step * n - 1
    numbers_P = newest - (newest - jnp.arange(P)) % P
    return jax.lax.map(lambda number: _draw(key, number, data), numbers_P)


def renew(pool: Pool, key: Array, step: Array, data: Data) -> Pool:
    """Draw the phantoms of step `step` into the pool."""
    P, n = data.fresh.pool, data.fresh.per_step
    numbers_N = step * n + jnp.arange(n)
    drawn = jax.lax.map(lambda number: _draw(key, number, data), numbers_N)
    return jax.tree.map(lambda old, new: old.at[numbers_N % P].set(new), pool, drawn)


def sample(pool: Pool, key: Array, K: int, L: int = 1) -> tuple[Array, Array, Array]:
    """Take a stack of a slab at random: signal_KxHxWx2 (water and fat, float32), tissue_KxHxW, label_LxHxW."""
    P, Z = pool.label_PxZxHxW.shape[:2]
    which, where = jax.random.split(key)
    slab = jax.random.randint(which, (), 0, P)
    centre = jax.random.randint(where, (), K // 2, Z - K // 2)
    signal, tissue, label = (
        jax.lax.dynamic_slice(volume, (slab, first, *[0] * (volume.ndim - 2)), (1, k, *volume.shape[2:]))[0]
        for volume, first, k in (
            (pool.signal_PxZxHxWx2, centre - K // 2, K),
            (pool.tissue_PxZxHxW, centre - K // 2, K),
            (pool.label_PxZxHxW, centre - L // 2, L),
        )
    )
    return signal.astype(jnp.float32), tissue, label


def _draw(key: Array, number: Array, data: Data) -> Pool:
    """Phantom `number`, without the leading axis of a pool."""
    # Keys take no negative numbers.
    key = jax.random.fold_in(jax.random.fold_in(key, _APART), number + data.fresh.pool)
    spine, spacing, place = jax.random.split(key, 3)
    spacing_mm, centre_mm = _grid(spacing, place, data.fresh)
    drawn = phantom.draw(spine, None, (data.fresh.slab, *data.window), spacing_mm, centre_mm)
    signal = jnp.stack([drawn.water_ZxHxW, drawn.fat_ZxHxW], -1)
    return Pool(signal.astype(jnp.float16), drawn.tissue_ZxHxW, (drawn.label_ZxHxW > 0).astype(jnp.uint8))


def _grid(key_spacing: Array, key_place: Array, fresh: Fresh) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
    """Voxel size and centre of a slab, mm, Z, H, W."""
    share_2 = jax.random.uniform(key_spacing, (2,))
    thickness_mm, spacing_mm = (
        low * (high / low) ** share
        for (low, high), share in zip((fresh.thickness_mm, fresh.spacing_mm), share_2, strict=True)
    )
    centre_mm = jnp.array(fresh.reach_mm) * jax.random.uniform(key_place, (3,), minval=-1.0)
    return (thickness_mm, spacing_mm, spacing_mm), tuple(centre_mm)
