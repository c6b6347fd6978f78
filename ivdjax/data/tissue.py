"""The tissues of the digital spine, painted slice by slice.

`anatomy` says how a subject is built and gives each voxel its place along the column; here every tissue is a
signed distance (mm, negative inside) in those coordinates, painted over what lies behind it. Edges are about as
soft as a voxel is wide, which stands for partial volume. Signals are relative: fresh disc water is about 1.
"""

from enum import IntEnum
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ivdjax.data import anatomy as body
from ivdjax.data.anatomy import Anatomy, Place

_EDGE_MM = 2.2  # width of a painted edge from 0 to 1; half of the rise lies within an in-plane voxel


class Tissue(IntEnum):
    """What fills most of a voxel."""

    AIR = 0
    SKIN = 1
    FAT = 2
    LIGAMENT = 3
    MUSCLE = 4
    BOWEL = 5
    ORGAN = 6
    VESSEL = 7
    CORTEX = 8
    MARROW = 9
    DISC = 10
    FLUID = 11
    NERVE = 12
    CARTILAGE = 13
    NUCLEUS = 14


_Signal = tuple[jax.Array | float, jax.Array | float]  # water, fat

# Of tissues that are alike in all subjects.
_CORTEX = (0.10, 0.05)
_LIGAMENT = (0.20, 0.06)
_FAT = (0.05, 1.15)
_SKIN = (0.62, 0.15)
_CORD = (0.72, 0.02)
_NERVE = (0.55, 0.10)
_CARTILAGE = (0.75, 0.05)


class Canvas(NamedTuple):
    """What has been painted so far, arrays of one shape."""

    water: jax.Array
    fat: jax.Array
    tissue: jax.Array  # of `Tissue`, uint8


class Textures(NamedTuple):
    """Smooth random fields of unit variance, (Z, H, W), or (H, W) for one slice."""

    bend: jax.Array  # moves points along H, so that nothing is ruled with a ruler
    push: jax.Array  # the same along W
    wave: jax.Array  # bends outlines of skin and vessels
    clutter: jax.Array  # loops of bowel
    mottle: jax.Array  # patches of fat and of everything else
    streak: jax.Array  # fat between bundles of muscle
    grain: jax.Array  # trabeculae


def _inside(distance: jax.Array) -> jax.Array:
    """Share of a voxel that lies inside, from the signed distance of its centre."""
    share = jnp.clip(0.5 - distance / _EDGE_MM, 0, 1)
    return share * share * (3 - 2 * share)


def _over(canvas: Canvas, cover: jax.Array, signal: _Signal, tissue: Tissue | jax.Array) -> Canvas:
    """Paint a tissue of the given signal over the canvas where `cover` says, 0 to 1."""
    water, fat = (
        below + cover * (above - below) for below, above in zip((canvas.water, canvas.fat), signal, strict=True)
    )
    return Canvas(water, fat, jnp.where(cover > 0.5, jnp.asarray(tissue, jnp.uint8), canvas.tissue))


def paint(subject: Anatomy, texture: Textures, z: jax.Array, h: jax.Array, w: jax.Array) -> tuple[Canvas, jax.Array]:
    """Tissues and the label of the discs at the points of one slice, subject coordinates in mm, (H, W) each."""
    h, w, size = h + 0.6 * texture.bend, w + 0.6 * texture.push, subject.size
    place = body.locate(subject, z, h, w)
    # A vertebra's arch and spine hang lower than its body, so they are sorted by planes moved down with them.
    arch = body.locate(subject, z, h - 8.0 * size, w)
    canvas = _torso(subject, texture, place, z, h, w)
    canvas = _arches(subject, texture, place, arch, canvas)
    canvas = _canal(subject, texture, place, canvas)
    canvas, label = _column(subject, texture, place, canvas)
    return canvas, label


def _torso(subject: Anatomy, texture: Textures, place: Place, z: jax.Array, h: jax.Array, w: jax.Array) -> Canvas:
    """Skin, fat, muscle, abdomen and vessels: all that the column stands in."""
    size, wave = subject.size, texture.wave
    # The back is round from side to side, with a furrow along the midline.
    across = (z / 130.0) ** 2 * 18.0 + 3.0 * jnp.exp(-((z / 14.0) ** 2))
    behind_skin = w - body.surface(subject.skin_4, h) + across - 0.8 * wave
    behind_fascia = w - body.surface(subject.fascia_4, h) + across + 1.0 * wave
    before = -w - subject.belly_mm + 14.0 * (h / 100.0) ** 2 + 2.0 * wave
    skin = jnp.maximum(behind_skin, before)
    canvas = Canvas(jnp.zeros_like(h), jnp.zeros_like(h), jnp.zeros(h.shape, jnp.uint8))
    canvas = _over(canvas, _inside(skin), _SKIN, Tissue.SKIN)
    canvas = _over(canvas, _inside(skin + 2.4), (_FAT[0], _FAT[1] * (1 + 0.04 * texture.mottle)), Tissue.FAT)
    septum = jnp.abs(behind_skin + 0.55 * (behind_skin - behind_fascia) + 2.0 * texture.wave) - 0.4
    canvas = _over(canvas, 0.4 * _inside(jnp.maximum(septum, skin + 4)), _LIGAMENT, Tissue.LIGAMENT)
    trunk = jnp.maximum(behind_fascia, before + subject.belly_fat_mm)
    canvas = _over(canvas, _inside(trunk), _LIGAMENT, Tissue.LIGAMENT)

    canvas = _abdomen(subject, texture, place, trunk + 1.5, canvas)

    # Muscle behind, and psoas beside the column from L1 down.
    front = 6.0 * size - place.back
    # Fat gathers in the low back and next to the bone.
    gather = 0.35 * jnp.clip(4.0 - place.rise, -1.0, 1.5) - 0.03 * (place.back - 45.0 * size)
    streak = jax.nn.sigmoid(2.5 * (texture.streak - 2.0 + 1.6 * subject.muscle_fat + gather))
    lean = (0.62 + 0.03 * texture.mottle, 0.06 + 0.05 * jnp.maximum(texture.streak, 0))
    muscle = (0.64 + 0.03 * texture.mottle - 0.5 * streak, 0.05 + 0.8 * streak)
    canvas = _over(canvas, _inside(jnp.maximum(trunk + 1.2, front)), muscle, Tissue.MUSCLE)
    girth = jnp.clip(4.0 + 4.2 * (7.5 - place.rise), 1.0, 21.0) * size
    half = body.at(subject.width_P, place)
    psoas = body.ball((jnp.abs(place.across) - half - girth * 0.6, girth), (place.back + 1.0, girth * 1.15))
    canvas = _over(canvas, _inside(psoas), lean, Tissue.MUSCLE)
    return _vessels(subject, texture, place, canvas)


def _abdomen(subject: Anatomy, texture: Textures, place: Place, trunk: jax.Array, canvas: Canvas) -> Canvas:
    """Bowel in mesenteric fat, kidneys and other organs; trunk is the signed distance of the abdominal wall."""
    organs = subject.organs
    # Loops of bowel, smeared by their own motion, some of them filled with gas.
    loops = jax.nn.sigmoid(2.2 * texture.clutter + 1.6 * texture.mottle - 0.2)
    gas = jax.nn.sigmoid(6.0 * (texture.clutter - 0.5 * texture.wave + 0.25 * texture.mottle - 1.15))
    bowel = 0.40 + 0.3 * organs.bowel * texture.wave + 0.07 * texture.mottle
    water, fat = (0.06 + loops * (bowel - 0.06), 1.1 - loops * 0.98)
    signal = (water + gas * (0.02 - water), fat + gas * (0.02 - fat))
    filling = jnp.where(gas > 0.5, Tissue.AIR, jnp.where(loops > 0.5, Tissue.BOWEL, Tissue.FAT))
    canvas = _over(canvas, _inside(trunk), signal, filling)
    # Lumps stand for whatever lies there: stomach, loops full of fluid, nodes, uterus, bladder. The nearest one counts.
    distance, water = jnp.full_like(trunk, 99.0), jnp.zeros_like(trunk)
    for (across, back, rise), (wide, deep, high), signal in zip(
        organs.lump_Lx3, organs.lump_radius_Lx3, organs.lump_water_L, strict=True
    ):
        along = 34.0 * (place.rise - rise)
        lump = body.ball((place.across - across, wide), (place.back - back, deep), (along, high))
        water = jnp.where(lump < distance, signal, water)
        distance = jnp.minimum(lump, distance)
    cover = _inside(jnp.maximum(distance + 1.5 * texture.bend, trunk))
    canvas = _over(canvas, cover, (water * (1 + 0.06 * texture.mottle), 0.04), Tissue.ORGAN)
    # Kidneys beside L1 to L3 in fat of their own, the pelvis of each open towards the column.
    left, right = organs.kidney_2x3
    out, down, reach = (jnp.where(place.across < 0, a, b) for a, b in zip(left, right, strict=True))
    across = jnp.abs(place.across) - out
    along = 34.0 * (5.7 - place.rise) - down
    behind = place.back + 4.0
    kidney = body.ball((across, 27.0 * reach), (behind - 0.15 * along, 25.0 * reach), (along, 54.0 * reach))
    kidney = kidney + 1.0 * texture.wave
    pelvis = body.ball((across + 22.0 * reach, 17.0), (behind, 9.0), (along, 17.0)) + 2.0 * texture.mottle
    medulla = _inside(kidney + 9.0 + 2.0 * texture.clutter)
    canvas = _over(canvas, _inside(jnp.maximum(kidney - 6.0, trunk)), _FAT, Tissue.FAT)
    signal = (organs.kidney * (1 - 0.15 * medulla), 0.03)
    canvas = _over(canvas, _inside(jnp.maximum(kidney, trunk)), signal, Tissue.ORGAN)
    return _over(canvas, _inside(jnp.maximum(pelvis, kidney)), _FAT, Tissue.FAT)


def _vessels(subject: Anatomy, texture: Textures, place: Place, canvas: Canvas) -> Canvas:
    """Aorta in front and to the left, cava to the right; both part into the iliac vessels below L4."""
    size, depth = subject.size, body.at(subject.depth_P, place)
    below_fork = jnp.maximum(3.3 - place.rise, 0.0) * 30.0  # mm, roughly
    for side, radius in ((-1.0, 8.0), (1.0, 9.5)):
        r = size * radius * (1 - 0.3 * jnp.clip(below_fork / 20.0, 0, 1))
        offset = place.across - side * (9.0 + 0.5 * below_fork) * size
        lumen = body.ball((offset, r), (place.back + depth + 2.5 * size + 0.9 * r + 1.2 * texture.wave, 0.9 * r))
        canvas = _over(canvas, _inside(lumen - 1.2), _LIGAMENT, Tissue.LIGAMENT)
        canvas = _over(canvas, _inside(lumen), (subject.blood * (1 + 0.15 * texture.wave), 0.02), Tissue.VESSEL)
    return canvas


def _arches(subject: Anatomy, texture: Textures, place: Place, arch: Place, canvas: Canvas) -> Canvas:
    """Pedicles, laminae, facets, spinous and transverse processes, with the foramina between the pedicles."""
    mm, side = subject.size, jnp.abs(place.across)
    back = place.back - body.at(subject.depth_P, place)
    arch_side, arch_back = jnp.abs(arch.across), arch.back - body.at(subject.depth_P, arch)
    lumbar = jnp.clip((place.rise - 2.0) * 4.0, 0, 1)  # the sacrum has no arches of this kind
    # Fat of the foramina, and in it a root under each pedicle with its vessels.
    foramen = body.box((side - 14.0 * mm, 6.5 * mm), (back - 6.0 * mm, 8.0 * mm), rounding=3.0)
    canvas = _over(canvas, _inside(foramen), (0.10, 0.55), Tissue.FAT)
    root = body.ball(
        (side - 16.0 * mm, 9.0), (place.beyond + 7.5 * mm, 4.2), (back - 6.0 * mm + 0.3 * place.beyond, 2.8)
    )
    canvas = _over(canvas, 0.9 * _inside(root), _NERVE, Tissue.NERVE)
    vein = body.ball((side - 14.0 * mm, 7.0), (place.beyond - 1.0 * mm, 4.0), (back - 2.0 * mm, 1.6))
    canvas = _over(canvas, 0.7 * _inside(vein + 0.5 * texture.mottle), _NERVE, Tissue.VESSEL)
    # Between the spines lie ligaments and fat; behind the sac, under each arch, a triangle of fat.
    between = body.box((arch_side, 4.5 * mm), (arch_back - 36.0 * mm, 18.0 * mm))
    fatty = jax.nn.sigmoid(1.5 * texture.mottle + texture.streak - 1.0)
    canvas = _over(canvas, lumbar * _inside(between), (0.60 - 0.4 * fatty, 0.1 + 0.5 * fatty), Tissue.LIGAMENT)
    triangle = body.ball((arch_side, 7.0 * mm), (arch_back - 17.0 * mm, 6.5 * mm), (arch.along - 14.0 * mm, 9.0 * mm))
    canvas = _over(canvas, lumbar * _inside(triangle), _FAT, Tissue.FAT)

    water, fat = _marrow(subject, texture)
    for part in body.arch_parts(mm, place, arch, back, arch_back):
        bone = part + 0.6 * texture.mottle
        canvas = _over(canvas, _inside(bone), _CORTEX, Tissue.CORTEX)
        canvas = _over(canvas, _inside(bone + 0.7), (0.75 * water, 1.1 * fat), Tissue.MARROW)
    # Fluid and cartilage of the joint between the two processes of a facet.
    joint = jnp.abs(back - 16.8 * mm + 0.45 * (side - 15.0 * mm) - 0.25 * place.beyond) - 1.0
    joint = jnp.maximum(joint, body.ball((side - 15.0 * mm, 6.0 * mm), (place.beyond + 1.0, 8.5 * mm)))
    return _over(canvas, lumbar * _inside(joint), _CARTILAGE, Tissue.CARTILAGE)


def _canal(subject: Anatomy, texture: Textures, place: Place, canvas: Canvas) -> Canvas:
    """Epidural fat, the sac with its fluid, and in it the cord above L1 and the roots of the cauda equina below."""
    size, depth = subject.size, body.at(subject.depth_P, place)
    # The sac ends behind S2.
    radius = 7.6 * size * (0.3 + 0.7 * jnp.clip(place.rise / 2.2, 0, 1))
    end = 12.0 * (0.7 - place.rise)
    behind = place.back - depth - radius - 0.6 * size
    canal = body.ball((place.across, radius * 1.55), (behind - 1.0 * size, radius * 1.3))
    sac = jnp.maximum(body.ball((place.across, radius * 1.2), (behind, radius)), end)
    canvas = _over(canvas, _inside(canal), _FAT, Tissue.FAT)
    canvas = _over(canvas, _inside(sac - 0.8), _LIGAMENT, Tissue.LIGAMENT)
    canvas = _over(canvas, _inside(sac), (subject.fluid, 0.02), Tissue.FLUID)
    conus = jnp.clip((place.rise - 6.0) / 1.5, 0.05, 1.0)
    cord = body.ball((place.across, 4.8 * size * conus), (behind, 3.6 * size * conus))
    canvas = _over(canvas, _inside(cord), _CORD, Tissue.NERVE)
    roots = _inside(
        jnp.maximum(
            body.ball((place.across, radius * 0.9), (behind - 0.45 * radius, radius * 0.5)), 0.9 - texture.streak
        )
    )
    return _over(canvas, 0.55 * roots, _CORD, Tissue.NERVE)


def _marrow(subject: Anatomy, texture: Textures) -> _Signal:
    signal = subject.marrow * (1 + 0.06 * texture.grain)
    patches = subject.marrow_patch * (0.8 * texture.mottle + 0.6 * texture.clutter)
    share = jnp.clip(subject.marrow_fat + patches, 0.1, 0.95)
    return signal * (1 - share), signal * share


def _column(subject: Anatomy, texture: Textures, place: Place, canvas: Canvas) -> tuple[Canvas, jax.Array]:
    """Vertebral bodies and discs: the canvas, and the label of the discs."""
    size, near, across = subject.size, place.nearest, place.across
    depth, width = body.at(subject.depth_P, place), body.at(subject.width_P, place)
    sacrum = place.rise < body.LOWEST_DISC
    # The posterior wall is hollow.
    back = place.back + 2.6 * size * jnp.exp(-((across / (0.55 * width)) ** 2)) * (place.back > 0)
    ring = body.ring(across, back, width, depth)
    half = body.half_height(subject, place, ring)
    plate = half - jnp.abs(place.beyond)  # positive inside the disc's space
    # A dent of an endplate, after Schmorl, which the disc fills.
    side, dent_across, dent_back, depth_mm = (subject.dent_Px4[near, i] for i in range(4))
    apart = ((across - dent_across) ** 2 + (back - dent_back) ** 2) / (4.5 * size) ** 2
    plate += jnp.where(place.beyond * side > 0, depth_mm * jnp.exp(-apart), 0.0)

    # A body has a waist halfway between its endplates; the sacrum has wings instead, and its discs are remnants.
    waist = 1 - 0.07 * jnp.sin(jnp.pi * place.rise) ** 2 * ~sacrum
    flank = jnp.maximum(jnp.abs(across) - jnp.where(sacrum, 34.0 * size, 0.0), 0)
    wall = body.rim_distance(body.ring(flank, back, width * waist, depth * waist), flank, back)
    bone = jnp.maximum(wall, jnp.where((near < body.LOWEST_DISC) & (jnp.abs(across) > 14.0 * size), -9.0, plate))
    canvas = _over(canvas, 0.6 * _inside(wall - 1.0), _LIGAMENT, Tissue.LIGAMENT)
    canvas = _over(canvas, _inside(bone), _CORTEX, Tissue.CORTEX)
    canvas = _over(canvas, _inside(bone + 0.9), _marrow(subject, texture), Tissue.MARROW)
    # The basivertebral vein leaves the body halfway up, in fat.
    vein = body.ball((across, 5.0 * size), (back - depth, 6.0 * size), (place.along, 2.0 * size))
    canvas = _over(canvas, 0.8 * _inside(jnp.where(sacrum, 9.0, vein)), (0.4, 0.7), Tissue.FAT)

    wear = subject.wear_P[near]
    disc = jnp.maximum(body.rim_distance(ring, across, back, 1.03 + 0.08 * wear), -plate)
    disc = jnp.where((near < body.LOWEST_DISC) & (jnp.abs(across) > 14.0 * size), 9.0, disc)
    nucleus = jnp.exp(-((ring / 0.66) ** 4)) * (1 - 0.15 * jnp.clip(jnp.abs(place.beyond) / half, 0, 1) ** 2)
    signal = 0.70 - 0.22 * wear + (0.32 - 0.34 * wear) * nucleus + 0.015 * texture.grain
    part = jnp.where(nucleus > 0.5, Tissue.NUCLEUS, Tissue.DISC)
    canvas = _over(canvas, _inside(disc), (signal, 0.03), part)
    labelled = (near >= body.LOWEST_DISC) & (near < body.LOWEST_DISC + body.DISCS) & (disc < 0)
    return canvas, jnp.where(labelled, near - body.LOWEST_DISC + 1, 0).astype(jnp.uint8)
