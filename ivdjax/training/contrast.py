"""The intensity part of augmentation: what another scanner, sequence or tissue would have made of the same anatomy.

Every function is pure, takes a key of its own and keeps the shape. `unit` arrays hold intensities brought to 0..1 over
the window, 0 standing for no signal; K slices, H rows, W columns, C channels. A stack's fields of random smooth values
come from `dixon.smooth_field` on a grid of voxels, taken to be about 1.25 mm wide and 2 mm thick.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array

from ivdjax.config import Augment
from ivdjax.data import dixon
from ivdjax.data.tissue import Tissue

# Water of each tissue of the phantom, about which its texture lies.
_WATER = {
    Tissue.AIR: 1.0,
    Tissue.SKIN: 0.6,
    Tissue.FAT: 0.06,
    Tissue.LIGAMENT: 0.3,
    Tissue.MUSCLE: 0.6,
    Tissue.BOWEL: 0.4,
    Tissue.ORGAN: 0.6,
    Tissue.VESSEL: 0.4,
    Tissue.CORTEX: 0.12,
    Tissue.MARROW: 0.4,
    Tissue.DISC: 0.65,
    Tissue.FLUID: 0.85,
    Tissue.NERVE: 0.65,
    Tissue.CARTILAGE: 0.7,
    Tissue.NUCLEUS: 0.9,
}
_VOXEL_MM = (2.0, 1.25, 1.25)
_FIELD_MM = 70.0  # how quickly a smooth field varies
_CURVE_POINTS = 6
# Time from excitation to echo in units of the in-phase echo's; fat and wat come from both echoes.
_ECHO_TIME = {"fat": 0.75, "inn": 1.0, "opp": 0.5, "wat": 0.75}


def remix(key: Array, stack_KxHxWxC: Array, channels: Sequence[str], config: Augment) -> Array:
    """Change how much water and fat there is, recompute what follows, and swap the two in places.

    Water and fat each go through a power and a gain, then `inn` and `opp` change as their signal equations say
    (`dixon.signals`): what a channel departs from its equation, such as noise and decay, is left as measured. Files
    have scales of their own, so the two that turn fat and wat into inn are fitted by least squares. The swap exchanges
    fat and wat, each in its own scale, in smooth regions with sharp borders, and leaves the echoes alone, as an error
    of the separation does (Ma, J Magn Reson Imaging 2008; 28:543). Without both fat and wat nothing changes.
    """
    if not {"fat", "wat"} <= set(channels):
        return stack_KxHxWxC
    change, where, whether, area = jax.random.split(key, 4)
    images = {name: stack_KxHxWxC[..., i] for i, name in enumerate(channels)}
    low = {name: images[name].min() for name in ("fat", "wat")}
    high = {name: images[name].max() for name in ("fat", "wat")}
    old = {name: (images[name] - low[name]) / jnp.maximum(high[name] - low[name], 1e-3) for name in low}
    new = dict(old)
    if config.mix:
        power, gain = jnp.exp(config.mix * jax.random.normal(change, (2, 2)))
        new = {name: gain[i] * jnp.maximum(old[name], 1e-6) ** power[i] for i, name in enumerate(("wat", "fat"))}
        images = _follow(images, old, new)
    if config.swap:
        K, H, W, _ = stack_KxHxWxC.shape
        field_KxHxW = smooth_field(where, (K, H, W))
        share = jnp.where(jax.random.bernoulli(whether, config.swap), jax.random.uniform(area, (), maxval=0.3), 0.0)
        swapped = field_KxHxW > jax.scipy.special.ndtri(1 - share)
        new = {name: jnp.where(swapped, new[other], new[name]) for name, other in (("fat", "wat"), ("wat", "fat"))}
    for name in new:
        images[name] = low[name] + (high[name] - low[name]) * new[name]
    return jnp.stack([images[name] for name in channels], -1)


def _follow(images: dict[str, Array], old: dict[str, Array], new: dict[str, Array]) -> dict[str, Array]:
    """Move the echoes along with new water and fat."""
    # Without an in-phase echo the two are taken to fill their ranges alike.
    a_w, a_f = jnp.ones(()), jnp.ones(())
    if "inn" in images:
        a_w, a_f = _fit(old["wat"], old["fat"], images["inn"])
    images = dict(images)
    sums = [a_w * pair["wat"] + a_f * pair["fat"] for pair in (old, new)]
    differences = [jnp.abs(a_w * pair["wat"] - a_f * pair["fat"]) for pair in (old, new)]
    for name, (before, after) in (("inn", sums), ("opp", differences)):
        if name in images:
            image = images[name]
            centred = before - before.mean()
            scale = (centred * image).mean() / jnp.maximum((centred**2).mean(), 1e-6)
            images[name] = image + scale * (after - before)
    return images


def _fit(wat: Array, fat: Array, inn: Array) -> tuple[Array, Array]:
    """Non-negative weights a, b of the least squares fit inn = a wat + b fat + constant."""
    wat, fat, inn = wat - wat.mean(), fat - fat.mean(), inn - inn.mean()
    ww, ff, wf = (wat * wat).mean() + 1e-6, (fat * fat).mean() + 1e-6, (wat * fat).mean()
    wi, fi = (wat * inn).mean(), (fat * inn).mean()
    determinant = jnp.maximum(ww * ff - wf * wf, 1e-9)
    return jnp.maximum((wi * ff - fi * wf) / determinant, 0), jnp.maximum((fi * ww - wi * wf) / determinant, 0)


def decay(key: Array, unit_KxHxWxC: Array, channels: Sequence[str], config: Augment) -> Array:
    """Weaken the signal as T2* does: exp(-TE R2*) with a smooth random R2*, TE by channel.

    `config.decay` is the standard deviation of R2* times the in-phase echo time; only decay above none is kept.
    """
    K, H, W, _ = unit_KxHxWxC.shape
    rate_KxHxW = config.decay * jnp.maximum(smooth_field(key, (K, H, W)), 0)
    time_C = jnp.array([_ECHO_TIME.get(name, 1.0) for name in channels])
    return unit_KxHxWxC * jnp.exp(-rate_KxHxW[..., None] * time_C)


def bias_field(key: Array, unit_KxHxWxC: Array, config: Augment) -> Array:
    """Multiply by a smooth field, one for all channels: a slope along each axis, as of a surface coil, and waves."""
    slope, wave = jax.random.split(key)
    K, H, W, _ = unit_KxHxWxC.shape
    z, h, w = (jnp.linspace(-1.0, 1.0, n) for n in (K, H, W))
    a, b, c = config.bias * jax.random.normal(slope, (3,)) * jnp.array([0.3, 1.0, 2.0])
    log_KxHxW = a * z[:, None, None] + b * h[:, None] + c * w
    log_KxHxW += 0.5 * config.bias * smooth_field(wave, (K, H, W))
    return unit_KxHxWxC * jnp.exp(log_KxHxW)[..., None]


def curve(key: Array, unit_KxHxWxC: Array, config: Augment) -> Array:
    """Send intensities through a random smooth curve a channel, monotone or not, sometimes turned upside down.

    A Bezier curve of equidistant abscissae, as in Models Genesis (Zhou et al., Med Image Anal 2021; 67:101840); its
    control points stray from the straight line by `config.curve`.
    """
    bend, turn = jax.random.split(key)
    C, n = unit_KxHxWxC.shape[-1], _CURVE_POINTS - 1
    points_QxC = jnp.linspace(0.0, 1.0, n + 1)[:, None] + config.curve * jax.random.normal(bend, (n + 1, C))
    points_QxC = jnp.where(jax.random.bernoulli(turn, config.invert, (C,)), 1 - points_QxC, points_QxC)
    u = jnp.clip(unit_KxHxWxC, 0, 1)
    # Powers of u with the Bernstein coefficients spread out, by Horner's rule.
    value = jnp.zeros_like(u)
    for power in range(n, -1, -1):
        coefficient_C = math.comb(n, power) * sum(
            (-1) ** (power - i) * math.comb(power, i) * points_QxC[i] for i in range(power + 1)
        )
        value = value * u + coefficient_C
    # Above the curve's range goes on what was above.
    return value + (unit_KxHxWxC - u)


def blur(key: Array, stack_KxHxWxC: Array, config: Augment) -> Array:
    """Lose resolution: a Gaussian of random width along H and W, and a share of the neighbours through the plane.

    `config.blur_voxels` is the largest standard deviation in the plane; widths are drawn evenly, apart for H and W.
    """
    sigma_2 = config.blur_voxels * jax.random.uniform(key, (2,))
    through = config.blur_through * jax.random.uniform(jax.random.fold_in(key, 1)) / 2
    kernels = [jnp.exp(-(jnp.arange(-2, 3) ** 2) / (2 * jnp.maximum(s, 0.05) ** 2)) for s in sigma_2]
    kernels = [jnp.array([through, 1 - 2 * through, through]), *(kernel / kernel.sum() for kernel in kernels)]
    K, H, W, C = stack_KxHxWxC.shape
    # Columns and channels in one axis, in which a column is C steps: a long run of memory, which compilers like.
    x_KxHxD = stack_KxHxWxC.reshape(K, H, W * C)
    for axis, (kernel, wanted) in enumerate(
        zip(kernels, (config.blur_through, config.blur_voxels, config.blur_voxels), strict=True)
    ):
        if wanted:
            x_KxHxD = _smooth(x_KxHxD, kernel, axis, C if axis == 2 else 1)
    return x_KxHxD.reshape(K, H, W, C)


def _smooth(x_KxHxD: Array, kernel: Array, axis: int, step: int) -> Array:
    """Weighted sum of neighbours that lie `step` apart along an axis; beyond the ends lies what is at them."""
    size, reach = x_KxHxD.shape[axis], len(kernel) // 2
    first, last = (jax.lax.slice_in_dim(x_KxHxD, start, start + step, axis=axis) for start in (0, size - step))
    padded = jnp.concatenate([first] * reach + [x_KxHxD] + [last] * reach, axis)
    x_KxHxD = sum(
        kernel[i] * jax.lax.slice_in_dim(padded, i * step, i * step + size, axis=axis) for i in range(len(kernel))
    )
    # Without this a compiler may fuse two passes, and compute the first anew for every tap of the second.
    return jax.lax.optimization_barrier(x_KxHxD)


def noise(key: Array, unit_KxHxWxC: Array, sigma: Array) -> Array:
    """Noise of a magnitude image: about Gaussian in strong signal, a floor above zero where there is none.

    The second moment is Rice's, signal^2 + 2 sigma^2 (Gudbjartsson and Patz, Magn Reson Med 1995; 34:910), with one
    random number a voxel instead of two.
    """
    # The sum of four random bytes is near enough to normal, and much cheaper.
    bits = jax.random.bits(key, unit_KxHxWxC.shape, jnp.uint32)
    total = sum(((bits >> shift) & 255).astype(jnp.float32) for shift in (0, 8, 16, 24))
    drawn = unit_KxHxWxC + sigma * (total - 510.0) / math.sqrt((256**2 - 1) / 3)
    return jnp.sqrt(drawn**2 + sigma**2)


def drop_channels(key: Array, stack_KxHxWxC: Array, config: Augment) -> tuple[Array, Array]:
    """Set channels to zero, their mean, and say which are left: present_C, 1 or 0, never all 0.

    With probability `config.channel_dropout` channels are lost: half of the time all but one, which is the hardest,
    else any number, and each set of a number is as likely (modality dropout, Neverova et al. 2016, arXiv:1501.00102).
    """
    C = stack_KxHxWxC.shape[-1]
    if not config.channel_dropout or C == 1:
        return stack_KxHxWxC, jnp.ones(C)
    whether, single, number, order = jax.random.split(key, 4)
    fewer = jnp.where(jax.random.bernoulli(single), 1, jax.random.randint(number, (), 1, C))
    kept = jnp.where(jax.random.bernoulli(whether, config.channel_dropout), fewer, C)
    present_C = (jax.random.permutation(order, C) < kept).astype(jnp.float32)
    return stack_KxHxWxC * present_C, present_C


def smooth_field(key: Array, shape_KxHxW: tuple[int, int, int]) -> Array:
    """Smooth random field (K, H, W) of mean 0 and variance about 1."""
    return dixon.smooth_field(key, dixon.axes_mm(shape_KxHxW, _VOXEL_MM), _FIELD_MM)


def recolour(key: Array, signal_KxHxWx2: Array, tissue_KxHxW: Array, config: Augment) -> Array:
    """Give each tissue of a phantom a contrast of its own, water and fat apart, in the same shape.

    Gains are log-normal, of standard deviation `config.tissue`. With probability `config.foreign` water takes levels
    that have nothing to do with the tissue's own, as in SynthSeg (Billot et al., Med Image Anal 2023; 86:102789), so
    that a network finds discs by their shape and place.
    """
    near, far, whether, annulus = jax.random.split(key, 4)
    gain_Tx2 = jnp.exp(config.tissue * jax.random.normal(near, (len(Tissue), 2)))
    level_T = jax.random.uniform(far, (len(Tissue),), minval=0.02, maxval=1.1)
    # The two parts of a disc stay near each other.
    near_2 = jnp.exp(0.4 * config.tissue * jax.random.normal(annulus, (2,)))
    gain_Tx2 = gain_Tx2.at[Tissue.NUCLEUS].set(gain_Tx2[Tissue.DISC] * near_2)
    level_T = level_T.at[Tissue.NUCLEUS].set(level_T[Tissue.DISC] * near_2[0]).at[Tissue.AIR].set(0.01)
    own_KxHxWx2 = signal_KxHxWx2 * gain_Tx2[tissue_KxHxW]
    # A tissue's texture is kept around the new level.
    typical_T = jnp.array([_WATER[tissue] for tissue in Tissue])
    texture_KxHxW = jnp.clip(signal_KxHxWx2[..., 0] / typical_T[tissue_KxHxW], 0.3, 1.7) ** 0.5
    foreign_KxHxW = level_T[tissue_KxHxW] * texture_KxHxW
    water_KxHxW = jnp.where(jax.random.bernoulli(whether, config.foreign), foreign_KxHxW, own_KxHxWx2[..., 0])
    return jnp.stack([water_KxHxW, own_KxHxWx2[..., 1]], -1)


def render(key: Array, signal_KxHxWx2: Array, tissue_KxHxW: Array, config: Augment) -> Array:
    """Image a stack of a phantom by two-point Dixon: stack_KxHxWx4, channels fat, inn, opp, wat, normalised.

    The tissues get contrasts of their own, the echoes decay and see a coil under the back; fat and wat are
    reconstructed from the echoes. Noise, blur and swaps are left to the augmentation that follows.
    """
    colour, decaying, coil = jax.random.split(key, 3)
    water_KxHxW, fat_KxHxW = jnp.moveaxis(recolour(colour, signal_KxHxWx2, tissue_KxHxW, config), -1, 0)
    r2star = jax.random.uniform(decaying, minval=8.0, maxval=35.0)
    inn, opp = dixon.signals(water_KxHxW, fat_KxHxW, r2star=r2star, spectrum=dixon.FAT_SPECTRUM)
    wat, fat = dixon.separate(inn, opp, water_KxHxW > fat_KxHxW)
    stack_KxHxWxC = jnp.stack([fat, inn, opp, wat], -1)
    W = tissue_KxHxW.shape[-1]
    before_mm = _VOXEL_MM[2] * (W - jnp.arange(W))
    reach_mm = jnp.exp(jax.random.uniform(coil, minval=math.log(70.0), maxval=math.log(500.0)))
    stack_KxHxWxC *= jnp.exp(-before_mm / reach_mm)[:, None]
    # Much as `cache.normalise` does; the percentiles of every eighth pixel are near enough, and cheap.
    low_C, high_C = jnp.percentile(stack_KxHxWxC[:, ::8, ::8], jnp.array([0.5, 99.0]), axis=(0, 1, 2))
    stack_KxHxWxC = jnp.clip(stack_KxHxWxC, low_C, high_C)
    mean_C, deviation_C = stack_KxHxWxC.mean((0, 1, 2)), stack_KxHxWxC.std((0, 1, 2))
    return (stack_KxHxWxC - mean_C) / jnp.maximum(deviation_C, 1e-6)
