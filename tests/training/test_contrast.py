"""Each part of the intensity augmentation against the physics it claims."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from ivdjax.config import Augment
from ivdjax.data import dixon
from ivdjax.data.tissue import Tissue
from ivdjax.training import contrast

NOTHING = Augment(**{field.name: 0.0 for field in dataclasses.fields(Augment)})
KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
WATER, FAT = RNG.uniform(0, 1, (2, 3, 96, 80))
INN, OPP = dixon.signals(WATER, FAT)
# Each file has a scale of its own, and is then normalised.
IMAGES = jnp.stack([3 * FAT - 1, 0.5 * INN - 2, 7 * OPP + 1, 2 * WATER - 0.3], -1)
UNIT = RNG.uniform(0, 1, (3, 24, 20, 4)).astype(np.float32)


def with_part(**parts):
    return dataclasses.replace(NOTHING, **parts)


def fitted_share(target, *sources):
    """Share of a channel's variance that a weighted sum of others, and a constant, explain."""
    columns = np.stack([*(np.ravel(s) for s in sources), np.ones(np.size(target))], 1)
    target = np.ravel(np.asarray(target, np.float64))
    rest = target - columns @ np.linalg.lstsq(columns, target, rcond=None)[0]
    return 1 - rest.var() / target.var()


def test_remixed_channels_keep_the_dixon_laws():
    fat, inn, opp, wat = np.moveaxis(np.asarray(contrast.remix(KEY, IMAGES, dixon_names(), with_part(mix=0.4))), -1, 0)
    for new, old in zip((fat, inn, opp, wat), np.moveaxis(IMAGES, -1, 0), strict=True):
        assert np.abs(new - old).max() > 0.05
    assert fitted_share(inn, wat, fat) > 0.9999
    # The sizes of the two echoes' parts are those that inn shows.
    a, b, _ = np.linalg.lstsq(np.stack([wat.ravel(), fat.ravel(), np.ones(fat.size)], 1), inn.ravel(), rcond=None)[0]
    water, lipid = a * (wat - 2 * WATER.min() + 0.3), b * (fat - 3 * FAT.min() + 1)
    assert fitted_share(opp, np.abs(water - lipid)) > 0.98


def dixon_names():
    return ("fat", "inn", "opp", "wat")


def test_without_both_water_and_fat_nothing_is_remixed():
    np.testing.assert_array_equal(
        contrast.remix(KEY, IMAGES[..., 1:], ("inn", "opp", "wat"), with_part(mix=0.4, swap=1.0)), IMAGES[..., 1:]
    )


def test_a_swap_exchanges_fat_and_water_with_a_sharp_border():
    swapped_somewhere = 0
    for seed in range(8):
        new = np.asarray(contrast.remix(jax.random.key(seed), IMAGES, dixon_names(), with_part(swap=1.0)))
        np.testing.assert_array_equal(new[..., 1:3], IMAGES[..., 1:3])
        unit_new, unit_old = (
            (np.asarray(x) - IMAGES.min((0, 1, 2))) / np.ptp(IMAGES, (0, 1, 2)) for x in (new, IMAGES)
        )
        kept = np.isclose(unit_new, unit_old, atol=1e-5)[..., [0, 3]].all(-1)
        exchanged = np.isclose(unit_new[..., [0, 3]], unit_old[..., [3, 0]], atol=1e-5).all(-1)
        assert (kept | exchanged).all()
        swapped_somewhere += 0 < exchanged.mean() < 0.7
    assert swapped_somewhere >= 3


def test_decay_weakens_and_the_later_echo_more():
    unit = jnp.full((3, 24, 20, 4), 0.5)
    decayed = np.asarray(contrast.decay(KEY, unit, dixon_names(), with_part(decay=0.3)))
    assert (decayed <= 0.5).all()
    assert decayed.min() < 0.45
    np.testing.assert_allclose(np.log(2 * decayed[..., 1]), 2 * np.log(2 * decayed[..., 2]), atol=1e-5)


def test_the_bias_field_is_smooth_and_one_for_all_channels():
    gain = np.asarray(contrast.bias_field(KEY, jnp.asarray(UNIT), with_part(bias=0.3))) / UNIT
    np.testing.assert_allclose(gain, gain[..., :1].repeat(4, -1), rtol=1e-4)
    assert np.ptp(gain) > 0.1
    assert np.abs(np.diff(np.log(gain[..., 0]), axis=1)).max() < 0.1


def test_curves_are_the_identity_at_zero_and_turn_upside_down():
    np.testing.assert_allclose(contrast.curve(KEY, UNIT, NOTHING), UNIT, atol=1e-5)
    np.testing.assert_allclose(contrast.curve(KEY, UNIT, with_part(invert=1.0)), 1 - UNIT, atol=1e-5)
    bent = np.asarray(contrast.curve(KEY, UNIT, with_part(curve=0.2)))
    order = np.argsort(UNIT[..., 0].ravel())
    assert np.abs(np.diff(bent[..., 0].ravel()[order])).max() < 0.05  # a curve of the intensity alone


def test_blur_keeps_the_mean_and_stays_in_its_axes():
    image = jnp.asarray(RNG.normal(size=(5, 30, 30, 2)), jnp.float32)
    flat = contrast.blur(KEY, jnp.ones((3, 9, 9, 1)), with_part(blur_voxels=1.5, blur_through=0.6))
    np.testing.assert_allclose(flat, 1, atol=1e-5)
    in_plane = contrast.blur(KEY, image, with_part(blur_voxels=1.5))
    assert float(in_plane.std()) < 0.8 * float(image.std())
    one_slice = contrast.blur(KEY, image[:1], with_part(blur_voxels=1.5))
    np.testing.assert_allclose(one_slice, in_plane[:1], atol=1e-6)
    through = np.asarray(contrast.blur(jax.random.key(1), image, with_part(blur_through=0.6)))
    assert fitted_share(through[2], image[2], image[1] + image[3]) > 0.9999
    assert fitted_share(through[2], image[2]) < 0.999


def test_noise_has_the_second_moment_of_rice():
    for signal in (0.0, 0.5):
        noisy = contrast.noise(KEY, jnp.full((100, 100, 10), signal), 0.1)
        np.testing.assert_allclose((noisy**2).mean(), signal**2 + 2 * 0.1**2, rtol=0.02)
        assert noisy.min() >= 0


def test_every_set_of_channels_but_the_empty_one_is_left():
    keys = jax.random.split(KEY, 600)
    drop = jax.vmap(
        lambda key: contrast.drop_channels(key, jnp.asarray(UNIT[:1, :2, :2]), with_part(channel_dropout=0.9))
    )
    _, present = drop(keys)
    seen = {tuple(row) for row in np.asarray(present, int).tolist()}
    assert seen == set(itertools.product((0, 1), repeat=4)) - {(0, 0, 0, 0)}


def test_recolouring_gives_one_gain_a_tissue():
    tissue = jnp.asarray(RNG.choice([Tissue.MARROW, Tissue.DISC, Tissue.FLUID], (3, 96, 80)).astype(np.uint8))
    signal = jnp.stack([WATER + 0.1, FAT + 0.1], -1)
    np.testing.assert_allclose(contrast.recolour(KEY, signal, tissue, NOTHING), signal, rtol=1e-6)
    gain = np.asarray(contrast.recolour(KEY, signal, tissue, with_part(tissue=0.5)) / signal)
    of_tissue = [gain[np.asarray(tissue) == t] for t in (Tissue.MARROW, Tissue.DISC, Tissue.FLUID)]
    assert all(np.ptp(values, axis=0).max() < 1e-3 for values in of_tissue)
    means = [values.mean(0) for values in of_tissue]
    assert np.std(means, axis=0).min() > 0.02
    foreign = np.asarray(contrast.recolour(KEY, signal, tissue, with_part(foreign=1.0)))
    np.testing.assert_allclose(foreign[..., 1], signal[..., 1], rtol=1e-6)
    assert np.abs(foreign[..., 0] - signal[..., 0]).max() > 0.1


def test_a_rendered_stack_is_normalised_and_dixon():
    tissue = jnp.full(WATER.shape, Tissue.MUSCLE, jnp.uint8)
    stack = np.asarray(contrast.render(KEY, jnp.stack([WATER, FAT], -1), tissue, NOTHING))
    np.testing.assert_allclose(stack.mean((0, 1, 2)), 0, atol=1e-4)
    np.testing.assert_allclose(stack.std((0, 1, 2)), 1, atol=1e-3)
    fat, inn, _, wat = np.moveaxis(stack, -1, 0)
    assert fitted_share(inn, wat, fat) > 0.98
