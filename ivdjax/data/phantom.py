"""A digital lumbar spine: from a key to water, fat and disc labels, and from a seed to a tree of NIfTI files.

`anatomy` says how a subject is built and gives each voxel its place along the column; here every tissue is a signed
distance (mm, negative inside) in those coordinates, painted back to front over what lies behind it. Edges are as soft
as a voxel is wide, which stands for partial volume. Signals are relative: fresh disc or spinal fluid is about 1.
"""

import gzip
import shutil
import tempfile
from collections.abc import Callable
from functools import partial, reduce
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
_EDGE_MM = 2.2  # width of a painted edge, about an in-plane voxel

# (water, fat) of tissues that are alike in all subjects.
_CORTEX = (0.10, 0.05)
_LIGAMENT = (0.20, 0.06)
_FAT = (0.05, 1.15)
_SKIN = (0.62, 0.15)
_CORD = (0.72, 0.02)
_NERVE = (0.55, 0.10)
_CARTILAGE = (0.75, 0.05)


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
    mesentery: jax.Array
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

    subject_key fixes the anatomy (None: taken from `key`); key then only changes what differs between two scans of one
    subject: pose by a few mm and degrees, and a few per cent of disc height. The anatomy does not depend on the grid,
    whose centre is the middle of the labelled discs; at 280 mm or more along H all seven lie inside.
    """
    if subject_key is None:
        key, subject_key = jax.random.split(key)
    key_build, key_texture = jax.random.split(subject_key)
    key_pose, key_swell = jax.random.split(key)
    subject = body.swell(key_swell, body.sample(key_build))
    pose = body.sample_pose(key_pose)
    grid_mm = dixon.axes_mm(shape_ZxHxW, spacing_mm)
    textures = _textures(key_texture, tuple(x - shift for x, shift in zip(grid_mm, pose.shift_mm, strict=True)))

    def draw_slice(slice_):
        z, texture = slice_
        point = pose.to_subject(z, grid_mm[1][0], grid_mm[2][0])
        return _draw(subject, texture, *jnp.broadcast_arrays(*point))

    water, fat, label = jax.lax.map(draw_slice, (grid_mm[0][:, 0, 0], textures))
    disc_8x3 = pose.to_grid(subject.centre_Px3[body.LOWEST_DISC : body.LOWEST_DISC + body.DISCS + 1])
    return Phantom(water, fat, label, disc_8x3)


def _textures(key: jax.Array, grid_mm: tuple[jax.Array, jax.Array, jax.Array]) -> _Textures:
    pitches_mm = _Textures(
        (16.0, 15.0, 15.0),
        (16.0, 15.0, 15.0),
        (30.0, 28.0, 28.0),
        (16.0, 13.0, 15.0),
        (9.0, 6.0, 6.0),
        (3.2, 30.0, 3.2),
        (3.5, 2.6, 2.6),
    )
    keys = jax.random.split(key, len(pitches_mm))
    return _Textures(*(dixon.smooth_field(k, grid_mm, p) for k, p in zip(keys, pitches_mm, strict=True)))


def _inside(distance: jax.Array) -> jax.Array:
    """Share of a voxel that lies inside, from the signed distance of its centre."""
    share = jnp.clip(0.5 - distance / _EDGE_MM, 0, 1)
    return share * share * (3 - 2 * share)


def _over(canvas, cover, tissue):
    """Paint (water, fat) over the canvas where `cover` says, 0 to 1."""
    return tuple(below + cover * (above - below) for below, above in zip(canvas, tissue, strict=True))


def _ball(*terms) -> jax.Array:
    """Signed distance, roughly, of an ellipsoid from (offset, radius) pairs along its axes."""
    reach = jnp.sqrt(sum((offset / radius) ** 2 for offset, radius in terms))
    return (reach - 1) * reduce(jnp.minimum, (radius for _, radius in terms))


def _box(*terms, rounding=2.0) -> jax.Array:
    """Signed distance of a rounded box from (offset, half size) pairs along its axes."""
    beyond = [jnp.abs(offset) - half + rounding for offset, half in terms]
    outside = jnp.sqrt(sum(jnp.maximum(b, 0) ** 2 for b in beyond))
    return outside + jnp.minimum(jnp.stack(beyond).max(0), 0) - rounding


def _draw(subject: Anatomy, texture: _Textures, z, h, w):
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


def _torso(subject, texture, place: Place, z, h, w):
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
    canvas = _over(canvas, _inside(skin + 2.4), (_FAT[0], _FAT[1] * (1 + 0.04 * texture.mesentery)))
    septum = jnp.abs(behind_skin + 0.55 * (behind_skin - behind_fascia) + 2.0 * texture.wave) - 0.4
    canvas = _over(canvas, 0.4 * _inside(jnp.maximum(septum, skin + 4)), _LIGAMENT)
    trunk = jnp.maximum(behind_fascia, before + subject.belly_fat_mm)
    canvas = _over(canvas, _inside(trunk), _LIGAMENT)

    # Abdomen: loops of bowel in mesenteric fat, smeared by their own motion, some of them filled with gas.
    loops = jax.nn.sigmoid(2.2 * texture.clutter + 1.6 * texture.mesentery - 0.2)
    gas = jax.nn.sigmoid(6.0 * (texture.clutter - 0.5 * texture.wave + 0.25 * texture.mesentery - 1.15))
    tissue = _over((0.06, 1.1), loops, (0.40 + 0.07 * texture.mesentery, 0.12))
    canvas = _over(canvas, _inside(trunk + 1.5), _over(tissue, gas, (0.02, 0.02)))

    # Muscle behind, and psoas beside the column from L1 down.
    front = 6.0 * size - place.back
    # Fat gathers in the low back and next to the bone.
    gather = 0.35 * jnp.clip(4.0 - place.rise, -1.0, 1.5) - 0.03 * (place.back - 45.0 * size)
    streak = jax.nn.sigmoid(2.5 * (texture.streak - 2.0 + 1.6 * subject.muscle_fat + gather))
    lean = (0.62 + 0.03 * texture.mesentery, 0.06 + 0.05 * jnp.maximum(texture.streak, 0))
    muscle = (0.64 + 0.03 * texture.mesentery - 0.5 * streak, 0.05 + 0.8 * streak)
    canvas = _over(canvas, _inside(jnp.maximum(trunk + 1.2, front)), muscle)
    girth = jnp.clip(4.0 + 4.2 * (7.5 - place.rise), 1.0, 21.0) * size
    half = body.at(subject.width_P, place)
    psoas = _ball((jnp.abs(place.across) - half - girth * 0.75, girth), (place.back + 1.0, girth * 1.15))
    canvas = _over(canvas, _inside(psoas), lean)
    return _vessels(subject, texture, place, canvas)


def _vessels(subject, texture, place: Place, canvas):
    """Aorta in front and to the left, cava to the right; both part into the iliac vessels below L4."""
    size, depth = subject.size, body.at(subject.depth_P, place)
    below_fork = jnp.maximum(3.3 - place.rise, 0.0) * 30.0  # mm, roughly
    for side, radius in ((-1.0, 8.0), (1.0, 9.5)):
        r = size * radius * (1 - 0.3 * jnp.clip(below_fork / 20.0, 0, 1))
        offset = place.across - side * (9.0 + 0.5 * below_fork) * size
        lumen = _ball((offset, r), (place.back + depth + 2.5 * size + 0.9 * r + 1.2 * texture.wave, 0.9 * r))
        canvas = _over(canvas, _inside(lumen - 1.2), _LIGAMENT)
        canvas = _over(canvas, _inside(lumen), (subject.blood * (1 + 0.15 * texture.wave), 0.02))
    return canvas


def _arches(subject, texture, place: Place, arch: Place, canvas):
    """Pedicles, laminae, facets, spinous and transverse processes, with the foramina between the pedicles."""
    mm, side = subject.size, jnp.abs(place.across)
    back = place.back - body.at(subject.depth_P, place)
    arch_side, arch_back = jnp.abs(arch.across), arch.back - body.at(subject.depth_P, arch)
    lumbar = jnp.clip((place.rise - 2.0) * 4.0, 0, 1)  # the sacrum's own are too small to draw
    # Fat of the foramina, and in it a root under each pedicle with its vessels.
    foramen = _box((side - 14.0 * mm, 6.5 * mm), (back - 6.0 * mm, 8.0 * mm), rounding=3.0)
    canvas = _over(canvas, _inside(foramen), (0.10, 0.55))
    root = _ball((side - 16.0 * mm, 9.0), (place.beyond + 7.5 * mm, 4.2), (back - 6.0 * mm + 0.3 * place.beyond, 2.8))
    canvas = _over(canvas, 0.9 * _inside(root), _NERVE)
    vein = _ball((side - 14.0 * mm, 7.0), (place.beyond - 1.0 * mm, 4.0), (back - 2.0 * mm, 1.6))
    canvas = _over(canvas, 0.7 * _inside(vein + 0.5 * texture.mesentery), _NERVE)
    # Between the spines lie ligaments and fat; behind the sac, under each arch, a triangle of fat.
    between = _box((arch_side, 4.5 * mm), (arch_back - 36.0 * mm, 18.0 * mm))
    fatty = jax.nn.sigmoid(1.5 * texture.mesentery + texture.streak - 1.0)
    canvas = _over(canvas, lumbar * _inside(between), (0.60 - 0.4 * fatty, 0.1 + 0.5 * fatty))
    triangle = _ball((arch_side, 7.0 * mm), (arch_back - 17.0 * mm, 6.5 * mm), (arch.along - 14.0 * mm, 9.0 * mm))
    canvas = _over(canvas, lumbar * _inside(triangle), _FAT)

    water, fat = _marrow(subject, texture)
    for bone in _bones(mm, texture, place, arch, side, back, arch_side, arch_back):
        canvas = _over(canvas, _inside(bone), _CORTEX)
        canvas = _over(canvas, _inside(bone + 1.1), (0.75 * water, 1.1 * fat))
    # Fluid and cartilage of the joint between the two processes of a facet.
    joint = jnp.abs(back - 16.8 * mm + 0.45 * (side - 15.0 * mm) - 0.25 * place.beyond) - 1.0
    joint = jnp.maximum(joint, _ball((side - 15.0 * mm, 6.0 * mm), (place.beyond + 1.0, 8.5 * mm)))
    return _over(canvas, lumbar * _inside(joint), _CARTILAGE)


def _bones(mm, texture, place: Place, arch: Place, side, back, arch_side, arch_back):
    """Signed distances of the parts of a vertebral arch; mm scales with the subject."""
    rough = 0.6 * texture.mesentery
    pedicle = _box(
        (side - 14.0 * mm, 4.8 * mm), (place.along + 5.5 * mm, 7.0 * mm), (back - 6.0 * mm, 13.0 * mm), rounding=5.0
    )
    # The lower vertebra's upper process lies in front of the upper vertebra's lower one; both lean forwards.
    lean = 0.25 * place.beyond
    upper = (side - 16.5 * mm, 6.5 * mm), (place.beyond - 4.0 * mm, 11.0 * mm), (back - 12.0 * mm - lean, 4.4 * mm)
    lower = (side - 13.5 * mm, 6.0 * mm), (place.beyond + 5.0 * mm, 13.0 * mm), (back - 22.0 * mm - lean, 5.0 * mm)
    lamina = _ball(
        (arch_side, 17.0 * mm),
        (arch.along - 0.5 * (arch_back - 21.0 * mm), 11.0 * mm),
        (arch_back - 23.0 * mm + 0.012 * arch_side**2, 4.6 * mm),
    )
    # Spines are tall and level in the lumbar spine, slender and drooping above, small at L5.
    tall = jnp.minimum(
        mm * jnp.interp(arch.rise, jnp.array([2.2, 3.3, 6.5, 8.0]), jnp.array([6.5, 11.0, 11.0, 7.0])), 0.34 * arch.gap
    )
    droop = 0.12 + 0.25 * jnp.clip(arch.rise - 6.5, 0, 2)
    level = arch.along - 2.0 * mm - droop * (arch_back - 34.0 * mm)
    blade = ((level / tall) ** 4 + ((arch_back - 38.0 * mm) / (15.0 * mm)) ** 4 + (arch_side / (4.4 * mm)) ** 4) ** 0.25
    spine = (blade - 1) * 4.4 * mm
    transverse = _ball((side - 26.0 * mm, 16.0 * mm), (place.along + 5.0 * mm, 6.5 * mm), (back - 14.0 * mm, 4.5 * mm))
    low_back, low_arch = 3.0 * (2.1 - place.rise) * mm, 30.0 * (2.1 - arch.rise) * mm
    return [jnp.maximum(part + rough, low_back) for part in (pedicle, transverse, _ball(*upper))] + [
        jnp.maximum(part + rough, low_arch) for part in (lamina, _ball(*lower), spine)
    ]


def _canal(subject, texture, place: Place, canvas):
    """Epidural fat, the sac with its fluid, and in it the cord above L1 and the roots of the cauda equina below."""
    size, depth = subject.size, body.at(subject.depth_P, place)
    # The sac ends behind S2.
    radius = 7.6 * size * (0.3 + 0.7 * jnp.clip(place.rise / 2.2, 0, 1))
    end = 12.0 * (0.7 - place.rise)
    behind = place.back - depth - radius - 0.6 * size
    canal = _ball((place.across, radius * 1.55), (behind - 1.0 * size, radius * 1.3))
    sac = jnp.maximum(_ball((place.across, radius * 1.2), (behind, radius)), end)
    canvas = _over(canvas, _inside(canal), _FAT)
    canvas = _over(canvas, _inside(sac - 0.8), _LIGAMENT)
    canvas = _over(canvas, _inside(sac), (subject.fluid + 0.0 * sac, 0.02))
    conus = jnp.clip((place.rise - 6.0) / 1.5, 0.05, 1.0)
    cord = _ball((place.across, 4.8 * size * conus), (behind, 3.6 * size * conus))
    canvas = _over(canvas, _inside(cord), _CORD)
    roots = _inside(
        jnp.maximum(_ball((place.across, radius * 0.9), (behind - 0.45 * radius, radius * 0.5)), 0.9 - texture.streak)
    )
    return _over(canvas, 0.55 * roots, _CORD)


def _marrow(subject, texture):
    signal = subject.marrow * (1 + 0.06 * texture.grain)
    share = subject.marrow_fat + 0.03 * texture.mesentery
    return signal * (1 - share), signal * share


def _column(subject, texture, place: Place, canvas):
    """Vertebral bodies and discs: the canvas, and the label of the discs."""
    size, near = subject.size, place.nearest
    depth, width = body.at(subject.depth_P, place), body.at(subject.width_P, place)
    sacrum = place.rise < body.LOWEST_DISC
    # The posterior wall is hollow; a body has a waist halfway between its endplates.
    hollow = 2.6 * size * jnp.exp(-((place.across / (0.55 * width)) ** 2)) * (place.back > 0)
    share = place.rise - jnp.floor(place.rise)
    waist = 1 - 0.09 * (1 - (2 * share - 1) ** 2) * ~sacrum
    ring = ((jnp.abs(place.across) / width) ** 2.4 + (jnp.abs(place.back + hollow) / depth) ** 2.4) ** (1 / 2.4)
    bulge = 1.03 + 0.05 * subject.wear_P[near]
    half = body.half_height(subject, place, ring)
    plate = half - jnp.abs(place.beyond)  # positive inside the disc's space
    # Within the sacrum discs are remnants, which do not reach its flanks.
    plate = jnp.where((near < body.LOWEST_DISC) & (jnp.abs(place.across) > 14.0 * size), -9.0, plate)

    ala = jnp.where(sacrum, 34.0 * size, 0.0)
    flank = jnp.maximum(jnp.abs(place.across) - ala, 0)
    body_ring = ((flank / (width * waist)) ** 2.4 + (jnp.abs(place.back + hollow) / (depth * waist)) ** 2.4) ** (
        1 / 2.4
    )
    bone = jnp.maximum((body_ring - 1) * depth, plate)
    canvas = _over(canvas, _inside((body_ring - 1.0) * depth - 1.0), _LIGAMENT)
    canvas = _over(canvas, _inside(bone), _CORTEX)
    canvas = _over(canvas, _inside(bone + 0.9), _marrow(subject, texture))
    # The basivertebral vein leaves the body halfway up, in fat.
    vein = _ball((place.across, 5.0 * size), (place.back - depth + hollow, 6.0 * size), (place.along, 2.0 * size))
    canvas = _over(canvas, 0.8 * _inside(jnp.where(sacrum, 9.0, vein)), (0.4, 0.7))

    disc = jnp.maximum((ring - bulge) * depth, -plate)
    wear = subject.wear_P[near]
    nucleus = jnp.exp(-((ring / 0.66) ** 4)) * (1 - 0.15 * jnp.clip(jnp.abs(place.beyond) / half, 0, 1) ** 2)
    signal = 0.70 - 0.12 * wear + (0.32 - 0.34 * wear) * nucleus + 0.015 * texture.grain
    canvas = _over(canvas, _inside(disc), (signal, 0.03 + 0.0 * signal))
    label = jnp.clip(near - body.LOWEST_DISC + 1, 0, body.DISCS + 1)
    label = jnp.where((disc < 0) & (label <= body.DISCS), label, 0)
    return canvas, label.astype(jnp.uint8)


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
    `cases` is. Images are int16 with a scale a file in the header, labels a binary uint8 mask, grids oblique; axes run
    right, inferior, posterior. progress is called with (cases written, cases) after each. A case appears whole or not
    at all. Raises UsageError where OUT is a file or holds anything, or cases is less than 1.
    """
    out = Path(out)
    if cases < 1:
        raise UsageError(f"phantom: {cases} cases asked for; ask for 1 or more")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out}: already exists and is not an empty folder; name a new folder, or remove it first")
    out.mkdir(parents=True, exist_ok=True)
    for index in range(cases):
        name = f"{index + 1:02d}"
        images, affine = _case(seed, index, shape, spacing_mm)
        folder = Path(tempfile.mkdtemp(prefix=f".partial-{name}-", dir=out))
        try:
            for channel, image in images.items():
                (folder / f"{name}_{channel}.nii.gz").write_bytes(_nifti_gz(image, affine, channel == "Labels"))
            folder.chmod(0o755)
            folder.rename(out / name)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        if progress:
            progress(index + 1, cases)


def _case(seed: int, index: int, shape, spacing_mm) -> tuple[dict[str, np.ndarray], np.ndarray]:
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


def _affine(key: jax.Array, shape, spacing_mm) -> np.ndarray:
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
