import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ivdjax.bench import floor
from ivdjax.bench.floor import Device, Layer

X, KERNEL = jnp.zeros((2, 10, 12, 3)), jnp.zeros((3, 3, 3, 5))


def convolve(x, kernel, stride=1):
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, (stride, stride), "SAME", dimension_numbers=layout)


def test_a_matrix_product_is_two_operations_a_multiplication():
    a, b = jnp.zeros((4, 6), jnp.bfloat16), jnp.zeros((6, 5), jnp.bfloat16)
    assert floor.layers(jnp.matmul, a, b) == [Layer(2 * 4 * 6 * 5, 2 * (24 + 30 + 20))]


def test_a_convolution_and_its_gradients_are_the_same_work():
    def gradients(x, kernel):
        out, back = jax.vjp(convolve, x, kernel)
        return back(out)

    work = 2 * (2 * 10 * 12) * 5 * 9 * 3
    size = 4 * (X.size + KERNEL.size + 2 * 10 * 12 * 5)
    assert floor.layers(gradients, X, KERNEL) == [Layer(work, size)] * 3


def test_zeros_between_the_pixels_of_a_strided_gradient_are_no_work():
    def gradients(x, kernel):
        out, back = jax.vjp(lambda x, kernel: convolve(x, kernel, 2), x, kernel)
        return back(out)

    work = {layer.flops for layer in floor.layers(gradients, X, KERNEL)}
    assert work == {2.0 * (2 * 5 * 6) * 5 * 9 * 3}


def test_functions_inside_functions_are_counted_as_often_as_they_run():
    matrix = jnp.zeros((4, 4))

    @jax.jit
    def repeat(x):
        return jax.lax.scan(lambda x, _: (jax.checkpoint(jnp.matmul)(x, matrix), None), x, length=3)[0]

    assert [layer.flops for layer in floor.layers(repeat, matrix)] == [128.0] * 3


def test_the_slower_of_both_counts_layer_by_layer():
    layers = [Layer(flops=100.0, bytes=10.0), Layer(flops=10.0, bytes=40.0)]
    assert floor.seconds(layers, Device(flops_s=10.0, bytes_s=5.0)) == pytest.approx(10 + 8)


def test_a_device_is_measured():
    device = floor.measure("float32")
    assert np.isfinite([device.flops_s, device.bytes_s]).all()
    assert 1e8 < device.flops_s < 1e16
    assert 1e8 < device.bytes_s < 1e14
