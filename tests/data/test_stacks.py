import jax
import numpy as np
import pytest

from ivdjax.data import stacks

RNG = np.random.default_rng(0)
VOLUME_ZxHxWxC = RNG.normal(size=(6, 10, 12, 2)).astype(np.float32)


def copied(volume, centre, corner, K, window):
    out = np.full((K, *window, *volume.shape[3:]), 99, volume.dtype)
    stacks.copy(volume, centre, corner, out)
    return out


def test_a_stack_inside_the_volume_is_its_voxels():
    np.testing.assert_array_equal(copied(VOLUME_ZxHxWxC, 3, (2, 4), 3, (5, 6)), VOLUME_ZxHxWxC[2:5, 2:7, 4:10])


@pytest.mark.parametrize("centre", [0, 3, 5])
@pytest.mark.parametrize("row", [-20, -3, 0, 2, 7, 30])
@pytest.mark.parametrize("column", [-9, 0, 7, 13])
def test_what_lies_outside_repeats_the_border(centre, row, column):
    far = 40
    padded = np.pad(VOLUME_ZxHxWxC, [(2, 2), (far, far), (far, far), (0, 0)], mode="edge")
    for window in ((16, 8), (4, 20)):
        rows, columns = (slice(far + at, far + at + size) for at, size in zip((row, column), window, strict=True))
        expected = padded[centre : centre + 5, rows, columns]
        np.testing.assert_array_equal(copied(VOLUME_ZxHxWxC, centre, (row, column), 5, window), expected)


@pytest.mark.parametrize(("window", "L"), [((7, 8), 1), ((11, 8), 5), ((14, 20), 3)])
def test_host_and_accelerator_take_the_same_from_cases_of_any_size(window, L):
    sizes = [(6, 10, 12), (9, 13, 9), (4, 10, 10)]
    images = [RNG.normal(size=(*size, 2)).astype(np.float16) for size in sizes]
    labels = [RNG.integers(0, 2, size).astype(np.uint8) for size in sizes]
    volumes = stacks.pack(images, labels, 5, window)
    take = jax.jit(lambda volumes, place: stacks.take(volumes, place, 5, window, L))
    for case, (Z, H, W) in enumerate(sizes):
        for centre in (0, Z // 2, Z - 1):
            room = [H - window[0], W - window[1]]
            for corner in ([min(r, 0) for r in room], [max(r, 0) for r in room], [r // 2 for r in room]):
                stack, label = take(volumes, np.array([case, centre, *corner], np.int32))
                np.testing.assert_array_equal(stack, copied(images[case], centre, corner, 5, window))
                np.testing.assert_array_equal(label, copied(labels[case], centre, corner, L, window))


def test_all_stacks_have_their_slice_in_the_centre():
    stack_BxKxHxWxC = stacks.all_stacks(VOLUME_ZxHxWxC, np.arange(6), 3)
    np.testing.assert_array_equal(stack_BxKxHxWxC[:, 1], VOLUME_ZxHxWxC)
    np.testing.assert_array_equal(stack_BxKxHxWxC[1:, 0], VOLUME_ZxHxWxC[:-1])
