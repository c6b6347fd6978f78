"""How training steps are spread over devices. The only file that knows devices.

A run trains F networks beside each other, most often one. Whatever belongs to a network has a leading axis F outside
this file, and a batch also an axis S before it, the steps that a device makes in one call.

`OverMesh` compiles with jit over a mesh of two axes: `fold` deals out the networks, `data` the samples of each batch.
`OverPmap` deals out the samples alone. Where a device has several networks they take turns, in rounds: one compiled
program for all, which is also that of a network trained alone, so the numbers are the same to the bit. On either, a
device sums its samples' gradients and one all-reduce adds them up.
"""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ivdjax.config import Train
from ivdjax.data.pipeline import Batch, Share
from ivdjax.errors import UsageError

# step(state, batch, volumes, key, total) -> (state, metrics), of one network.
Step = Callable[..., tuple[Any, Any]]
# One tree a round, of the networks whose turn it is.
Rounds = list[Any]


class Spread(Protocol):
    """Where the networks of a run and their batches lie, and how a step runs there."""

    def compile(self, step: Step) -> Callable[[Rounds, Rounds, Any, Rounds], tuple[Rounds, Rounds]]:
        """Make a call of S steps of all networks: (states, batches, volumes, keys) -> (states, metrics).

        The old states' memory is given to the new ones. Metrics have the axes F and S.
        """
        ...

    def make(self, create: Callable[..., Any], *inputs: Any) -> Rounds:
        """Make what belongs to the networks, by a function that returns it with a leading axis F."""
        ...

    def share(self, batch_size: int) -> Share:
        """Networks and samples whose places or stacks this process is to bring."""
        ...

    def place_batch(self, batch_SxFxB: Batch) -> Rounds:
        """Put this process's share of a batch on its devices."""
        ...

    def place_volumes(self, volumes: Any) -> Any:
        """Put volumes whole on every device."""
        ...

    def blank(self, create: Callable[[], Any]) -> Any:
        """What a checkpoint is restored into: shapes and places of what `create` would make."""
        ...

    def load(self, restored_F: Any) -> Rounds:
        """Bring a restored state to where `make` would have put it."""
        ...

    def saved(self, state: Rounds) -> Any:
        """State as a checkpoint holds it, with a leading axis F."""
        ...

    def whole(self, rounds: Rounds) -> Any:
        """Values of all networks on this process's first device, with a leading axis F."""
        ...


def spread(train: Train, members: int) -> Spread:
    """Spread a run of so many networks over all devices, as `train.parallel` says.

    Raises:
        UsageError: the batch cannot be dealt evenly to the devices.
    """
    devices = jax.device_count()
    if train.parallel == "pmap":
        _refuse_uneven(train.batch_size, devices)
        return OverPmap(members)
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
    """jit over a mesh with the axes `fold` and `data`; network m has its turn in round m % rounds."""

    mesh: Mesh
    members: int

    @property
    def _rounds(self) -> int:
        return self.members // self.mesh.shape["fold"]

    @cached_property
    def _member(self) -> NamedSharding:
        return NamedSharding(self.mesh, P("fold"))

    @cached_property
    def _batch(self) -> NamedSharding:
        return NamedSharding(self.mesh, P(None, "fold", "data"))

    @cached_property
    def _everywhere(self) -> NamedSharding:
        return NamedSharding(self.mesh, P())

    def compile(self, step: Step) -> Callable[[Rounds, Rounds, Any, Rounds], tuple[Rounds, Rounds]]:
        """See `Spread`."""
        program = self.program(step)
        return lambda states, batches, volumes, keys: _take_turns(program, states, batches, volumes, keys)

    def program(self, step: Step) -> Callable[..., tuple[Any, Any]]:
        """Compiled steps of the networks of one round, one on each row of the mesh."""
        shardings = (self._member, self._batch, self._everywhere, self._member)
        # Each device runs its own part, so that the sums over devices are those the step asks for and no others.
        own = jax.shard_map(
            _steps(step, partial(jax.lax.psum, axis_name="data")),
            mesh=self.mesh,
            in_specs=tuple(sharding.spec for sharding in shardings),
            out_specs=self._member.spec,
            check_vma=False,
        )
        return jax.jit(own, in_shardings=shardings, out_shardings=self._member, donate_argnums=0)

    def make(self, create: Callable[..., Any], *inputs: Any) -> Rounds:
        """See `Spread`."""
        return jax.jit(lambda *args: _deal(create(*args), self._rounds), out_shardings=self._member)(*inputs)

    def share(self, batch_size: int) -> Share:
        """See `Spread`."""
        shape = (self.members, batch_size)
        held = NamedSharding(self.mesh, P("fold", "data")).addressable_devices_indices_map(shape)
        blocks = [block for block in held.values() if block is not None]
        # A process's devices are neighbours in the mesh, so what they hold is one block.
        members, samples = (
            slice(min(b[axis].start or 0 for b in blocks), max(b[axis].stop or size for b in blocks))
            for axis, size in enumerate(shape)
        )
        return members, samples

    def place_batch(self, batch_SxFxB: Batch) -> Rounds:
        """See `Spread`."""
        place = partial(jax.make_array_from_process_local_data, self._batch)
        return [jax.tree.map(place, batch) for batch in _deal(batch_SxFxB, self._rounds, axis=1)]

    def place_volumes(self, volumes: Any) -> Any:
        """See `Spread`."""
        return jax.tree.map(partial(jax.make_array_from_process_local_data, self._everywhere), volumes)

    def blank(self, create: Callable[[], Any]) -> Any:
        """See `Spread`."""
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=self._member), jax.eval_shape(create)
        )

    def load(self, restored_F: Any) -> Rounds:
        """See `Spread`."""
        return self.make(lambda tree_F: tree_F, restored_F)

    def saved(self, state: Rounds) -> Any:
        """See `Spread`."""
        return jax.jit(_gather, out_shardings=self._member)(state)

    def whole(self, rounds: Rounds) -> Any:
        """See `Spread`."""
        return jax.tree.map(lambda leaf: leaf.addressable_data(0), self._gather_everywhere(rounds))

    @cached_property
    def _gather_everywhere(self) -> Callable[[Rounds], Any]:
        return jax.jit(_gather, out_shardings=self._everywhere)


@dataclass(frozen=True)
class OverPmap:
    """pmap over all devices, each of which holds every network; each network is a round."""

    members: int

    def compile(self, step: Step) -> Callable[[Rounds, Rounds, Any, Rounds], tuple[Rounds, Rounds]]:
        """See `Spread`."""
        program = jax.pmap(
            _steps(step, partial(jax.lax.psum, axis_name="data")),
            axis_name="data",
            in_axes=(0, 2, 0, 0),
            donate_argnums=0,
        )
        return lambda states, batches, volumes, keys: _take_turns(program, states, batches, volumes, keys)

    def make(self, create: Callable[..., Any], *inputs: Any) -> Rounds:
        """See `Spread`."""
        return self.load(jax.jit(create)(*inputs))

    def share(self, batch_size: int) -> Share:
        """See `Spread`."""
        own = batch_size // jax.process_count()
        return slice(None), slice(jax.process_index() * own, (jax.process_index() + 1) * own)

    def place_batch(self, batch_SxFxB: Batch) -> Rounds:
        """See `Spread`."""
        D = jax.local_device_count()
        cut = {name: array.reshape(*array.shape[:2], D, -1, *array.shape[3:]) for name, array in batch_SxFxB.items()}
        return _deal(cut, self.members, axis=1)

    def place_volumes(self, volumes: Any) -> Any:
        """See `Spread`."""
        return _copies(volumes)

    def blank(self, create: Callable[[], Any]) -> Any:
        """See `Spread`."""
        # Checkpoints know nothing of the axis that pmap adds, so it comes and goes by way of the host.
        return jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), jax.eval_shape(create))

    def load(self, restored_F: Any) -> Rounds:
        """See `Spread`."""
        return [_copies(tree) for tree in _deal(restored_F, self.members)]

    def saved(self, state: Rounds) -> Any:
        """See `Spread`."""
        return jax.device_get(self.whole(state))

    def whole(self, rounds: Rounds) -> Any:
        """See `Spread`."""
        return _gather(jax.tree.map(lambda leaf: leaf.addressable_data(0)[0], rounds))


def steps_per_call(train: Train, on_host: bool) -> int:
    """Steps of one call: as set, or ten on an accelerator that has the volumes, but never across a due interruption."""
    wanted = train.steps_per_call or (1 if on_host or jax.default_backend() == "cpu" else 10)
    common = math.gcd(train.steps, train.log_every, train.validate_every, train.checkpoint_every)
    return max(n for n in range(1, min(wanted, common) + 1) if common % n == 0)


def free_bytes() -> int:
    """Memory that each of this process's devices has to spare; the devices of a CPU share the machine's."""
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    if not all("bytes_limit" in stat for stat in stats):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // jax.local_device_count()
    return min(stat["bytes_limit"] - stat["bytes_in_use"] for stat in stats)


def _steps(step: Step, total: Callable[[Any], Any]) -> Callable[..., tuple[Any, Any]]:
    """Make of a step of one network S steps of it, which still has its leading axis, of one."""

    def steps(state_1: Any, batch_Sx1xB: Any, volumes: Any, key_1: jax.Array) -> tuple[Any, Any]:
        def one(state: Any, batch: Any) -> tuple[Any, Any]:
            return step(state, batch, volumes, key_1[0], total)

        state, batch_SxB = _squeeze(state_1, 0), _squeeze(batch_Sx1xB, 1)
        if len(batch_SxB["weight"]) > 1:
            state, metrics_S = jax.lax.scan(one, state, batch_SxB)
        else:
            state, metrics = one(state, _squeeze(batch_SxB, 0))
            metrics_S = _expand(metrics)
        return _expand((state, metrics_S))

    return steps


def _take_turns(
    program: Callable[..., tuple[Any, Any]], states: Rounds, batches: Rounds, volumes: Any, keys: Rounds
) -> tuple[Rounds, Rounds]:
    done = [program(*own, volumes, key) for *own, key in zip(states, batches, keys, strict=True)]
    return [state for state, _ in done], [metrics for _, metrics in done]


def _deal(tree: Any, rounds: int, axis: int = 0) -> Rounds:
    """Deal networks on an axis to the rounds; a device's networks are neighbours there."""

    def turn(leaf: Any, number: int) -> Any:
        shape = leaf.shape
        rows = leaf.reshape(*shape[:axis], shape[axis] // rounds, rounds, *shape[axis + 1 :])
        return rows[(slice(None),) * (axis + 1) + (number,)]

    return [jax.tree.map(partial(turn, number=number), tree) for number in range(rounds)]


def _gather(rounds: Sequence[Any]) -> Any:
    """Undo `_deal`."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves, 1).reshape(-1, *leaves[0].shape[1:]), *rounds)


def _squeeze(tree: Any, axis: int) -> Any:
    return jax.tree.map(lambda leaf: jnp.squeeze(leaf, axis), tree)


def _expand(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf[None], tree)


def _copies(tree: Any) -> Any:
    """Copy a tree to each device of this process, with the leading axis that pmap wants."""
    return jax.pmap(lambda _, leaves: leaves, in_axes=(0, None))(np.arange(jax.local_device_count()), tree)
