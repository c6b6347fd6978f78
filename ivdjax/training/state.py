"""What training carries from step to step."""

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax import struct
from jax import Array

from ivdjax.data.pool import Pool

Params = dict[str, "Array | Params"]


@struct.dataclass
class State:
    """Weights, their running mean, the optimizer's memory and the number of steps made.

    The pool of phantoms, where an experiment draws its own, follows from the step, so it is in no checkpoint.
    """

    step: Array
    params: Params
    mean_params: Params
    optimizer: optax.OptState
    pool: Pool | None = None


def create(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    stack_shape: tuple[int, ...],
    key: Array,
    subsets: bool = False,
) -> State:
    """Return the state before the first step, for stacks of shape (B,K,H,W,C); pure, so it can be jitted.

    subsets: whether the network is told which channels are there.
    """
    present = (jnp.ones((1, stack_shape[-1])),) if subsets else ()
    params = model.init(key, jnp.zeros((1, *stack_shape[1:]), jnp.float32), *present)["params"]
    # Own arrays for the mean: the step gives its state's memory away, which it cannot do with one array twice.
    return State(jnp.zeros((), jnp.int32), params, jax.tree.map(jnp.copy, params), optimizer.init(params))
