"""The signal equations against their identities, and the residuals against departures of known size."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ivdjax.data import dixon

SHAPE = (6, 24, 20)
scan = jax.jit(dixon.scan)
IDEAL = dixon.Scanner(r2star=0.0, noise=0.0, bias=0.0, ghost=0.0, coil_reach_mm=1e9)


@pytest.fixture(scope="module")
def tissue():
    """Water and fat that are both present everywhere, water leading in about half of the voxels."""
    water, fat = jax.random.uniform(jax.random.key(0), (2, *SHAPE), minval=0.1)
    return water, fat


def test_ideal_echoes_are_sum_and_difference(tissue):
    water, fat = tissue
    inn, opp = dixon.signals(water, fat)
    np.testing.assert_allclose(inn, water + fat, rtol=1e-6)
    np.testing.assert_allclose(opp, np.abs(water - fat), rtol=1e-6)


def test_each_echo_decays_for_its_own_time(tissue):
    water, fat = tissue
    inn, opp = dixon.signals(water, fat, r2star=40.0)
    np.testing.assert_allclose(inn, (water + fat) * math.exp(-0.0048 * 40), rtol=1e-5)
    np.testing.assert_allclose(opp, np.abs(water - fat) * math.exp(-0.0024 * 40), rtol=1e-5)


def test_a_single_peak_at_its_own_echo_times_is_ideal(tissue):
    water, fat = tissue
    turn_s = 1 / (3.4 * dixon.PROTON_MHZ_PER_TESLA * 1.5)
    real = dixon.signals(water, fat, spectrum=((-3.4, 1.0),), te_in_s=turn_s, te_opposed_s=turn_s / 2)
    for echo, ideal in zip(real, dixon.signals(water, fat), strict=True):
        np.testing.assert_allclose(echo, ideal, atol=1e-5)


def test_six_peaks_never_line_up_so_fat_loses_signal_but_water_does_not():
    pure = jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0])
    at_once, _ = dixon.signals(*pure, spectrum=dixon.FAT_SPECTRUM, te_in_s=0.0)
    np.testing.assert_allclose(at_once, 1, rtol=1e-6)
    inn, opp = dixon.signals(*pure, spectrum=dixon.FAT_SPECTRUM)
    np.testing.assert_allclose([inn[0], opp[0]], 1, rtol=1e-6)
    assert 0.6 < inn[1] < 0.98
    assert 0.6 < opp[1] < 0.98


def test_separation_inverts_the_ideal_echoes_and_a_wrong_choice_swaps(tissue):
    water, fat = tissue
    echoes = dixon.signals(water, fat)
    wat, lipid = dixon.separate(*echoes, water > fat)
    np.testing.assert_allclose(wat, water, atol=1e-6)
    np.testing.assert_allclose(lipid, fat, atol=1e-6)
    wat, lipid = dixon.separate(*echoes, water <= fat)
    np.testing.assert_allclose(wat, fat, atol=1e-6)
    np.testing.assert_allclose(lipid, water, atol=1e-6)


def test_separation_never_goes_below_zero():
    wat, fat = dixon.separate(jnp.array([0.9]), jnp.array([1.0]), jnp.array([True]))
    assert (float(wat[0]), float(fat[0])) == (pytest.approx(0.95), 0.0)


@pytest.mark.parametrize("magnitude", [0.0, 0.3, 2.0])
def test_noise_is_rician(magnitude):
    sigma, n = 0.2, 100_000
    noisy = np.asarray(dixon.rician(jax.random.key(1), jnp.full(n, magnitude), sigma))
    assert np.mean(noisy**2) == pytest.approx(magnitude**2 + 2 * sigma**2, rel=0.02)
    if magnitude == 0:
        assert noisy.mean() == pytest.approx(sigma * math.sqrt(math.pi / 2), rel=0.02)
        assert noisy.std() == pytest.approx(sigma * math.sqrt(2 - math.pi / 2), rel=0.02)


def test_smooth_field_has_unit_variance_and_does_not_depend_on_the_grid():
    key = jax.random.key(2)
    fine = dixon.smooth_field(key, dixon.axes_mm((9, 161, 161), (4.0, 2.0, 2.0)), 10.0)
    coarse = dixon.smooth_field(key, dixon.axes_mm((9, 81, 81), (4.0, 4.0, 4.0)), 10.0)
    np.testing.assert_allclose(fine[:, ::2, ::2], coarse, atol=1e-4)
    assert float(jnp.std(fine)) == pytest.approx(1, abs=0.1)
    assert float(jnp.std(jnp.diff(fine, axis=2))) < 0.4


def test_a_perfect_scanner_gives_back_what_it_was_given():
    water = jnp.full(SHAPE, 0.8).at[:3].set(0)
    image = scan(jax.random.key(3), water, jnp.zeros_like(water), IDEAL)
    assert image.shape == (*water.shape, 4)
    assert image.dtype == jnp.float32
    for channel, expected in enumerate((0 * water, water, water, water)):
        np.testing.assert_allclose(image[..., channel], expected, atol=1e-5)


def test_the_coil_falls_off_from_back_to_belly():
    scanner = IDEAL._replace(coil_reach_mm=100.0)
    gain = np.asarray(dixon.sensitivity(jax.random.key(0), (2, 8, 128), scanner))[0, 0]
    assert np.all(np.diff(gain) > 0)
    assert gain[0] < 0.5 * gain[-1]


def test_a_swap_exchanges_water_and_fat_where_it_strikes(tissue):
    def scanned(share):
        return np.asarray(scan(jax.random.key(4), *tissue, IDEAL._replace(swap=share)))

    sound, swapped = scanned(0.0), scanned(1.0)
    np.testing.assert_array_equal(swapped, sound[..., [3, 1, 2, 0]])
    struck = (scanned(0.5) != sound).any(-1)
    assert 0 < struck.mean() < 1


def test_at_three_tesla_the_same_phases_come_in_half_the_time(tissue):
    def at(tesla, **parts):
        return np.asarray(scan(jax.random.key(4), *tissue, IDEAL._replace(tesla=tesla, **parts)))

    np.testing.assert_allclose(at(3.0), at(1.5), atol=1e-5)
    np.testing.assert_allclose(at(3.0, r2star=40.0), at(1.5, r2star=20.0), atol=1e-5)


def test_dephasing_takes_what_a_sinc_does_of_a_slope():
    slope_ppm = 0.05
    error = slope_ppm * np.arange(12.0)[None, None, :] * np.ones((3, 4, 1))
    left = dixon.dephasing(jnp.asarray(error), dixon.TE_IN_S, 1.5)
    np.testing.assert_allclose(left, np.sinc(slope_ppm * 1.5 * dixon.PROTON_MHZ_PER_TESLA * dixon.TE_IN_S), rtol=1e-4)


def test_a_field_error_beyond_half_the_distance_to_fat_swaps_there_alone(tissue):
    sound = np.asarray(scan(jax.random.key(4), *tissue, IDEAL))
    scanner = IDEAL._replace(spacing_mm=(20.0, 20.0, 20.0), b0_ppm=2.0)
    grid_mm = dixon.axes_mm(SHAPE, scanner.spacing_mm)
    key_field = jax.random.split(jax.random.key(4), 6)[5]
    error = np.asarray(dixon.field_error(key_field, grid_mm, scanner))
    struck = np.abs(error) > dixon.SWAP_PPM
    assert 0 < struck.mean() < 1
    image = np.asarray(scan(jax.random.key(4), *tissue, scanner))
    ours = image[..., 3] > image[..., 0]
    water_leads = sound[..., 3] > sound[..., 0]
    np.testing.assert_array_equal(ours, water_leads ^ struck)


def test_a_cut_off_k_space_rings_and_keeps_the_mean():
    edge = jnp.zeros((3, 32, 32)).at[:, :, 16:].set(1.0)
    whole = dixon.acquire(edge, IDEAL)
    np.testing.assert_allclose(whole, edge, atol=1e-5)
    cut = np.asarray(dixon.acquire(edge, IDEAL._replace(resolution=0.5)))
    assert 1.05 < cut.max() < 1.15  # Gibbs: 9 % of the step
    np.testing.assert_allclose(cut.mean(), 0.5, atol=1e-5)
    np.testing.assert_allclose(cut, cut[:, :1].repeat(32, 1), atol=1e-5)  # along the step alone


def test_neighbouring_slices_mix_and_fat_moves_along_the_readout():
    one = jnp.zeros((5, 8, 8)).at[2].set(1.0)
    mixed = dixon.acquire(one, IDEAL._replace(slice_mix=0.2))
    np.testing.assert_allclose(mixed[:, 4, 4], [0, 0.2, 0.6, 0.2, 0], atol=1e-6)
    line = jnp.zeros((2, 8, 8)).at[:, :, 3].set(1.0)
    image = scan(jax.random.key(0), jnp.zeros_like(line), line, IDEAL._replace(fat_shift=1.0))
    np.testing.assert_array_equal(np.argmax(image[..., 0], axis=2), 4)


def test_residuals_vanish_on_exact_data_whatever_the_scales(tissue):
    wat, fat = (np.asarray(x) for x in tissue)
    got = dixon.residuals(fat=fat, inn=7.3 * (wat + fat), opp=0.2 * np.abs(wat - fat), wat=wat)
    assert got == pytest.approx((0, 0), abs=1e-6)


def test_residuals_measure_a_known_departure():
    ones = np.ones((10, 10, 10))
    ripple = 0.1 * np.where(np.indices(ones.shape).sum(0) % 2, 1, -1)
    got = dixon.residuals(fat=ones, inn=4 * (1 + ripple), opp=2 * (1 + 2 * ripple), wat=3 * ones)
    assert got == pytest.approx((0.1, 0.1))  # opposed: 0.2 of |W - F| = 2 is 0.1 of W + F = 4


def test_residuals_of_exchanged_channels_are_large(tissue):
    wat, fat = (np.asarray(x) for x in tissue)
    inn, opp = wat + fat, np.abs(wat - fat)
    assert dixon.residuals(fat=wat, inn=inn, opp=opp, wat=fat) == pytest.approx((0, 0), abs=1e-6)  # blind to this one
    assert min(dixon.residuals(fat=fat, inn=opp, opp=inn, wat=wat)) > 0.1


def test_residuals_are_nan_without_the_channels_they_need(tissue):
    wat, fat = (np.asarray(x) for x in tissue)
    in_phase, opposed = dixon.residuals(fat=fat, inn=wat + fat, wat=wat)
    assert in_phase == pytest.approx(0, abs=1e-6)
    assert math.isnan(opposed)
    assert all(map(math.isnan, dixon.residuals(inn=wat, opp=wat, wat=wat)))
    empty = np.zeros(SHAPE)
    assert all(map(math.isnan, dixon.residuals(fat=empty, inn=empty, opp=empty, wat=empty)))
