"""A digital lumbar spine: from a key to water, fat and disc labels; from a seed to a tree of NIfTI files.

`anatomy` builds the subject and `tissue` paints it; here they are put on a grid, scanned and written.
"""

import gzip
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import nibabel as nib
import numpy as np

from ivdjax import config, files
from ivdjax.data import anatomy as body
from ivdjax.data import dataset, dixon, tissue
from ivdjax.data.anatomy import Anatomy
from ivdjax.errors import UsageError

SHAPE = (36, 256, 256)
SPACING_MM = (2.0, 1.25, 1.25)


class Phantom(NamedTuple):
    """A subject at one scan, before the scanner; signals in units of fresh disc water."""

    water_ZxHxW: jax.Array
    fat_ZxHxW: jax.Array
    label_ZxHxW: jax.Array  # uint8, 0 background, 1 = L5/S1 ... 7 = T11/T12
    tissue_ZxHxW: jax.Array  # of `tissue.Tissue`, uint8
    disc_8x3: jax.Array  # disc centres in mm (Z, H, W) from the grid's centre: the labelled seven, then T10/T11
    subject: Anatomy  # sizes, curve and wear, as drawn


@partial(jax.jit, static_argnames=("shape_ZxHxW",))
def draw(
    key: jax.Array,
    subject_key: jax.Array | None = None,
    shape_ZxHxW: tuple[int, int, int] = SHAPE,
    spacing_mm: tuple[jax.typing.ArrayLike, ...] = SPACING_MM,
    centre_mm: tuple[jax.typing.ArrayLike, ...] = (0.0, 0.0, 0.0),
) -> Phantom:
    """Draw one scan of one subject; pure, and may be vmapped over keys.

    subject_key fixes the anatomy (None: taken from `key`). key then changes only what differs between two scans
    of one subject: pose by a few mm and degrees, disc height by a few per cent. The anatomy does not depend on
    the grid, whose centre lies `centre_mm` from that of the labelled discs; 280 mm along H and 80 mm along Z hold
    all seven whole.
    """
    if subject_key is None:
        key, subject_key = jax.random.split(key)
    key_build, key_texture = jax.random.split(subject_key)
    key_pose, key_swell = jax.random.split(key)
    # Some accelerators multiply matrices in few bits unless told otherwise: too coarse for positions.
    with jax.default_matmul_precision("highest"):
        subject = body.swell(key_swell, body.sample(key_build))
        pose = body.sample_pose(key_pose)
        z, h, w = (x + c for x, c in zip(dixon.axes_mm(shape_ZxHxW, spacing_mm), centre_mm, strict=True))
        textures = _textures(key_texture, [x - d for x, d in zip((z, h, w), pose.shift_mm, strict=True)])

        def draw_slice(depth_mm: jax.Array, texture: tissue.Textures) -> tuple[tissue.Canvas, jax.Array]:
            return tissue.paint(subject, texture, *jnp.broadcast_arrays(*pose.to_subject(depth_mm, h[0], w[0])))

        # Slice by slice, so that the many intermediate arrays stay in a cache.
        canvas, label = jax.lax.map(lambda args: draw_slice(*args), (z.ravel(), textures))
        disc_8x3 = pose.to_grid(subject.centre_Px3[body.LOWEST_DISC : body.LOWEST_DISC + body.DISCS + 1])
        disc_8x3 -= jnp.stack(centre_mm)
    return Phantom(canvas.water, canvas.fat, label, canvas.tissue, disc_8x3, subject)


def _textures(key: jax.Array, grid_mm: Sequence[jax.Array]) -> tissue.Textures:
    pitches_mm = {
        "bend": (16.0, 15.0, 15.0),
        "push": (16.0, 15.0, 15.0),
        "wave": (30.0, 28.0, 28.0),
        "clutter": (16.0, 13.0, 15.0),
        "mottle": (9.0, 6.0, 6.0),
        "streak": (3.2, 30.0, 3.2),
        "grain": (3.5, 2.6, 2.6),
    }
    keys = jax.random.split(key, len(pitches_mm))
    fields = zip(pitches_mm.items(), keys, strict=True)
    return tissue.Textures(**{name: dixon.smooth_field(k, grid_mm, pitch) for (name, pitch), k in fields})


def write_tree(
    out: Path,
    *,
    cases: int = 16,
    seed: int = 0,
    shape: tuple[int, int, int] = SHAPE,
    spacing_mm: tuple[float, float, float] = SPACING_MM,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write synthetic cases as IVDM3Seg lays out its own: OUT/01/01_fat.nii.gz, _inn, _opp, _wat, _Labels.nii.gz.

    Consecutive cases (01, 02), (03, 04) ... are two scans of one subject. Case i of a seed is the same whatever
    `cases` is. Images are int16 with a scale a file in the header, labels a binary uint8 mask, grids oblique;
    axes run right, inferior, posterior. `phantom.json` says of the folder what it is. progress is called with
    (cases written, cases) after each. The folder appears whole or not at all. Raises UsageError where OUT is a file
    or holds anything, and for a number of cases or a grid that makes no sense.
    """
    out = Path(out)
    if cases < 1 or min(shape) < 1 or min(spacing_mm) <= 0:
        raise UsageError(f"phantom: {cases} cases of {shape} voxels of {spacing_mm} mm; all must be more than 0")
    with files.making(out) as partial:
        drawn = config.Phantom(cases, seed, shape, spacing_mm)
        files.write_json(partial / dataset.PHANTOM_MARK, config.to_dict(drawn))
        for index in range(cases):
            name = f"{index + 1:02d}"
            images, affine = _case(seed, index, shape, spacing_mm)
            (partial / name).mkdir()
            for channel, image in images.items():
                (partial / name / f"{name}_{channel}.nii.gz").write_bytes(_nifti_gz(image, affine, channel == "Labels"))
            if progress:
                progress(index + 1, cases)


def _case(
    seed: int, index: int, shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Images of case `index` by name, and their affine (4, 4)."""
    subjects, scans = jax.random.split(jax.random.key(seed))
    key_pose, key_scan, key_scanner, key_affine = jax.random.split(jax.random.fold_in(scans, index), 4)
    phantom = draw(key_pose, jax.random.fold_in(subjects, index // 2), shape, spacing_mm)
    image = _scan(key_scan, phantom.water_ZxHxW, phantom.fat_ZxHxW, sample_scanner(key_scanner, spacing_mm))
    images = dict(zip(("fat", "inn", "opp", "wat"), np.moveaxis(np.asarray(image), -1, 0), strict=True))
    images["Labels"] = np.asarray(phantom.label_ZxHxW > 0).astype(np.uint8)
    return images, _affine(key_affine, shape, spacing_mm)


_scan = jax.jit(dixon.scan)


def sample_scanner(key: jax.Array, spacing_mm: tuple[float, float, float] = SPACING_MM) -> dixon.Scanner:
    """A scanner as scans differ, one in four of them at 3 T, where signals decay faster and the field errs more."""
    key_tesla, key_uniform = jax.random.split(key)
    low = jnp.array([12.0, 0.008, 85.0, 60.0, 0.03, 0.0, 0.1, 0.0, 0.0, 0.8, 0.0])
    high = jnp.array([25.0, 0.022, 105.0, 160.0, 0.10, 0.02, 0.4, 0.3, 0.6, 1.0, 0.1])
    r2star, noise, coil, reach, bias, ghost, b0, steep, shift, resolution, mix = jax.random.uniform(
        key_uniform, (11,), minval=low, maxval=high
    )
    tesla = jnp.where(jax.random.bernoulli(key_tesla, 0.25), 3.0, 1.5)
    return dixon.Scanner(
        spacing_mm=spacing_mm,
        r2star=r2star * tesla / 1.5,
        noise=noise,
        coil_mm=coil,
        coil_reach_mm=reach,
        bias=bias,
        ghost=ghost,
        tesla=tesla,
        b0_ppm=b0 * tesla / 1.5,
        b0_steep_ppm=steep,
        fat_shift=shift,
        resolution=resolution,
        slice_mix=mix,
    )


def _affine(key: jax.Array, shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """Oblique affine (4, 4) to RAS+ mm of a grid whose axes run right, inferior, posterior."""
    tilt, lean, twist = np.deg2rad(np.asarray(jax.random.uniform(key, (3, 1), minval=1.0, maxval=6.0)))
    turn = np.asarray(body.rotations(tilt, lean, twist)[0], np.float64)
    linear = np.array([[1.0, 0, 0], [0, 0, -1.0], [0, -1.0, 0]]) @ turn * np.asarray(spacing_mm)
    affine = np.eye(4)
    affine[:3, :3] = linear
    affine[:3, 3] = -linear @ ((np.asarray(shape) - 1) / 2)
    return affine


def _nifti_gz(image: np.ndarray, affine: np.ndarray, label: bool) -> bytes:
    """A gzipped NIfTI-1 file; images are rounded to int16 with their maximum at 4095, and carry the scale back."""
    scale = 1.0 if label else max(float(image.max()), 1e-6) / 4095
    stored = image if label else np.rint(image / scale).astype(np.int16)
    file = nib.Nifti1Image(stored, affine)
    file.header.set_slope_inter(scale, 0)
    file.header.set_xyzt_units("mm")
    return gzip.compress(file.to_bytes(), compresslevel=1, mtime=0)
