"""What training carries from step to step."""

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax import struct
from jax import Array

Params = dict[str, "Array | Params"]


@struct.dataclass
class State:
    """Weights, their running mean, the optimizer's memory and the number of steps made."""

    step: Array
    params: Params
    mean_params: Params
    optimizer: optax.OptState


def create(
    model: nn.Module, optimizer: optax.GradientTransformation, stack_shape: tuple[int, ...], key: Array
) -> State:
    """Return the state before the first step, for stacks of shape (B,K,H,W,C); pure, so it can be jitted."""
    params = model.init(key, jnp.zeros((1, *stack_shape[1:]), jnp.float32))["params"]
    # Own arrays for the mean: the step gives its state's memory away, which it cannot do with one array twice.
    return State(jnp.zeros((), jnp.int32), params, jax.tree.map(jnp.copy, params), optimizer.init(params))
