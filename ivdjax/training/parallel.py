"""How training steps are spread over devices. The only file that knows devices.

A run trains F networks beside each other, most often one. Whatever belongs to a network has a leading axis F, and a
batch also an axis S before it, the steps that a device makes in one call. The networks of one device take turns, which
keeps their programs and their numbers those of a network trained alone.

`OverMesh` compiles with jit over a mesh of two axes: `fold` deals out the networks, `data` the samples of each batch.
`OverPmap` deals out the samples alone. On either, a device sums its samples' gradients and one all-reduce adds them up.
"""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Protocol

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ivdjax.config import Train
from ivdjax.data.pipeline import Batch, Share
from ivdjax.errors import UsageError

# step(state, batch, volumes, key, total) -> (state, metrics), of one network.
Step = Callable[..., tuple[Any, Any]]


class Spread(Protocol):
    """Where the networks of a run and their batches lie, and how a step runs there."""

    def compile(self, step: Step) -> Callable[..., tuple[Any, Any]]:
        """Compile S steps of all networks: (state_F, batch_SxFxB, volumes, key_F) -> (state_F, metrics_SxF).

        The old state's memory is given to the new one.
        """
        ...

    def make(self, create: Callable[..., Any], *inputs: Any) -> Any:
        """Make what belongs to the networks, by a function that returns it with a leading axis F."""
        ...

    def share(self, batch_size: int) -> Share:
        """Networks and samples whose stacks this process is to bring."""
        ...

    def place_batch(self, batch_SxFxB: Batch) -> Any:
        """Put this process's share of a batch on its devices."""
        ...

    def place_volumes(self, volumes: Any) -> Any:
        """Put volumes whole on every device."""
        ...

    def blank(self, create: Callable[[], Any]) -> Any:
        """What a checkpoint is restored into: shapes and places of what `create` would make."""
        ...

    def load(self, saved: Any) -> Any:
        """Bring a restored state to where `make` would have put it."""
        ...

    def saved(self, state_F: Any) -> Any:
        """State as a checkpoint holds it."""
        ...

    def whole(self, tree_F: Any) -> Any:
        """Networks' values on this process's first device, those of all networks."""
        ...


def spread(train: Train, members: int) -> Spread:
    """Spread a run of so many networks over all devices, as `train.parallel` says.

    Raises:
        UsageError: the batch cannot be dealt evenly to the devices.
    """
    devices = jax.device_count()
    if train.parallel == "pmap":
        _refuse_uneven(train.batch_size, devices)
        return OverPmap()
    # As many devices along `fold` as the networks keep busy evenly; a network's batch is dealt to the rest.
    common = math.gcd(devices, members)
    sizes = [n for n in range(common, 0, -1) if common % n == 0 and train.batch_size % (devices // n) == 0]
    if not sizes:
        _refuse_uneven(train.batch_size, devices // common)
    shape = (sizes[0], devices // sizes[0])
    # Explicit axis types would want a sharding spelt out at every convolution.
    return OverMesh(jax.make_mesh(shape, ("fold", "data"), axis_types=(AxisType.Auto,) * 2), members)


def _refuse_uneven(batch_size: int, devices: int) -> None:
    if batch_size % devices:
        raise UsageError(f"--train.batch-size {batch_size}: must be a multiple of the {devices} devices that share it")


@dataclass(frozen=True)
class OverMesh:
    """jit over a mesh with the axes `fold` and `data`."""

    mesh: Mesh
    members: int

    @cached_property
    def _member(self) -> NamedSharding:
        return NamedSharding(self.mesh, P("fold"))

    @cached_property
    def _batch(self) -> NamedSharding:
        return NamedSharding(self.mesh, P(None, "fold", "data"))

    @cached_property
    def _everywhere(self) -> NamedSharding:
        return NamedSharding(self.mesh, P())

    def compile(self, step: Step) -> Callable[..., tuple[Any, Any]]:
        """See `Spread`."""
        shardings = (self._member, self._batch, self._everywhere, self._member)
        metrics = NamedSharding(self.mesh, P(None, "fold"))
        # Each device runs its own part, so that the sums over devices are those the step asks for and no others.
        own = jax.shard_map(
            _many(step, partial(jax.lax.psum, axis_name="data")),
            mesh=self.mesh,
            in_specs=tuple(sharding.spec for sharding in shardings),
            out_specs=(self._member.spec, metrics.spec),
            check_vma=False,
        )
        return jax.jit(own, in_shardings=shardings, out_shardings=(self._member, metrics), donate_argnums=0)

    def make(self, create: Callable[..., Any], *inputs: Any) -> Any:
        """See `Spread`."""
        return jax.jit(create, out_shardings=self._member)(*inputs)

    def share(self, batch_size: int) -> Share:
        """See `Spread`."""
        places = NamedSharding(self.mesh, P("fold", "data")).addressable_devices_indices_map(
            (self.members, batch_size)
        )
        # A process's devices are neighbours in the mesh, so what they hold is one block.
        return tuple(
            slice(min(p[axis].start or 0 for p in places.values()), max(p[axis].stop or size for p in places.values()))
            for axis, size in enumerate((self.members, batch_size))
        )

    def place_batch(self, batch_SxFxB: Batch) -> Any:
        """See `Spread`."""
        return {name: jax.make_array_from_process_local_data(self._batch, array) for name, array in batch_SxFxB.items()}

    def place_volumes(self, volumes: Any) -> Any:
        """See `Spread`."""
        return jax.tree.map(lambda v: jax.make_array_from_process_local_data(self._everywhere, v), volumes)

    def blank(self, create: Callable[[], Any]) -> Any:
        """See `Spread`."""
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=self._member), jax.eval_shape(create)
        )

    def load(self, saved: Any) -> Any:
        """See `Spread`."""
        return saved

    def saved(self, state_F: Any) -> Any:
        """See `Spread`."""
        return state_F

    def whole(self, tree_F: Any) -> Any:
        """See `Spread`."""
        everywhere = jax.jit(lambda tree: tree, out_shardings=self._everywhere)(tree_F)
        return jax.tree.map(lambda leaf: leaf.addressable_data(0), everywhere)


@dataclass(frozen=True)
class OverPmap:
    """pmap over all devices, each of which holds every network."""

    def compile(self, step: Step) -> Callable[..., tuple[Any, Any]]:
        """See `Spread`."""
        return jax.pmap(
            _many(step, partial(jax.lax.psum, axis_name="data")),
            axis_name="data",
            in_axes=(0, 2, 0, 0),
            out_axes=(0, None),
            donate_argnums=0,
        )

    def make(self, create: Callable[..., Any], *inputs: Any) -> Any:
        """See `Spread`."""
        return self._copy(jax.jit(create)(*inputs))

    def share(self, batch_size: int) -> Share:
        """See `Spread`."""
        own = batch_size // jax.process_count()
        return slice(None), slice(jax.process_index() * own, (jax.process_index() + 1) * own)

    def place_batch(self, batch_SxFxB: Batch) -> Any:
        """See `Spread`."""
        D = jax.local_device_count()
        return {
            name: array.reshape(*array.shape[:2], D, array.shape[2] // D, *array.shape[3:])
            for name, array in batch_SxFxB.items()
        }

    def place_volumes(self, volumes: Any) -> Any:
        """See `Spread`."""
        return self._copy(volumes)

    def blank(self, create: Callable[[], Any]) -> Any:
        """See `Spread`."""
        return jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), jax.eval_shape(create))

    def load(self, saved: Any) -> Any:
        """See `Spread`."""
        return self._copy(saved)

    def saved(self, state_F: Any) -> Any:
        """See `Spread`."""
        # Checkpoints know nothing of the axis that pmap adds.
        return jax.device_get(self.whole(state_F))

    def whole(self, tree_F: Any) -> Any:
        """See `Spread`."""
        return jax.tree.map(lambda leaf: leaf.addressable_data(0)[0], tree_F)

    def _copy(self, tree: Any) -> Any:
        """Copy a tree to each device of this process, with the leading axis that pmap wants."""
        return jax.pmap(lambda _, leaves: leaves, in_axes=(0, None))(np.arange(jax.local_device_count()), tree)


def steps_per_call(train: Train, on_host: bool) -> int:
    """Steps of one call: as set, or ten on an accelerator that has the volumes, but never across a due interruption."""
    wanted = train.steps_per_call or (1 if on_host or jax.default_backend() == "cpu" else 10)
    dues = (train.steps, train.log_every, train.validate_every, train.checkpoint_every)
    common = math.gcd(*dues)
    return max(n for n in range(1, min(wanted, common) + 1) if common % n == 0)


def free_bytes() -> int:
    """Memory that each of this process's devices has to spare; the devices of a CPU share the machine's."""
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    if not all("bytes_limit" in stat for stat in stats):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // jax.local_device_count()
    return min(stat["bytes_limit"] - stat["bytes_in_use"] for stat in stats)


def _many(step: Step, total: Callable[[Any], Any]) -> Callable[..., tuple[Any, Any]]:
    """Make of a step of one network S steps of each of a device's networks."""

    def networks(state_F: Any, batch_FxB: Any, volumes: Any, key_F: jax.Array) -> tuple[Any, Any]:
        return each(lambda state, batch, key: step(state, batch, volumes, key, total), state_F, batch_FxB, key_F)

    def steps(state_F: Any, batch_SxFxB: Any, volumes: Any, key_F: jax.Array) -> tuple[Any, Any]:
        def one(state_F: Any, batch_FxB: Any) -> tuple[Any, Any]:
            return networks(state_F, batch_FxB, volumes, key_F)

        S = len(batch_SxFxB["weight"])
        if S > 1:
            return jax.lax.scan(one, state_F, batch_SxFxB)
        state_F, metrics_F = one(state_F, jax.tree.map(lambda leaf: leaf[0], batch_SxFxB))
        return state_F, jax.tree.map(lambda leaf: leaf[None], metrics_F)

    return steps


def each(call: Callable[..., Any], *trees_F: Any) -> Any:
    """Map over the leading axis, one after the other; an axis of one costs nothing."""
    if len(jax.tree.leaves(trees_F)[0]) > 1:
        return jax.lax.map(lambda trees: call(*trees), trees_F)
    return jax.tree.map(lambda leaf: leaf[None], call(*jax.tree.map(lambda leaf: leaf[0], trees_F)))
