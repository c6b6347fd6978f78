"""2.5D geometry: which voxels make a stack; the same code on numpy and on jnp arrays.

A stack is K neighbouring sagittal slices of one case, all cut to the same window; its centre slice is the one that is
segmented. Slices beyond the ends of a volume, and rows and columns beyond its borders, repeat the nearest one.
"""

from types import ModuleType
from typing import Any

import numpy as np

Array = Any  # numpy's or jax's


def gather(
    volume_ZxHxWxC: Array, centre: Array, corner: tuple[Array, Array], K: int, window: tuple[int, int], xnp: ModuleType
) -> Array:
    """Cut one stack from a volume.

    Args:
        volume_ZxHxWxC: an image, or an array with any trailing axes (none for a label).
        centre: index along Z of the centre slice.
        corner: row and column of the window's first voxel; may lie outside the volume.
        K: slices of the stack, odd.
        window: height and width of the stack.
        xnp: numpy for arrays on the host, jax.numpy for those on the accelerator (indices may then be traced).

    Returns:
        stack_KxHxWxC.
    """
    Z, H, W = volume_ZxHxWxC.shape[:3]
    slices = xnp.clip(centre + np.arange(K) - K // 2, 0, Z - 1)
    rows = xnp.clip(corner[0] + np.arange(window[0]), 0, H - 1)
    columns = xnp.clip(corner[1] + np.arange(window[1]), 0, W - 1)
    return volume_ZxHxWxC[slices[:, None, None], rows[:, None], columns]


def all_stacks(volume_ZxHxWxC: Array, centres: Array, K: int, xnp: ModuleType) -> Array:
    """Stacks of whole slices about each of the B `centres`: stack_BxKxHxWxC."""
    slices_BxK = xnp.clip(centres[:, None] + np.arange(K) - K // 2, 0, volume_ZxHxWxC.shape[0] - 1)
    return volume_ZxHxWxC[slices_BxK]
