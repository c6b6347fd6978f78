import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ivdjax.config import Augment
from ivdjax.training import augment

CHANNELS = ("fat", "wat")
CHANGE = jax.jit(augment.augment, static_argnums=(3, 4))
NOTHING = Augment(**{field.name: 0.0 for field in dataclasses.fields(Augment)})
ROWS, COLUMNS = np.mgrid[0:24, 0:20]
LABEL_HxW = ((ROWS - 12) ** 2 + (COLUMNS - 8) ** 2 < 25).astype(np.uint8)
STACK_KxHxWxC = np.stack([LABEL_HxW + 0.1 * k for k in range(3)])[..., None].repeat(2, -1).astype(np.float32)


def change(config, seed=0):
    stack, label, present = CHANGE(jax.random.key(seed), STACK_KxHxWxC, LABEL_HxW[None], config, CHANNELS)
    np.testing.assert_array_equal(present, 1)
    return stack, label[0]


def test_with_every_part_off_a_sample_stays_as_it_is():
    stack, label = change(NOTHING)
    np.testing.assert_allclose(stack, STACK_KxHxWxC, atol=1e-5)
    np.testing.assert_array_equal(label, LABEL_HxW)


@pytest.mark.parametrize("part", ["rotation_degrees", "log_scale", "log_stretch", "shift_voxels"])
def test_geometry_moves_image_and_label_together(part):
    config = dataclasses.replace(NOTHING, **{part: {"rotation_degrees": 30.0, "shift_voxels": 2.0}.get(part, 0.4)})
    changed = 0
    for seed in range(4):
        stack, label = change(config, seed)
        # The nearest of the four pixels that are blended has a quarter of the weight or more.
        assert (np.abs(stack[0, ..., 0] - label) < 0.76).all()
        np.testing.assert_allclose(stack[2] - stack[0], 0.2, atol=1e-5)
        changed += not np.array_equal(label, LABEL_HxW)
    assert changed >= 2


def test_labels_of_all_slices_move_and_flip_with_their_slices():
    label_KxHxW = np.stack([np.roll(LABEL_HxW, k, 1) for k in range(3)])
    stack_KxHxWxC = np.repeat(label_KxHxW[..., None].astype(np.float32), 2, -1)
    config = dataclasses.replace(NOTHING, flip=1.0, rotation_degrees=20.0)
    stack, label, _ = CHANGE(jax.random.key(3), stack_KxHxWxC, label_KxHxW, config, CHANNELS)
    assert (np.abs(stack[..., 0] - label) < 0.76).all()
    one_by_one = [
        CHANGE(jax.random.key(3), stack_KxHxWxC, label[None], config, CHANNELS)[1][0] for label in label_KxHxW
    ]
    np.testing.assert_array_equal(label, one_by_one[::-1])


def test_a_known_turn_puts_pixels_where_it_should(monkeypatch):
    monkeypatch.setattr(jax.random, "normal", lambda key, shape=(): jnp.ones(shape))
    _, label = augment.affine(
        jax.random.key(0), STACK_KxHxWxC, LABEL_HxW[None], dataclasses.replace(NOTHING, rotation_degrees=180.0)
    )
    np.testing.assert_array_equal(label[0], LABEL_HxW[::-1, ::-1])


def test_a_known_shift_puts_pixels_where_it_should(monkeypatch):
    monkeypatch.setattr(jax.random, "normal", lambda key, shape=(): jnp.ones(shape))
    stack, label = augment.affine(
        jax.random.key(0), STACK_KxHxWxC, LABEL_HxW[None], dataclasses.replace(NOTHING, shift_voxels=3.0)
    )
    np.testing.assert_array_equal(label[0, :-3, :-3], LABEL_HxW[3:, 3:])
    np.testing.assert_allclose(stack[:, :-3, :-3], STACK_KxHxWxC[:, 3:, 3:], atol=1e-5)


def test_flip_reverses_the_slices_half_of_the_time():
    config = dataclasses.replace(NOTHING, flip=0.5)
    flipped = [bool(change(config, seed)[0][0, 0, 0, 0] > 0.1) for seed in range(40)]
    assert 8 < sum(flipped) < 32
    np.testing.assert_allclose(change(dataclasses.replace(NOTHING, flip=1.0))[0], STACK_KxHxWxC[::-1], atol=1e-5)


@pytest.mark.parametrize("part", ["mix", "curve", "gain", "offset", "log_gamma", "noise"])
def test_intensity_parts_leave_the_label_and_treat_channels_apart(part):
    stack, label = change(dataclasses.replace(NOTHING, **{part: 0.5}))
    np.testing.assert_array_equal(label, LABEL_HxW)
    assert not np.allclose(stack, STACK_KxHxWxC, atol=1e-3)
    assert not np.allclose(stack[..., 0], stack[..., 1], atol=1e-3)
    assert np.isfinite(stack).all()


@pytest.mark.parametrize("part", ["decay", "bias", "invert", "blur_voxels", "blur_through"])
def test_every_other_part_is_reached_and_leaves_the_label(part):
    changed = 0
    for seed in range(6):
        stack, label = change(dataclasses.replace(NOTHING, **{part: 0.9}), seed)
        np.testing.assert_array_equal(label, LABEL_HxW)
        assert np.isfinite(stack).all()
        changed += not np.allclose(stack, STACK_KxHxWxC, atol=1e-3)
    assert changed >= 3


def test_dropped_channels_are_zero_and_declared():
    config = dataclasses.replace(NOTHING, channel_dropout=1.0)
    seen = set()
    for seed in range(12):
        stack, _, present = CHANGE(jax.random.key(seed), STACK_KxHxWxC + 1, LABEL_HxW, config, CHANNELS)
        np.testing.assert_array_equal(np.abs(stack).max((0, 1, 2)) > 0, present > 0)
        seen.add(tuple(np.asarray(present)))
    assert seen == {(0, 1), (1, 0)}


def test_same_key_same_change():
    np.testing.assert_array_equal(change(Augment(), 3)[0], change(Augment(), 3)[0])
    assert not np.array_equal(change(Augment(), 3)[0], change(Augment(), 4)[0])
