"""Exact distances to a region's boundary, on the accelerator."""

import jax
import jax.numpy as jnp
from jax import Array

_FAR = 1e6  # pixels; more than any picture has, and its square is still a float


def signed_distance(inside_HxW: Array) -> Array:
    """Distance of each pixel to the nearest one on the other side of the boundary, in pixels, negative inside.

    Outside it is the distance to the region, inside minus the distance to what is not the region, less one, so that
    both sides of the boundary differ by one as two neighbours do. Without a boundary it is 0 everywhere.

    Args:
        inside_HxW: whether a pixel belongs to the region.

    Returns:
        distance_HxW in float32.
    """
    outside = _distance(inside_HxW)
    signed_HxW = jnp.where(inside_HxW, 1.0 - _distance(~inside_HxW), outside)
    return jnp.where(inside_HxW.any() & ~inside_HxW.all(), signed_HxW, 0.0)


def _distance(region_HxW: Array) -> Array:
    """Euclidean distance of each pixel to the region: along its row, then the nearest such of its column's rows.

    After T. Saito and J. Toriwaki, Pattern Recognition 1994;27:1551, doi 10.1016/0031-3203(94)90133-3.
    """
    H, W = region_HxW.shape
    column_W = jnp.arange(W, dtype=jnp.float32)
    before_HxW = jax.lax.cummax(jnp.where(region_HxW, column_W, -_FAR), axis=1)
    after_HxW = jax.lax.cummin(jnp.where(region_HxW, column_W, _FAR), axis=1, reverse=True)
    square_HxW = jnp.square(jnp.minimum(column_W - before_HxW, after_HxW - column_W))
    row_H = jnp.arange(H, dtype=jnp.float32)

    def nearer(nearest_HxW: Array, row: tuple[Array, Array]) -> tuple[Array, None]:
        place, square_W = row
        return jnp.minimum(nearest_HxW, square_W + jnp.square(row_H - place)[:, None]), None

    nearest_HxW, _ = jax.lax.scan(nearer, jnp.full((H, W), _FAR**2), (row_H, square_HxW))
    return jnp.sqrt(nearest_HxW)
