"""Two-point Dixon imaging as signal equations: what a scanner measures of water and fat, and makes of it.

The digital spine, the checks of a data set and the augmentation all take their physics from here. A voxel
holds water W and fat F. Fat precesses more slowly, so that one echo catches the two aligned (in phase, W + F)
and an earlier one catches them against each other (opposed, |W - F|). Half the sum and half the difference of
these magnitudes are the larger and the smaller of W and F (Dixon, Radiology 1984; 153:189); the magnitudes do
not say which is which.

Channel order everywhere: fat, inn, opp, wat.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

# At 1.5 T; at another field they go with its inverse.
TE_OPPOSED_S = 2.4e-3
TE_IN_S = 4.8e-3
SWAP_PPM = 1.7  # half the distance from water to fat: beyond it a separation takes one for the other
PROTON_MHZ_PER_TESLA = 42.577

# Shift from water in ppm and share of the signal, of the six peaks of human fat
# (Hamilton et al., NMR Biomed 2011; 24:784, as used by Hernando's toolbox for fat-water separation).
FAT_SPECTRUM = ((-3.80, 0.087), (-3.40, 0.693), (-2.60, 0.128), (-1.94, 0.004), (-0.39, 0.039), (0.60, 0.048))


# Smooth fields repeat after about this far along Z, H, W: more than any field of view of a lumbar spine.
FIELD_PERIOD_MM = (150.0, 500.0, 500.0)
BIAS_PITCH_MM = 90.0  # how quickly the smooth part of the bias field varies


class Scanner(NamedTuple):
    """One scan's departures from the ideal; every field may be a traced number, so a batch may draw its own.

    Signals are in units in which fresh disc or spinal fluid is about 1.
    """

    spacing_mm: tuple[float, float, float] = (2.0, 1.25, 1.25)  # of the grid, Z, H, W
    r2star: ArrayLike = 18.0  # 1/s, one value for all tissues
    noise: ArrayLike = 0.012  # standard deviation of the real and of the imaginary part of an echo
    coil_mm: ArrayLike = 95.0  # the coil lies this far behind the grid's centre
    coil_reach_mm: ArrayLike = 150.0  # sensitivity falls by e over this distance from the coil
    bias: ArrayLike = 0.06  # standard deviation of the log of the smooth random part of the bias field
    ghost: ArrayLike = 0.012  # share of the signal that breathing repeats along H, the phase direction
    swap: ArrayLike = 0.0  # share of the volume, in smooth regions, where water and fat are exchanged
    tesla: jax.Array | float = 1.5  # field strength; the echo times go with its inverse
    b0_ppm: ArrayLike = 0.0  # standard deviation of the field's error, smooth over the body
    b0_steep_ppm: ArrayLike = 0.0  # the same of its steep part, as near gas, which dephases voxels
    fat_shift: ArrayLike = 0.0  # voxels by which fat is displaced along W, the readout; 0 to 1
    resolution: ArrayLike = 1.0  # share of k-space, along H and W, that was acquired; what is missing rings at edges
    slice_mix: ArrayLike = 0.0  # share of each neighbouring slice in a slice, by an imperfect slice profile


def signals(
    water: ArrayLike,
    fat: ArrayLike,
    *,
    r2star: ArrayLike = 0.0,
    te_in_s: jax.Array | float = TE_IN_S,
    te_opposed_s: jax.Array | float = TE_OPPOSED_S,
    spectrum: tuple[tuple[float, float], ...] | None = None,
    tesla: ArrayLike = 1.5,
) -> tuple[jax.Array, jax.Array]:
    """(inn, opp), magnitudes of the in-phase and the opposed echo, noise-free, in the inputs' unit and shape.

    water, fat: non-negative, of one shape, any unit. r2star: decay rate in 1/s, a number or a map of that shape.
    spectrum: None means ideal echoes, fat exactly with and exactly against water. Otherwise (ppm, share) peaks,
    such as FAT_SPECTRUM, and their phases at the two echo times are computed for a field of `tesla`, which may be
    traced, as the echo times.
    """
    water, fat = jnp.asarray(water), jnp.asarray(fat)
    if spectrum is None:
        inn, opp = water + fat, jnp.abs(water - fat)
    else:
        ppm, share = (np.array(column) for column in zip(*spectrum, strict=True))
        share = share / share.sum()  # published shares are rounded
        hertz = ppm * PROTON_MHZ_PER_TESLA * tesla
        inn, opp = (
            jnp.hypot(water + fat * jnp.sum(share * jnp.cos(angle)), fat * jnp.sum(share * jnp.sin(angle)))
            for angle in (2 * np.pi * hertz * te for te in (te_in_s, te_opposed_s))
        )
    return inn * jnp.exp(-te_in_s * r2star), opp * jnp.exp(-te_opposed_s * r2star)


def separate(inn: jax.Array, opp: jax.Array, water_leads: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """(water, fat) as a two-point scanner reconstructs them from its two magnitudes, all of one shape.

    water_leads: True where water is taken to be the larger of the two. The magnitudes cannot tell; a scanner
    infers it from the phase, and where it errs, water and fat change places. The smaller one is held at zero,
    because the longer decay of the in-phase echo can bring inn below opp.
    """
    larger, smaller = (inn + opp) / 2, jnp.maximum((inn - opp) / 2, 0)
    return jnp.where(water_leads, larger, smaller), jnp.where(water_leads, smaller, larger)


def rician(key: jax.Array, magnitude: jax.Array, sigma: ArrayLike) -> jax.Array:
    """Magnitude after complex Gaussian noise of standard deviation `sigma` in each part.

    Its square has mean magnitude^2 + 2 sigma^2 (Gudbjartsson and Patz, Magn Reson Med 1995; 34:910).
    """
    noise = sigma * jax.random.normal(key, (2, *magnitude.shape), magnitude.dtype)
    return jnp.hypot(magnitude + noise[0], noise[1])


def axes_mm(shape_ZxHxW: Sequence[int], spacing_mm: Sequence[ArrayLike]) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Voxel centres in mm from the grid's centre: arrays (Z, 1, 1), (1, H, 1) and (1, 1, W)."""
    z, h, w = ((jnp.arange(n) - (n - 1) / 2) * mm for n, mm in zip(shape_ZxHxW, spacing_mm, strict=True))
    return z[:, None, None], h[None, :, None], w[None, None, :]


def smooth_field(
    key: jax.Array,
    grid_mm: Sequence[jax.Array],
    pitch_mm: float | tuple[float, float, float],
) -> jax.Array:
    """Random field (Z, H, W) of mean 0 and variance about 1, smooth over `pitch_mm` (one number, or Z, H, W).

    Normal numbers on a lattice are spread by cubic B-splines. The lattice lies in mm about the grid's centre,
    not in voxels, so one key is one field on every grid.
    """
    pitch_mm = pitch_mm if isinstance(pitch_mm, tuple) else (pitch_mm,) * 3
    counts = [max(4, round(period / pitch)) for period, pitch in zip(FIELD_PERIOD_MM, pitch_mm, strict=True)]
    basis = [_spline(x.reshape(-1) / pitch, n) for x, pitch, n in zip(grid_mm, pitch_mm, counts, strict=True)]
    return jnp.einsum("zi,hj,wk,ijk->zhw", *basis, jax.random.normal(key, counts), optimize="optimal")


def _spline(position: jax.Array, n: int) -> jax.Array:
    """Weights (len(position), n) of cubic B-splines on a periodic lattice, scaled to keep unit variance."""
    t = jnp.abs(jnp.mod(position[:, None] - jnp.arange(n) + n / 2, n) - n / 2)
    weight = jnp.where(t < 1, 2 / 3 - t**2 + t**3 / 2, jnp.maximum(2 - t, 0) ** 3 / 6)
    return weight / jnp.sqrt(0.4794)  # the mean sum of squared weights, 151 / 315


def sensitivity(key: jax.Array, shape_ZxHxW: Sequence[int], scanner: Scanner) -> jax.Array:
    """Smooth positive bias field (Z, H, W): 1 near a coil under the back, falling towards the belly."""
    z_mm, h_mm, w_mm = axes_mm(shape_ZxHxW, scanner.spacing_mm)
    behind_mm = scanner.coil_mm - w_mm
    # Near the coil the fall-off is rounded over 25 mm; a bare exponential has a cusp there.
    falloff_W = jnp.exp((25.0 - jnp.hypot(behind_mm, 25.0)) / scanner.coil_reach_mm)
    smooth_ZxHxW = smooth_field(key, (z_mm, h_mm, w_mm), BIAS_PITCH_MM)
    return falloff_W * jnp.exp(scanner.bias * smooth_ZxHxW)


def field_error(key: jax.Array, grid_mm: Sequence[jax.Array], scanner: Scanner) -> jax.Array:
    """Error of the main field (Z, H, W) in ppm: smooth over the body, and steep in places, as around gas."""
    key_smooth, key_steep = jax.random.split(key)
    smooth_ZxHxW = smooth_field(key_smooth, grid_mm, 110.0)
    # The cube of a normal number, of variance 15, is small almost everywhere and large in a few places.
    steep_ZxHxW = smooth_field(key_steep, grid_mm, 35.0) ** 3 / np.sqrt(15)
    return scanner.b0_ppm * smooth_ZxHxW + scanner.b0_steep_ppm * steep_ZxHxW


def dephasing(error_ppm_ZxHxW: jax.Array, te_s: jax.Array | float, tesla: ArrayLike) -> jax.Array:
    """Share of the signal (Z, H, W) left at an echo time where the field varies across a voxel.

    The mean of a phase that runs evenly over a range is a sinc; here its Gaussian of the same curvature at zero.
    """
    turns = te_s * PROTON_MHZ_PER_TESLA * tesla
    axes = [i for i in range(3) if error_ppm_ZxHxW.shape[i] > 1]
    across = [jnp.asarray(jnp.gradient(error_ppm_ZxHxW, axis=i)) for i in axes]
    squares = sum(((np.pi * turns * step) ** 2 for step in across), jnp.zeros(()))
    return jnp.exp(-squares / 6)


def acquire(signal_ZxHxW: jax.Array, scanner: Scanner) -> jax.Array:
    """A signal (Z, H, W) as the imaging sees it: k-space cut off along H and W, neighbouring slices mixed in."""
    for axis in (1, 2):
        n = signal_ZxHxW.shape[axis]
        kept_n = jnp.abs(jnp.fft.fftfreq(n)) <= 0.5 * jnp.asarray(scanner.resolution)
        lines_nxn = jnp.fft.ifft(kept_n[:, None] * jnp.fft.fft(jnp.eye(n), axis=0), axis=0).real
        signal_ZxHxW = jnp.moveaxis(jnp.tensordot(lines_nxn, signal_ZxHxW, (1, axis)), 0, axis)
    mix = scanner.slice_mix
    above = jnp.concatenate((signal_ZxHxW[:1], signal_ZxHxW[:-1]))
    below = jnp.concatenate((signal_ZxHxW[1:], signal_ZxHxW[-1:]))
    return jnp.asarray((1 - 2 * mix) * signal_ZxHxW + mix * (above + below))


def scan(key: jax.Array, water_ZxHxW: jax.Array, fat_ZxHxW: jax.Array, scanner: Scanner) -> jax.Array:
    """Image (Z, H, W, 4), float32, channels fat, inn, opp, wat, as a two-point scanner gives them.

    Imaging blurs water and fat and displaces fat. The echoes of both decay, dephase where the field is steep, are
    weighted by the coil, ghosted, and get Rician noise each; fat and wat are reconstructed from the two noisy echoes,
    and exchanged where the field errs by more than half the distance from water to fat. Pure: the same key gives the
    same image. May be jitted and vmapped.
    """
    key_bias, key_in, key_opp, key_ghost, key_swap, key_field = jax.random.split(key, 6)
    grid_mm = axes_mm(water_ZxHxW.shape, scanner.spacing_mm)
    gain = sensitivity(key_bias, water_ZxHxW.shape, scanner)
    error_ppm = field_error(key_field, grid_mm, scanner)
    with jax.default_matmul_precision("highest"):
        water_ZxHxW, fat_ZxHxW = acquire(water_ZxHxW, scanner), acquire(fat_ZxHxW, scanner)
    fat_ZxHxW = (1 - scanner.fat_shift) * fat_ZxHxW + scanner.fat_shift * jnp.roll(fat_ZxHxW, 1, axis=2)
    times_s = [te_s * 1.5 / scanner.tesla for te_s in (TE_IN_S, TE_OPPOSED_S)]
    echoes = signals(
        water_ZxHxW,
        fat_ZxHxW,
        r2star=scanner.r2star,
        te_in_s=times_s[0],
        te_opposed_s=times_s[1],
        spectrum=FAT_SPECTRUM,
        tesla=scanner.tesla,
    )
    weighted = [
        echo * gain * dephasing(error_ppm, te_s, scanner.tesla) for echo, te_s in zip(echoes, times_s, strict=True)
    ]
    shift = jax.random.randint(key_ghost, (), water_ZxHxW.shape[1] // 4, water_ZxHxW.shape[1] // 2)
    inn, opp = (
        rician(key, echo + scanner.ghost * jnp.roll(echo, shift, axis=1), scanner.noise)
        for key, echo in zip((key_in, key_opp), weighted, strict=True)
    )
    swapped = smooth_field(key_swap, grid_mm, 60.0) > jax.scipy.special.ndtri(1 - jnp.asarray(scanner.swap))
    swapped |= jnp.abs(error_ppm) > SWAP_PPM
    wat, fat = separate(inn, opp, (water_ZxHxW > fat_ZxHxW) ^ swapped)
    return jnp.stack([fat, inn, opp, wat], axis=-1).astype(jnp.float32)


def residuals(
    *,
    fat: np.ndarray | None = None,
    inn: np.ndarray | None = None,
    opp: np.ndarray | None = None,
    wat: np.ndarray | None = None,
) -> tuple[float, float]:
    """(in-phase, opposed): how far channels depart from in = W + F and from opp = |W - F|, as fractions.

    Each is the median over the foreground of |measured - s * predicted| / (W + F), where s is the one scale that
    fits measured to predicted best in least squares, since files are scaled one by one. Foreground is W + F
    above a tenth of its 99th percentile. Channels are arrays of one shape, any unit. NaN where a channel needed
    is missing or there is no foreground. A real 3 T dual-echo scan gave (0.065, 0.13); much more means channels
    that are mislabelled, misaligned or of another sequence.
    """
    if fat is None or wat is None:
        return float("nan"), float("nan")
    fat, wat = np.asarray(fat, np.float64), np.asarray(wat, np.float64)
    total = wat + fat
    foreground = total > 0.1 * np.percentile(total, 99)
    in_phase, opposed = (
        float("nan") if measured is None else _misfit(measured, predicted, total, foreground)
        for measured, predicted in ((inn, total), (opp, np.abs(wat - fat)))
    )
    return in_phase, opposed


def _misfit(measured: np.ndarray, predicted: np.ndarray, total: np.ndarray, where: np.ndarray) -> float:
    measured, predicted, total = (np.asarray(x, np.float64)[where] for x in (measured, predicted, total))
    power = float(predicted @ predicted)
    if power == 0:
        return float("nan")
    scale = float(measured @ predicted) / power
    return float(np.median(np.abs(measured - scale * predicted) / total))
