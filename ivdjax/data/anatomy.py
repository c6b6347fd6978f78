"""The build of one digital lumbar spine, in mm, and the curved coordinates in which it is simple.

A spine is a chain of rigid disc frames, numbered from below: P = 11 planes, S2/S3, S1/S2, L5/S1 ... T11/T12,
T10/T11 and T9/T10. A point between two planes has coordinates blended from both frames: across (towards the
right), back (posterior of the column's centre line) and along (downwards). In them a vertebra is a box with a
waist and the canal is a straight tube, whatever the curve. Points are (z, h, w) in mm: right, inferior, posterior.

Sizes lie in the range of supine adults: bodies and endplates as in Panjabi et al., Spine 1992; 17:299 and Zhou et
al., Eur Spine J 2000; 9:242; disc volumes as in IVDM3Seg, 63 to 140 cm3 for the seven together.
"""

from collections.abc import Callable
from functools import reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

PLANES = 11
LOWEST_DISC = 2  # the plane of L5/S1; label 1
LUMPS = 6  # organs in front of the column
DISCS = 7  # labelled, upwards from L5/S1 to T11/T12

# One value a plane, S2/S3 first: height of the disc and of the body above it, half axes of its endplates.
_DISC_MM = np.array([1.5, 3.2, 10.7, 11.9, 11.3, 10.3, 9.1, 8.0, 7.2, 6.5, 6.0])
_BODY_MM = np.array([24.0, 29.0, 27.5, 27.5, 27.5, 27.0, 26.0, 25.0, 23.5, 22.5, 22.0])
_DEPTH_MM = np.array([7.5, 11.5, 17.3, 17.8, 17.6, 17.2, 16.6, 16.0, 15.6, 15.2, 14.8])
_WIDTH_MM = np.array([16.0, 20.0, 25.5, 25.5, 24.8, 23.8, 22.4, 21.2, 20.2, 19.2, 18.4])
# Tilt of a disc's mid-plane in degrees (anterior end down is positive): a mean, and its change with lordosis.
_TILT_DEG = np.array([44.0, 50.0, 44.0, 19.0, 3.0, -6.0, -11.0, -13.0, -12.5, -10.5, -8.0])
_LORDOSIS_DEG = np.array([6.0, 6.5, 6.5, 3.5, 0.5, -2.0, -3.0, -3.5, -3.0, -2.0, -1.0])
_WEDGE_DEG = np.array([0.0, 3.0, 13.5, 10.0, 8.0, 6.0, 4.0, 3.0, 2.0, 1.5, 1.0])
# Skin behind the column's centre line, and fat under it in units of the subject's own thickness.
_SKIN_MM = np.array([36.0, 54.0, 74.0, 80.0, 79.0, 77.0, 75.0, 73.0, 71.0, 70.0, 69.0])
_FAT_SHARE = np.array([1.7, 1.8, 1.75, 1.6, 1.35, 1.1, 0.95, 0.85, 0.8, 0.8, 0.8])


_Draw = Callable[..., jax.Array]  # random numbers between two values, or about one


class Organs(NamedTuple):
    """What lies in front of the column and beside it; L lumps that stand for all but bowel and kidneys."""

    bowel: jax.Array  # how unlike its loops are, 0 to 1
    kidney: jax.Array  # water signal of the kidneys
    kidney_2x3: jax.Array  # left and right: mm out from the midline, mm down from L2/3, size
    lump_Lx3: jax.Array  # mm across, mm back, plane number
    lump_radius_Lx3: jax.Array  # half axes across, back, along, mm
    lump_water_L: jax.Array


class Anatomy(NamedTuple):
    """One subject. Letters: P planes; 4 coefficients of a cubic in h / 100 mm, constant first."""

    size: jax.Array  # 1 is an average adult
    centre_Px3: jax.Array  # of each disc, mm
    frame_Px3x3: jax.Array  # rows: unit vectors across, along (down), back
    height_P: jax.Array  # of discs, mm, mean over the disc
    wedge_P: jax.Array  # of discs, radians, taller in front
    depth_P: jax.Array  # half the front-to-back size of an endplate, mm
    width_P: jax.Array  # half the side-to-side size, mm
    wear_P: jax.Array  # degeneration, 0 healthy to 1: lower, darker, bulging
    dent_Px4: jax.Array  # of an endplate: side (1 below, -1 above the disc), place across and back, depth, mm
    skin_4: jax.Array  # where the skin of the back lies, w in mm
    fascia_4: jax.Array  # where the fat under it ends
    belly_mm: jax.Array  # depth of the abdomen in front of the column
    belly_fat_mm: jax.Array
    marrow: jax.Array  # signal of marrow, water + fat
    marrow_fat: jax.Array  # the fat's share of it
    marrow_patch: jax.Array  # how much that share varies from place to place
    fluid: jax.Array  # water signal of the spinal fluid
    blood: jax.Array  # water signal of the great vessels, dark where flow is fast
    muscle_fat: jax.Array  # share of muscle that is streaked with fat, 0 to 1
    organs: Organs


class Place(NamedTuple):
    """Where points lie in the column's own coordinates; all of the points' shape."""

    across: jax.Array  # mm, to the right of the mid-plane
    back: jax.Array  # mm, behind the centre line
    along: jax.Array  # mm below the centre of the vertebra (or below the middle between two planes)
    beyond: jax.Array  # mm below the nearest disc's mid-plane; negative above it
    rise: jax.Array  # plane number, fractional, growing upwards
    nearest: jax.Array  # int, the nearest plane
    gap: jax.Array  # mm between the two planes here; less behind a lordosis than in front of it


def sample(key: jax.Array) -> Anatomy:
    """Draw a subject. Nothing depends on a grid: the origin is the point a field of view is centred on."""
    # Each draw below takes the next row of one of two tables.
    key_uniform, key_normal = jax.random.split(key)
    uniforms = iter(jax.random.uniform(key_uniform, (24, PLANES)))
    normals = iter(jax.random.truncated_normal(key_normal, -2, 2, (32, PLANES)))

    def uniform(low: float, high: float, n: int | None = None) -> jax.Array:
        row = next(uniforms)
        return low + (high - low) * (row[0] if n is None else row[:n])

    def normal(mean: float, spread: float, n: int | None = None, low: float = -2.0) -> jax.Array:
        row = jnp.maximum(next(normals), low)
        return mean + spread * (row[0] if n is None else row[:n])

    # Cut off closer below than above, as the disc volumes of real subjects are.
    size = normal(1.0, 0.042, low=-1.3)
    # Wear is rare above and common at the two lowest discs.
    wear_P = jnp.clip(uniform(0, 1, PLANES) ** 4 * jnp.linspace(1.15, 0.6, PLANES) + normal(0.05, 0.06), 0, 1)
    height_P = size * _DISC_MM * normal(1.0, 0.055, low=-1.3) * normal(1.0, 0.035, PLANES) * (1 - 0.45 * wear_P)
    body_P = size * _BODY_MM * normal(1.0, 0.02, PLANES)
    tilt_P = jnp.deg2rad(_TILT_DEG + _LORDOSIS_DEG * normal(0, 0.9) + normal(0, 2.0) + normal(0, 1.2, PLANES))
    # A few are scoliotic.
    bent, bends = normal(0, 1.4), 1 + 6 * uniform(0, 1) ** 6
    lean_P = jnp.deg2rad(bent * bends * jnp.sin(jnp.linspace(0, np.pi, PLANES) + uniform(0, 6.3)))
    twist_P = jnp.deg2rad(normal(0, 2.5) * jnp.sqrt(bends) * jnp.sin(jnp.linspace(0, np.pi, PLANES) + uniform(0, 6.3)))
    frame_Px3x3 = rotations(tilt_P, lean_P, twist_P)
    centre_Px3 = _chain(frame_Px3x3, height_P, body_P) + normal(0, 1, 3) * jnp.array([1.5, 2.5, 4.0])
    depth_P = size * _DEPTH_MM * normal(1.0, 0.03)
    width_P = size * _WIDTH_MM * normal(1.0, 0.03)
    skin_P = centre_Px3[:, 2] + _SKIN_MM * size + normal(0, 3.0) - 6.0
    fat_P = uniform(6.0, 22.0) * _FAT_SHARE
    return Anatomy(
        size=size,
        centre_Px3=centre_Px3,
        frame_Px3x3=frame_Px3x3,
        height_P=height_P,
        wedge_P=jnp.deg2rad(_WEDGE_DEG * normal(1.0, 0.12)) * (1 - 0.5 * wear_P),
        depth_P=depth_P,
        width_P=width_P,
        wear_P=wear_P,
        dent_Px4=_dents(uniform, normal, width_P, depth_P),
        skin_4=_cubic(centre_Px3[:, 1], skin_P + 0.8 * fat_P),
        fascia_4=_cubic(centre_Px3[:, 1], skin_P - 0.2 * fat_P),
        belly_mm=uniform(105.0, 170.0),
        belly_fat_mm=uniform(8.0, 30.0),
        marrow=normal(0.82, 0.05),
        marrow_fat=uniform(0.40, 0.58),
        marrow_patch=0.03 + 0.12 * uniform(0, 1) ** 2,
        fluid=normal(0.85, 0.07),
        blood=uniform(0.15, 0.6),
        muscle_fat=uniform(0.1, 0.5),
        organs=_organs(uniform, normal),
    )


def _dents(uniform: _Draw, normal: _Draw, width_P: jax.Array, depth_P: jax.Array) -> jax.Array:
    """Side, place across and back, and depth (P, 4) of one dent a disc; seven in eight or so have no depth."""
    side_P = jnp.sign(normal(0, 1, PLANES))
    across_P, back_P = 0.35 * width_P * normal(0, 1, PLANES), 0.3 * depth_P * normal(0, 1, PLANES)
    return jnp.stack([side_P, across_P, back_P, jnp.maximum(uniform(-28.0, 4.5, PLANES), 0)], axis=-1)


def _organs(uniform: _Draw, normal: _Draw) -> Organs:
    return Organs(
        bowel=uniform(0.0, 1.0),
        kidney=uniform(0.45, 1.05),
        kidney_2x3=jnp.stack([uniform(48.0, 60.0, 2), uniform(-14.0, 14.0, 2), uniform(0.85, 1.15, 2)], axis=-1),
        lump_Lx3=jnp.stack([normal(0, 28.0, LUMPS), uniform(-110.0, -36.0, LUMPS), uniform(1.0, 9.0, LUMPS)], axis=-1),
        lump_radius_Lx3=jnp.stack([uniform(5.0, 30.0, LUMPS) for _ in range(3)], axis=-1),
        lump_water_L=uniform(0.1, 1.1, LUMPS),
    )


def rotations(tilt_N: jax.Array, lean_N: jax.Array, twist_N: jax.Array) -> jax.Array:
    """Rotations (N, 3, 3), rows across, along, back: tilt in the sagittal plane, lean aside, twist; radians."""
    ct, st, cl, sl, ca, sa = (f(x) for x in (tilt_N, lean_N, twist_N) for f in (jnp.cos, jnp.sin))
    zero, one = jnp.zeros_like(ct), jnp.ones_like(ct)

    def matrix(*rows: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        return jnp.moveaxis(jnp.array(rows), -1, 0)

    tilt = matrix((one, zero, zero), (zero, ct, st), (zero, -st, ct))
    lean = matrix((cl, -sl, zero), (sl, cl, zero), (zero, zero, one))
    twist = matrix((ca, zero, sa), (zero, one, zero), (-sa, zero, ca))
    return twist @ lean @ tilt


def _chain(frame_Px3x3: jax.Array, height_P: jax.Array, body_P: jax.Array) -> jax.Array:
    """Disc centres (P, 3): each vertebra lies along the mean direction of its two discs.

    The labelled discs are centred on the origin, but 5 mm high: the lowest, being tilted, reaches farther down.
    """
    down_Px3 = frame_Px3x3[:, 1]
    step = down_Px3[1:] + down_Px3[:-1]
    length = body_P[:-1] + (height_P[1:] + height_P[:-1]) / 2
    step = -step / jnp.linalg.norm(step, axis=1, keepdims=True) * length[:, None]
    centre_Px3 = jnp.concatenate([jnp.zeros((1, 3)), jnp.cumsum(step, axis=0)])
    labelled = centre_Px3[LOWEST_DISC : LOWEST_DISC + DISCS]
    return centre_Px3 - (labelled.min(0) + labelled.max(0)) / 2 - jnp.array([0.0, 5.0, 0.0])


def _cubic(h_P: jax.Array, w_P: jax.Array) -> jax.Array:
    """Coefficients (4,) of the cubic in h / 100 mm that fits w best."""
    powers = (h_P[:, None] / 100) ** jnp.arange(4)
    return jnp.linalg.solve(powers.T @ powers, powers.T @ w_P)


def surface(cubic_4: jax.Array, h: jax.Array) -> jax.Array:
    """Where a surface of the back lies at height h, w in mm; level beyond 190 mm, where a cubic runs wild."""
    x = jnp.clip(h, -190, 190) / 100
    return cubic_4[0] + x * (cubic_4[1] + x * (cubic_4[2] + x * cubic_4[3]))


def locate(anatomy: Anatomy, z: jax.Array, h: jax.Array, w: jax.Array) -> Place:
    """Column coordinates of points (z, h, w) in mm, three arrays that broadcast."""
    point = (z, h, w)
    normal_Px3 = anatomy.frame_Px3x3[:, 1]
    offset_P = jnp.sum(normal_Px3 * anatomy.centre_Px3, axis=1)
    above = sum(
        (sum(normal_Px3[p, i] * point[i] for i in range(3)) > offset_P[p]).astype(jnp.int32)
        for p in range(1, PLANES - 1)
    )
    lower = PLANES - 2 - above
    # One row a plane, so that a point fetches its two planes in two look-ups.
    origin_Px3 = jnp.einsum("pij,pj->pi", anatomy.frame_Px3x3, anatomy.centre_Px3)

    def coordinates(plane: ArrayLike) -> list[jax.Array]:
        frame, origin = anatomy.frame_Px3x3[plane], origin_Px3[plane]
        return [sum(frame[..., i, j] * point[j] for j in range(3)) - origin[..., i] for i in range(3)]

    across_low, down_low, back_low = coordinates(lower)
    across_up, down_up, back_up = coordinates(lower + 1)
    # 0 at the upper plane, 1 at the lower one.
    share = jnp.clip(down_up / jnp.maximum(down_up - down_low, 1e-3), 0, 1)
    return Place(
        across=across_up + share * (across_low - across_up),
        back=back_up + share * (back_low - back_up),
        along=(down_up + down_low) / 2,
        beyond=jnp.where(share > 0.5, down_low, down_up),
        rise=lower + 1 - share,
        nearest=jnp.where(share > 0.5, lower, lower + 1),
        gap=jnp.maximum(down_up - down_low, 0),
    )


def at(value_P: jax.Array, place: Place) -> jax.Array:
    """A plane's value, blended linearly between planes."""
    lower = jnp.clip(jnp.floor(place.rise).astype(jnp.int32), 0, PLANES - 2)
    share = place.rise - lower
    return value_P[lower] * (1 - share) + value_P[lower + 1] * share


def half_height(anatomy: Anatomy, place: Place, ring: jax.Array) -> jax.Array:
    """Half the height in mm of the nearest disc at a point, whose endplates are domed and which is taller in front.

    ring: 0 at the disc's axis, 1 at its rim.
    """
    domed = 1.2 - 0.4 * jnp.minimum(ring, 1.2) ** 2.5
    wedge = jnp.tan(anatomy.wedge_P[place.nearest] / 2) * place.back
    height = anatomy.height_P[place.nearest]
    # The thin end of a wedge keeps a third of the height.
    return jnp.maximum(height / 2 * domed - wedge, height / 6)


def ball(*terms: tuple[jax.Array, jax.Array | float]) -> jax.Array:
    """Signed distance, roughly, of an ellipsoid: a pair (offset, radius) an axis, mm."""
    reach = jnp.sqrt(sum((offset / radius) ** 2 for offset, radius in terms))
    return (reach - 1) * reduce(jnp.minimum, (radius for _, radius in terms))


def box(*terms: tuple[jax.Array, jax.Array | float], rounding: float = 2.0) -> jax.Array:
    """Signed distance of a rounded box: a pair (offset, half size) an axis, mm."""
    beyond = [jnp.abs(offset) - half + rounding for offset, half in terms]
    outside = jnp.sqrt(sum(jnp.maximum(b, 0) ** 2 for b in beyond))
    return outside + jnp.minimum(reduce(jnp.maximum, beyond), 0) - rounding


def ring(across: jax.Array, back: jax.Array, width: jax.Array, depth: jax.Array) -> jax.Array:
    """0 on the axis of a body or disc and 1 at its rim, a superellipse between ellipse and box."""
    return ((jnp.abs(across) / width) ** 2.4 + (jnp.abs(back) / depth) ** 2.4) ** (1 / 2.4)


def rim_distance(ring_: jax.Array, across: jax.Array, back: jax.Array, at_ring: jax.Array | float = 1.0) -> jax.Array:
    """Signed distance in mm from where `ring` has the value at_ring, along the ray from the axis."""
    # The small terms keep the ratio, which is the radius of the rim, finite on the axis.
    return (ring_ - at_ring) * (jnp.hypot(across, back) + 0.02) / (ring_ + 0.001)


def arch_parts(size: jax.Array, place: Place, arch: Place, back: jax.Array, arch_back: jax.Array) -> list[jax.Array]:
    """Signed distances of pedicle, transverse, upper and lower process, lamina and spine, in painting order.

    place sorts points by the discs' planes, arch by planes moved down; back is measured from the posterior wall.
    """
    side, arch_side = jnp.abs(place.across), jnp.abs(arch.across)
    pedicle = box(
        (side - 14 * size, 4.8 * size), (place.along + 5.5 * size, 7 * size), (back - 6 * size, 13 * size), rounding=5.0
    )
    transverse = ball(
        (side - 26 * size, 16 * size), (place.along + 5 * size, 6.5 * size), (back - 14 * size, 4.5 * size)
    )
    # The lower vertebra's upper process lies in front of the upper vertebra's lower one; both lean forwards.
    lean = 0.25 * place.beyond
    upper = ball(
        (side - 16.5 * size, 6.5 * size), (place.beyond - 4 * size, 11 * size), (back - 12 * size - lean, 4.4 * size)
    )
    lower = ball(
        (side - 13.5 * size, 6.0 * size), (place.beyond + 5 * size, 13 * size), (back - 22 * size - lean, 5.0 * size)
    )
    lamina = ball(
        (arch_side, 17 * size),
        (arch.along - 0.5 * (arch_back - 21 * size), 11 * size),
        (arch_back - 23 * size + 0.012 * arch_side**2, 4.6 * size),
    )
    # Spines are tall and level in the lumbar spine, slender and drooping above, small at L5.
    tall = size * jnp.interp(arch.rise, jnp.array([2.2, 3.3, 6.5, 8.0]), jnp.array([6.5, 11.0, 11.0, 7.0]))
    long = size * jnp.interp(arch.rise, jnp.array([2.3, 3.3]), jnp.array([10.0, 15.0]))
    droop = 0.12 + 0.25 * jnp.clip(arch.rise - 6.5, 0, 2)
    level = arch.along - 2 * size - droop * (arch_back - 34 * size)
    blade = (level / jnp.minimum(tall, 0.34 * arch.gap + 0.1)) ** 4 + ((arch_back - 23 * size - long) / long) ** 4
    spine = ((blade + (arch_side / (4.4 * size)) ** 4) ** 0.25 - 1) * 4.4 * size
    # The sacrum has no arches of this kind.
    low, low_arch = 3 * (2.1 - place.rise) * size, 30 * (2.1 - arch.rise) * size
    return [jnp.maximum(part, low) for part in (pedicle, transverse, upper)] + [
        jnp.maximum(part, low_arch) for part in (lamina, lower, spine)
    ]


class Pose(NamedTuple):
    """How a subject lies in the field of view: grid = rotation @ subject + shift."""

    rotation_3x3: jax.Array
    shift_mm: jax.Array

    def to_subject(self, z: jax.Array, h: jax.Array, w: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Subject coordinates of grid points, three arrays that broadcast, mm."""
        moved = [x - shift for x, shift in zip((z, h, w), self.shift_mm, strict=True)]
        return tuple(sum(self.rotation_3x3[j, i] * moved[j] for j in range(3)) for i in range(3))

    def to_grid(self, point_Nx3: jax.Array) -> jax.Array:
        """Grid coordinates (N, 3) of subject points, mm."""
        return point_Nx3 @ self.rotation_3x3.T + self.shift_mm


def sample_pose(key: jax.Array) -> Pose:
    """A few degrees and millimetres, as a subject lies down a second time."""
    key_angle, key_shift = jax.random.split(key)
    tilt, lean, twist = jnp.deg2rad(1.5) * jax.random.truncated_normal(key_angle, -2, 2, (3, 1))
    shift_mm = jax.random.truncated_normal(key_shift, -2, 2, (3,)) * jnp.array([1.0, 3.0, 3.0])
    return Pose(rotations(tilt, lean, twist)[0], shift_mm)


def swell(key: jax.Array, anatomy: Anatomy) -> Anatomy:
    """The same subject on another day: discs a few per cent higher or lower with rest and load."""
    key_all, key_each = jax.random.split(key)
    change = 0.02 * jax.random.normal(key_all) + 0.01 * jax.random.normal(key_each, (PLANES,))
    return anatomy._replace(height_P=anatomy.height_P * (1 + jnp.clip(change, -0.06, 0.06)))
