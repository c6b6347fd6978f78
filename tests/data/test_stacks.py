import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ivdjax.data import stacks

VOLUME_ZxHxWxC = np.random.default_rng(0).normal(size=(6, 10, 12, 2)).astype(np.float32)


def test_a_stack_inside_the_volume_is_its_voxels():
    stack_KxHxWxC = stacks.gather(VOLUME_ZxHxWxC, 3, (2, 4), 3, (5, 6), np)
    np.testing.assert_array_equal(stack_KxHxWxC, VOLUME_ZxHxWxC[2:5, 2:7, 4:10])


def test_what_lies_outside_repeats_the_border():
    padded = np.pad(VOLUME_ZxHxWxC, [(2, 2), (4, 4), (4, 4), (0, 0)], mode="edge")
    stack_KxHxWxC = stacks.gather(VOLUME_ZxHxWxC, 0, (-3, 7), 5, (16, 8), np)
    np.testing.assert_array_equal(stack_KxHxWxC, padded[0:5, 1:17, 11:19])


@pytest.mark.parametrize(("centre", "corner"), [(0, (-2, -2)), (3, (1, 2)), (5, (6, 7))])
def test_host_and_accelerator_gather_the_same(centre, corner):
    on_host = stacks.gather(VOLUME_ZxHxWxC, centre, corner, 5, (7, 8), np)
    traced = jax.jit(lambda v, z, h, w: stacks.gather(v, z, (h, w), 5, (7, 8), jnp))
    np.testing.assert_array_equal(on_host, traced(VOLUME_ZxHxWxC, centre, *corner))


def test_all_stacks_have_their_slice_in_the_centre():
    stack_BxKxHxWxC = stacks.all_stacks(VOLUME_ZxHxWxC, np.arange(6), 3, np)
    np.testing.assert_array_equal(stack_BxKxHxWxC[:, 1], VOLUME_ZxHxWxC)
    np.testing.assert_array_equal(stack_BxKxHxWxC[1:, 0], VOLUME_ZxHxWxC[:-1])
