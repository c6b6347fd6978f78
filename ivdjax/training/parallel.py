"""How a step is spread over devices: jit over a mesh. The only file that knows devices.

The batch is cut along its first axis over the mesh axis `data`; the state is whole on every device. The compiler adds
the sums over devices that the step's means ask for.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ivdjax.errors import UsageError


def mesh(batch_size: int) -> Mesh:
    """All devices along the axis `data`.

    Raises:
        UsageError: the batch cannot be dealt evenly to the devices.
    """
    devices = jax.device_count()
    if batch_size % devices:
        raise UsageError(f"--train.batch-size {batch_size}: must be a multiple of the {devices} devices")
    # Explicit axis types would want a sharding spelt out at every convolution.
    return jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Auto,))


def compile_step(step: Callable[..., Any], over: Mesh) -> Callable[..., Any]:
    """Compile `step(state, batch, key) -> (state, metrics)`; the old state's memory is given to the new one."""
    whole, cut = NamedSharding(over, P()), NamedSharding(over, P("data"))
    return jax.jit(step, in_shardings=(whole, cut, whole), out_shardings=(whole, whole), donate_argnums=0)


def place_state(make: Callable[[], Any], over: Mesh) -> Any:
    """Make a state on the mesh's devices, whole on each."""
    return jax.jit(make, out_shardings=NamedSharding(over, P()))()


def place_batch(batch: dict[str, np.ndarray], over: Mesh) -> dict[str, jax.Array]:
    """Put this process's share of a batch on its devices, as part of the whole run's batch."""
    cut = NamedSharding(over, P("data"))
    return {name: jax.make_array_from_process_local_data(cut, array) for name, array in batch.items()}


def like(old: jax.Array, new: Any) -> jax.Array:
    """Copy an array to where another of the same shape lies, in its type; a step may then be given its memory."""
    return jax.device_put(jax.numpy.array(new, old.dtype, copy=True), old.sharding, may_alias=False)
