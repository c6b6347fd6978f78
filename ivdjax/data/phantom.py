"""A digital lumbar spine: from a key to water, fat and disc labels; from a seed to a tree of NIfTI files.

`anatomy` says how a subject is built and gives each voxel its place along the column; here every tissue is a
signed distance (mm, negative inside) in those coordinates, painted over what lies behind it. Edges are about as
soft as a voxel is wide, which stands for partial volume. Signals are relative: fresh disc water is about 1.
"""

import gzip
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import nibabel as nib
import numpy as np

from ivdjax.data import anatomy as body
from ivdjax.data import dixon
from ivdjax.data.anatomy import Anatomy, Place
from ivdjax.errors import UsageError

SHAPE = (36, 256, 256)
SPACING_MM = (2.0, 1.25, 1.25)
_EDGE_MM = 2.2  # width of a painted edge from 0 to 1; half of the rise lies within an in-plane voxel

# (water, fat) of tissues that are alike in all subjects.
_CORTEX = (0.10, 0.05)
_LIGAMENT = (0.20, 0.06)
_FAT = (0.05, 1.15)
_SKIN = (0.62, 0.15)
_CORD = (0.72, 0.02)
_NERVE = (0.55, 0.10)
_CARTILAGE = (0.75, 0.05)


_Canvas = tuple[jax.Array, jax.Array]  # water, fat


class Phantom(NamedTuple):
    """A subject at one scan, before the scanner; signals in units of fresh disc water."""

    water_ZxHxW: jax.Array
    fat_ZxHxW: jax.Array
    label_ZxHxW: jax.Array  # uint8, 0 background, 1 = L5/S1 ... 7 = T11/T12
    disc_8x3: jax.Array  # disc centres in mm (Z, H, W) from the grid's centre: the labelled seven, then T10/T11


class _Textures(NamedTuple):
    """Smooth random fields of unit variance, (Z, H, W), or (H, W) for one slice."""

    bend: jax.Array  # moves points along H, so that nothing is ruled with a ruler
    push: jax.Array  # the same along W
    wave: jax.Array  # bends outlines of skin and vessels
    clutter: jax.Array  # loops of bowel
    mottle: jax.Array  # patches of fat and of everything else
    streak: jax.Array  # fat between bundles of muscle
    grain: jax.Array  # trabeculae


@partial(jax.jit, static_argnames=("shape_ZxHxW",))
def draw(
    key: jax.Array,
    subject_key: jax.Array | None = None,
    shape_ZxHxW: tuple[int, int, int] = SHAPE,
    spacing_mm: tuple[float, float, float] = SPACING_MM,
) -> Phantom:
    """Draw one scan of one subject; pure, and may be vmapped over keys.

    subject_key fixes the anatomy (None: taken from `key`). key then changes only what differs between two scans
    of one subject: pose by a few mm and degrees, disc height by a few per cent. The anatomy does not depend on
    the grid, which is centred on the labelled discs; 280 mm along H and 80 mm along Z hold all seven whole.
    """
    if subject_key is None:
        key, subject_key = jax.random.split(key)
    key_build, key_texture = jax.random.split(subject_key)
    key_pose, key_swell = jax.random.split(key)
    # Some accelerators multiply matrices in few bits unless told otherwise: too coarse for positions.
    with jax.default_matmul_precision("highest"):
        subject = body.swell(key_swell, body.sample(key_build))
        pose = body.sample_pose(key_pose)
        z, h, w = dixon.axes_mm(shape_ZxHxW, spacing_mm)
        textures = _textures(key_texture, tuple(x - d for x, d in zip((z, h, w), pose.shift_mm, strict=True)))

        def draw_slice(depth_mm: jax.Array, texture: _Textures) -> tuple[jax.Array, jax.Array, jax.Array]:
            return _draw(subject, texture, *jnp.broadcast_arrays(*pose.to_subject(depth_mm, h[0], w[0])))

        # Slice by slice, so that the many intermediate arrays stay in a cache.
        water, fat, label = jax.lax.map(lambda args: draw_slice(*args), (z.ravel(), textures))
        disc_8x3 = pose.to_grid(subject.centre_Px3[body.LOWEST_DISC : body.LOWEST_DISC + body.DISCS + 1])
    return Phantom(water, fat, label, disc_8x3)


def _textures(key: jax.Array, grid_mm: tuple[jax.Array, jax.Array, jax.Array]) -> _Textures:
    pitches_mm = _Textures(
        bend=(16.0, 15.0, 15.0),
        push=(16.0, 15.0, 15.0),
        wave=(30.0, 28.0, 28.0),
        clutter=(16.0, 13.0, 15.0),
        mottle=(9.0, 6.0, 6.0),
        streak=(3.2, 30.0, 3.2),
        grain=(3.5, 2.6, 2.6),
    )
    keys = jax.random.split(key, len(pitches_mm))
    return _Textures(*(dixon.smooth_field(k, grid_mm, p) for k, p in zip(keys, pitches_mm, strict=True)))


def _inside(distance: jax.Array) -> jax.Array:
    """Share of a voxel that lies inside, from the signed distance of its centre."""
    share = jnp.clip(0.5 - distance / _EDGE_MM, 0, 1)
    return share * share * (3 - 2 * share)


def _over(canvas: _Canvas, cover: jax.Array, tissue: _Canvas | tuple[float, float]) -> _Canvas:
    """Paint (water, fat) over the canvas where `cover` says, 0 to 1."""
    return tuple(below + cover * (above - below) for below, above in zip(canvas, tissue, strict=True))


def _draw(
    subject: Anatomy, texture: _Textures, z: jax.Array, h: jax.Array, w: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(water, fat, label) of the points of one slice, (H, W) each."""
    h, w, size = h + 0.6 * texture.bend, w + 0.6 * texture.push, subject.size
    place = body.locate(subject, z, h, w)
    # A vertebra's arch and spine hang lower than its body, so they are sorted by planes moved down with them.
    arch = body.locate(subject, z, h - 8.0 * size, w)
    canvas = _torso(subject, texture, place, z, h, w)
    canvas = _arches(subject, texture, place, arch, canvas)
    canvas = _canal(subject, texture, place, canvas)
    canvas, label = _column(subject, texture, place, canvas)
    return (*canvas, label)


def _torso(subject: Anatomy, texture: _Textures, place: Place, z: jax.Array, h: jax.Array, w: jax.Array) -> _Canvas:
    """Skin, fat, muscle, abdomen and vessels: all that the column stands in."""
    size, wave = subject.size, texture.wave
    # The back is round from side to side, with a furrow along the midline.
    across = (z / 130.0) ** 2 * 18.0 + 3.0 * jnp.exp(-((z / 14.0) ** 2))
    behind_skin = w - body.surface(subject.skin_4, h) + across - 0.8 * wave
    behind_fascia = w - body.surface(subject.fascia_4, h) + across + 1.0 * wave
    before = -w - subject.belly_mm + 14.0 * (h / 100.0) ** 2 + 2.0 * wave
    skin = jnp.maximum(behind_skin, before)
    canvas = (jnp.zeros_like(h), jnp.zeros_like(h))
    canvas = _over(canvas, _inside(skin), _SKIN)
    canvas = _over(canvas, _inside(skin + 2.4), (_FAT[0], _FAT[1] * (1 + 0.04 * texture.mottle)))
    septum = jnp.abs(behind_skin + 0.55 * (behind_skin - behind_fascia) + 2.0 * texture.wave) - 0.4
    canvas = _over(canvas, 0.4 * _inside(jnp.maximum(septum, skin + 4)), _LIGAMENT)
    trunk = jnp.maximum(behind_fascia, before + subject.belly_fat_mm)
    canvas = _over(canvas, _inside(trunk), _LIGAMENT)

    # Abdomen: loops of bowel in mesenteric fat, smeared by their own motion, some of them filled with gas.
    loops = jax.nn.sigmoid(2.2 * texture.clutter + 1.6 * texture.mottle - 0.2)
    gas = jax.nn.sigmoid(6.0 * (texture.clutter - 0.5 * texture.wave + 0.25 * texture.mottle - 1.15))
    tissue = _over((0.06, 1.1), loops, (0.40 + 0.07 * texture.mottle, 0.12))
    canvas = _over(canvas, _inside(trunk + 1.5), _over(tissue, gas, (0.02, 0.02)))

    # Muscle behind, and psoas beside the column from L1 down.
    front = 6.0 * size - place.back
    # Fat gathers in the low back and next to the bone.
    gather = 0.35 * jnp.clip(4.0 - place.rise, -1.0, 1.5) - 0.03 * (place.back - 45.0 * size)
    streak = jax.nn.sigmoid(2.5 * (texture.streak - 2.0 + 1.6 * subject.muscle_fat + gather))
    lean = (0.62 + 0.03 * texture.mottle, 0.06 + 0.05 * jnp.maximum(texture.streak, 0))
    muscle = (0.64 + 0.03 * texture.mottle - 0.5 * streak, 0.05 + 0.8 * streak)
    canvas = _over(canvas, _inside(jnp.maximum(trunk + 1.2, front)), muscle)
    girth = jnp.clip(4.0 + 4.2 * (7.5 - place.rise), 1.0, 21.0) * size
    half = body.at(subject.width_P, place)
    psoas = body.ball((jnp.abs(place.across) - half - girth * 0.6, girth), (place.back + 1.0, girth * 1.15))
    canvas = _over(canvas, _inside(psoas), lean)
    return _vessels(subject, texture, place, canvas)


def _vessels(subject: Anatomy, texture: _Textures, place: Place, canvas: _Canvas) -> _Canvas:
    """Aorta in front and to the left, cava to the right; both part into the iliac vessels below L4."""
    size, depth = subject.size, body.at(subject.depth_P, place)
    below_fork = jnp.maximum(3.3 - place.rise, 0.0) * 30.0  # mm, roughly
    for side, radius in ((-1.0, 8.0), (1.0, 9.5)):
        r = size * radius * (1 - 0.3 * jnp.clip(below_fork / 20.0, 0, 1))
        offset = place.across - side * (9.0 + 0.5 * below_fork) * size
        lumen = body.ball((offset, r), (place.back + depth + 2.5 * size + 0.9 * r + 1.2 * texture.wave, 0.9 * r))
        canvas = _over(canvas, _inside(lumen - 1.2), _LIGAMENT)
        canvas = _over(canvas, _inside(lumen), (subject.blood * (1 + 0.15 * texture.wave), 0.02))
    return canvas


def _arches(subject: Anatomy, texture: _Textures, place: Place, arch: Place, canvas: _Canvas) -> _Canvas:
    """Pedicles, laminae, facets, spinous and transverse processes, with the foramina between the pedicles."""
    mm, side = subject.size, jnp.abs(place.across)
    back = place.back - body.at(subject.depth_P, place)
    arch_side, arch_back = jnp.abs(arch.across), arch.back - body.at(subject.depth_P, arch)
    lumbar = jnp.clip((place.rise - 2.0) * 4.0, 0, 1)  # the sacrum has no arches of this kind
    # Fat of the foramina, and in it a root under each pedicle with its vessels.
    foramen = body.box((side - 14.0 * mm, 6.5 * mm), (back - 6.0 * mm, 8.0 * mm), rounding=3.0)
    canvas = _over(canvas, _inside(foramen), (0.10, 0.55))
    root = body.ball(
        (side - 16.0 * mm, 9.0), (place.beyond + 7.5 * mm, 4.2), (back - 6.0 * mm + 0.3 * place.beyond, 2.8)
    )
    canvas = _over(canvas, 0.9 * _inside(root), _NERVE)
    vein = body.ball((side - 14.0 * mm, 7.0), (place.beyond - 1.0 * mm, 4.0), (back - 2.0 * mm, 1.6))
    canvas = _over(canvas, 0.7 * _inside(vein + 0.5 * texture.mottle), _NERVE)
    # Between the spines lie ligaments and fat; behind the sac, under each arch, a triangle of fat.
    between = body.box((arch_side, 4.5 * mm), (arch_back - 36.0 * mm, 18.0 * mm))
    fatty = jax.nn.sigmoid(1.5 * texture.mottle + texture.streak - 1.0)
    canvas = _over(canvas, lumbar * _inside(between), (0.60 - 0.4 * fatty, 0.1 + 0.5 * fatty))
    triangle = body.ball((arch_side, 7.0 * mm), (arch_back - 17.0 * mm, 6.5 * mm), (arch.along - 14.0 * mm, 9.0 * mm))
    canvas = _over(canvas, lumbar * _inside(triangle), _FAT)

    water, fat = _marrow(subject, texture)
    for part in body.arch_parts(mm, place, arch, back, arch_back):
        bone = part + 0.6 * texture.mottle
        canvas = _over(canvas, _inside(bone), _CORTEX)
        canvas = _over(canvas, _inside(bone + 0.7), (0.75 * water, 1.1 * fat))
    # Fluid and cartilage of the joint between the two processes of a facet.
    joint = jnp.abs(back - 16.8 * mm + 0.45 * (side - 15.0 * mm) - 0.25 * place.beyond) - 1.0
    joint = jnp.maximum(joint, body.ball((side - 15.0 * mm, 6.0 * mm), (place.beyond + 1.0, 8.5 * mm)))
    return _over(canvas, lumbar * _inside(joint), _CARTILAGE)


def _canal(subject: Anatomy, texture: _Textures, place: Place, canvas: _Canvas) -> _Canvas:
    """Epidural fat, the sac with its fluid, and in it the cord above L1 and the roots of the cauda equina below."""
    size, depth = subject.size, body.at(subject.depth_P, place)
    # The sac ends behind S2.
    radius = 7.6 * size * (0.3 + 0.7 * jnp.clip(place.rise / 2.2, 0, 1))
    end = 12.0 * (0.7 - place.rise)
    behind = place.back - depth - radius - 0.6 * size
    canal = body.ball((place.across, radius * 1.55), (behind - 1.0 * size, radius * 1.3))
    sac = jnp.maximum(body.ball((place.across, radius * 1.2), (behind, radius)), end)
    canvas = _over(canvas, _inside(canal), _FAT)
    canvas = _over(canvas, _inside(sac - 0.8), _LIGAMENT)
    canvas = _over(canvas, _inside(sac), (subject.fluid, 0.02))
    conus = jnp.clip((place.rise - 6.0) / 1.5, 0.05, 1.0)
    cord = body.ball((place.across, 4.8 * size * conus), (behind, 3.6 * size * conus))
    canvas = _over(canvas, _inside(cord), _CORD)
    roots = _inside(
        jnp.maximum(
            body.ball((place.across, radius * 0.9), (behind - 0.45 * radius, radius * 0.5)), 0.9 - texture.streak
        )
    )
    return _over(canvas, 0.55 * roots, _CORD)


def _marrow(subject: Anatomy, texture: _Textures) -> _Canvas:
    signal = subject.marrow * (1 + 0.06 * texture.grain)
    share = subject.marrow_fat + 0.03 * texture.mottle
    return signal * (1 - share), signal * share


def _column(subject: Anatomy, texture: _Textures, place: Place, canvas: _Canvas) -> tuple[_Canvas, jax.Array]:
    """Vertebral bodies and discs: the canvas, and the label of the discs."""
    size, near, across = subject.size, place.nearest, place.across
    depth, width = body.at(subject.depth_P, place), body.at(subject.width_P, place)
    sacrum = place.rise < body.LOWEST_DISC
    # The posterior wall is hollow.
    back = place.back + 2.6 * size * jnp.exp(-((across / (0.55 * width)) ** 2)) * (place.back > 0)
    ring = body.ring(across, back, width, depth)
    half = body.half_height(subject, place, ring)
    plate = half - jnp.abs(place.beyond)  # positive inside the disc's space

    # A body has a waist halfway between its endplates; the sacrum has wings instead, and its discs are remnants.
    waist = 1 - 0.07 * jnp.sin(jnp.pi * place.rise) ** 2 * ~sacrum
    flank = jnp.maximum(jnp.abs(across) - jnp.where(sacrum, 34.0 * size, 0.0), 0)
    wall = body.rim_distance(body.ring(flank, back, width * waist, depth * waist), flank, back)
    bone = jnp.maximum(wall, jnp.where((near < body.LOWEST_DISC) & (jnp.abs(across) > 14.0 * size), -9.0, plate))
    canvas = _over(canvas, 0.6 * _inside(wall - 1.0), _LIGAMENT)
    canvas = _over(canvas, _inside(bone), _CORTEX)
    canvas = _over(canvas, _inside(bone + 0.9), _marrow(subject, texture))
    # The basivertebral vein leaves the body halfway up, in fat.
    vein = body.ball((across, 5.0 * size), (back - depth, 6.0 * size), (place.along, 2.0 * size))
    canvas = _over(canvas, 0.8 * _inside(jnp.where(sacrum, 9.0, vein)), (0.4, 0.7))

    wear = subject.wear_P[near]
    disc = jnp.maximum(body.rim_distance(ring, across, back, 1.03 + 0.05 * wear), -plate)
    disc = jnp.where((near < body.LOWEST_DISC) & (jnp.abs(across) > 14.0 * size), 9.0, disc)
    nucleus = jnp.exp(-((ring / 0.66) ** 4)) * (1 - 0.15 * jnp.clip(jnp.abs(place.beyond) / half, 0, 1) ** 2)
    signal = 0.70 - 0.12 * wear + (0.32 - 0.34 * wear) * nucleus + 0.015 * texture.grain
    canvas = _over(canvas, _inside(disc), (signal, 0.03))
    labelled = (near >= body.LOWEST_DISC) & (near < body.LOWEST_DISC + body.DISCS) & (disc < 0)
    return canvas, jnp.where(labelled, near - body.LOWEST_DISC + 1, 0).astype(jnp.uint8)


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
    axes run right, inferior, posterior. progress is called with (cases written, cases) after each. A case
    appears whole or not at all. Raises UsageError where OUT is a file or holds anything, and for a number of
    cases or a grid that makes no sense.
    """
    out = Path(out)
    if cases < 1 or min(shape) < 1 or min(spacing_mm) <= 0:
        raise UsageError(f"phantom: {cases} cases of {shape} voxels of {spacing_mm} mm; all must be more than 0")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out}: exists and is not an empty folder; name a new folder, or remove this one first")
    out.mkdir(parents=True, exist_ok=True)
    for index in range(cases):
        name = f"{index + 1:02d}"
        images, affine = _case(seed, index, shape, spacing_mm)
        folder = out / f".partial-{name}"
        folder.mkdir()
        try:
            for channel, image in images.items():
                (folder / f"{name}_{channel}.nii.gz").write_bytes(_nifti_gz(image, affine, channel == "Labels"))
            folder.rename(out / name)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
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
    """A scanner as scans differ: noise, the coil's reach, bias and ghosting."""
    low = jnp.array([12.0, 0.008, 85.0, 60.0, 0.03, 0.0])
    high = jnp.array([25.0, 0.022, 105.0, 160.0, 0.10, 0.02])
    r2star, noise, coil, reach, bias, ghost = jax.random.uniform(key, (6,), minval=low, maxval=high)
    return dixon.Scanner(spacing_mm, r2star, noise, coil, reach, bias, ghost=ghost)


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
