"""2.5D geometry: which voxels make a stack, on the host and on the accelerator.

A stack is K neighbouring sagittal slices of one case, all cut to the same window; its centre slice is the one that is
segmented. Slices beyond the ends of a volume, and rows and columns beyond its borders, repeat the nearest one. The
host copies parts of arrays, in memory or in files, and repeats the border afterwards; the accelerator takes a block
out of volumes to which the border has been added before.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from ivdjax.data.stored import Stored

Array = Any  # numpy's or jax's


def copy(volume_ZxHxWxC: np.ndarray | Stored, centre: int, corner: Sequence[int], out_KxHxWxC: np.ndarray) -> None:
    """Copy one stack from a volume on the host into memory that is there already.

    Args:
        volume_ZxHxWxC: an image, or an array with any trailing axes (none for a label).
        centre: index along Z of the centre slice.
        corner: row and column of the window's first voxel; may lie outside the volume.
        out_KxHxWxC: where to; its shape gives the number of slices, odd, and the window.
    """
    first_3 = (centre - out_KxHxWxC.shape[0] // 2, *corner)
    # Of each axis the part of the stack that lies in the volume, or the nearest of it where none does.
    source, target = [], []
    for first, size, whole in zip(first_3, out_KxHxWxC.shape, volume_ZxHxWxC.shape, strict=False):
        start = min(max(first, 0), whole - 1)
        stop = max(min(first + size, whole), start + 1)
        at = min(max(start - first, 0), size - 1)
        source.append(slice(start, stop))
        target.append(slice(at, at + stop - start))
    slices, rows, columns = target
    out_KxHxWxC[slices, rows, columns] = volume_ZxHxWxC[tuple(source)]
    if columns.stop - columns.start < out_KxHxWxC.shape[2]:
        out_KxHxWxC[slices, rows, : columns.start] = out_KxHxWxC[slices, rows, columns.start : columns.start + 1]
        out_KxHxWxC[slices, rows, columns.stop :] = out_KxHxWxC[slices, rows, columns.stop - 1 : columns.stop]
    if rows.stop - rows.start < out_KxHxWxC.shape[1]:
        out_KxHxWxC[slices, : rows.start] = out_KxHxWxC[slices, rows.start : rows.start + 1]
        out_KxHxWxC[slices, rows.stop :] = out_KxHxWxC[slices, rows.stop - 1 : rows.stop]
    out_KxHxWxC[: slices.start] = out_KxHxWxC[slices.start]
    out_KxHxWxC[slices.stop :] = out_KxHxWxC[slices.stop - 1]


@struct.dataclass
class Volumes:
    """P cases in one array each, ready to be taken from: every border repeated as far as a stack can reach."""

    image_PxZxHxWxC: Array
    label_PxZxHxW: Array
    margin: tuple[int, int] = struct.field(pytree_node=False)
    """Rows and columns before the first of a case."""


def packed_shape(shapes_ZxHxW: Sequence[tuple[int, ...]], K: int, window: tuple[int, int]) -> tuple[int, int, int]:
    """Slices, rows and columns that each case has among `Volumes`."""
    Z = max(shape[0] for shape in shapes_ZxHxW) + K - 1
    margin = _margin(shapes_ZxHxW, window)
    H, W = (margin[i] + max(max(shape[i + 1], window[i]) for shape in shapes_ZxHxW) for i in range(2))
    return Z, H, W


def pack(
    images_ZxHxWxC: Sequence[np.ndarray | Stored],
    labels_ZxHxW: Sequence[np.ndarray | Stored],
    K: int,
    window: tuple[int, int],
) -> Volumes:
    """Bring cases of any sizes into arrays of one size, on the host, for stacks of K slices of a window."""
    shapes = [label_ZxHxW.shape for label_ZxHxW in labels_ZxHxW]
    Z, H, W = packed_shape(shapes, K, window)
    top, left = _margin(shapes, window)
    image = np.empty((len(shapes), Z, H, W, images_ZxHxWxC[0].shape[-1]), images_ZxHxWxC[0].dtype)
    label = np.empty((len(shapes), Z, H, W), labels_ZxHxW[0].dtype)
    for case, (z, h, w) in enumerate(shapes):
        before_after = [(K // 2, Z - z - K // 2), (top, H - h - top), (left, W - w - left)]
        image[case] = np.pad(images_ZxHxWxC[case], [*before_after, (0, 0)], mode="edge")
        label[case] = np.pad(labels_ZxHxW[case], before_after, mode="edge")
    return Volumes(image, label, (top, left))


def _margin(shapes_ZxHxW: Sequence[tuple[int, ...]], window: tuple[int, int]) -> tuple[int, int]:
    # A window larger than a slice may lie this far before it.
    rows, columns = (max(0, *(window[i] - shape[i + 1] for shape in shapes_ZxHxW)) for i in range(2))
    return rows, columns


def take(volumes: Volumes, place_4: Array, K: int, window: tuple[int, int], L: int = 1) -> tuple[Array, Array]:
    """Take one sample from volumes on the accelerator.

    Args:
        volumes: as `pack` made them, for the same K and window.
        place_4: case, centre slice, row and column of the window's corner, which lies within the slice or, where that
            is smaller than the window, the slice within the window; may be traced.
        K: slices of the stack.
        window: its height and width.
        L: slices whose labels are wanted, the middle ones of the stack; odd.

    Returns:
        stack_KxHxWxC and label_LxHxW.
    """
    case, centre, row, column = place_4
    row, column = row + volumes.margin[0], column + volumes.margin[1]
    C = volumes.image_PxZxHxWxC.shape[-1]
    stack_1xKxHxWxC = jax.lax.dynamic_slice(volumes.image_PxZxHxWxC, (case, centre, row, column, 0), (1, K, *window, C))
    # Before the first slice of a case its volume has K // 2 copies of it.
    first = (case, centre + K // 2 - L // 2, row, column)
    label_1xLxHxW = jax.lax.dynamic_slice(volumes.label_PxZxHxW, first, (1, L, *window))
    return stack_1xKxHxWxC[0], label_1xLxHxW[0]


def all_stacks(volume_ZxHxWxC: Array, centres_B: Array, K: int) -> Array:
    """Stacks of whole slices about each of the centres, on the accelerator: stack_BxKxHxWxC."""
    slices_BxK = jnp.clip(centres_B[:, None] + np.arange(K) - K // 2, 0, volume_ZxHxWxC.shape[0] - 1)
    return volume_ZxHxWxC[slices_BxK]
