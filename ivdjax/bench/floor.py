"""The floor of a program's time: what its convolutions and matrix products cost at least on this device.

A layer cannot be done faster than its multiplications at the device's peak, nor than its arrays are read and written
once at the device's bandwidth (the roofline of Williams 2009, doi 10.1145/1498765.1498785). The floor of the program
is the sum of the larger of both over its layers; norms, activations and the optimizer are given for nothing.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import ShapedArray
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var

from ivdjax.bench.timing import shortest


@dataclass(frozen=True)
class Layer:
    """One convolution or matrix product."""

    flops: float
    """Multiplications and additions; those with the zeros of a padding count."""
    bytes: float
    """Size of both operands and of the result."""


@dataclass(frozen=True)
class Device:
    """What a device can do."""

    flops_s: float
    """Multiplications and additions a second of a large matrix product."""
    bytes_s: float
    """Bytes read and written a second by a large copy."""


def layers(function: Callable[..., Any], *arguments: Any) -> list[Layer]:
    """Convolutions and matrix products of a function, those of its gradients and of functions inside it, too.

    Args:
        function: pure; it is traced, not run.
        arguments: arrays, or their shapes and types.
    """
    return list(_walk(jax.make_jaxpr(function)(*arguments).jaxpr))


def seconds(work: list[Layer], device: Device) -> float:
    """Sum over the layers of the larger of work over peak and bytes over bandwidth."""
    return sum(max(layer.flops / device.flops_s, layer.bytes / device.bytes_s) for layer in work)


def measure(dtype: str) -> Device:
    """Peak and bandwidth of the default device in a type of number."""
    small = jax.default_backend() == "cpu"
    n, size, repeats = (1536, 2**28, 4) if small else (8192, 2**30, 20)
    matrix = jax.random.normal(jax.random.key(0), (n, n)).astype(dtype)
    factor = matrix / math.sqrt(n)  # so that repeated products stay finite

    # The number of repeats is an argument: a compiler that knew it could merge the repeats.
    @jax.jit
    def multiply(matrix: jax.Array, factor: jax.Array, repeats: int) -> jax.Array:
        return jax.lax.fori_loop(0, repeats, lambda _, x: x @ factor, matrix)

    # The next repeat writes where this one read: new memory would be measured with the time it takes to get it.
    @jax.jit
    def copy(vector: jax.Array, repeats: int) -> jax.Array:
        return jax.lax.fori_loop(0, repeats, lambda i, x: -x, vector)

    vector = jnp.ones(size // matrix.dtype.itemsize, dtype)
    calls = {"multiply": lambda: multiply(matrix, factor, repeats), "copy": lambda: copy(vector, repeats)}
    taken = shortest(calls, rounds=5)
    return Device(2 * n**3 * repeats / taken["multiply"], 2 * vector.nbytes * repeats / taken["copy"])


def _walk(jaxpr: Jaxpr, times: int = 1) -> Iterator[Layer]:
    for equation in jaxpr.eqns:
        if equation.primitive.name in _FLOPS:
            arrays = [_array(variable) for variable in [*equation.invars, *equation.outvars]]
            size = sum(math.prod(array.shape) * array.dtype.itemsize for array in arrays)
            yield from [Layer(_FLOPS[equation.primitive.name](equation), size)] * times
        length = equation.params["length"] if equation.primitive.name == "scan" else 1
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=_is_jaxpr):
            if isinstance(inner, ClosedJaxpr):
                inner = inner.jaxpr
            if isinstance(inner, Jaxpr):
                yield from _walk(inner, times * length)


def _array(variable: Var | Literal) -> ShapedArray:
    return cast(ShapedArray, variable.aval)


def _is_jaxpr(value: Any) -> bool:
    return isinstance(value, Jaxpr | ClosedJaxpr)


def _convolution(equation: JaxprEqn) -> float:
    kernel, out = _array(equation.invars[1]), _array(equation.outvars[0])
    features = kernel.shape[equation.params["dimension_numbers"].rhs_spec[0]]
    # A gradient of a strided convolution puts zeros between the pixels; no work need be done on those.
    spread = math.prod(equation.params["lhs_dilation"])
    return 2.0 * math.prod(out.shape) * math.prod(kernel.shape) / features / spread


def _product(equation: JaxprEqn) -> float:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left, out = _array(equation.invars[0]), _array(equation.outvars[0])
    return 2.0 * math.prod(out.shape) * math.prod(np.take(left.shape, contracted))


_FLOPS: dict[str, Callable[[JaxprEqn], float]] = {"conv_general_dilated": _convolution, "dot_general": _product}
