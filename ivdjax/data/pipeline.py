"""The grain pipeline: shuffle, repeat, batch, gather; its iterator is part of a checkpoint.

Records are slices of cases. They are batched for the whole run first and only then is each process's share of a batch
cut out and gathered, so the batches are the same whatever the number of processes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import grain
import numpy as np

from ivdjax.config import Data
from ivdjax.data import stacks
from ivdjax.data.cache import CachedCase

Batch = dict[str, np.ndarray]


@dataclass(frozen=True)
class Place:
    """Turns the index of a slice into the place of a sample: case, slice, row and column of the window's corner.

    With probability `foreground_share` the sample is moved to a random disc voxel of the same case, which the window
    is centred on give or take a quarter of its size; otherwise its window lies anywhere in the slice.
    """

    slices_Nx2: np.ndarray
    shapes_HxW: tuple[tuple[int, int], ...]
    foreground: tuple[np.ndarray, ...]
    window: tuple[int, int]
    foreground_share: float

    def __call__(self, index: int, rng: np.random.Generator) -> np.ndarray:
        """Return int32 [case, slice, row, column]."""
        case, slice_ = self.slices_Nx2[index]
        # The room by which the window can move; negative where the slice is smaller than the window.
        room = np.subtract(self.shapes_HxW[case], self.window)
        voxels_Mx3 = self.foreground[case]
        if rng.random() < self.foreground_share and len(voxels_Mx3):
            slice_, *voxel = voxels_Mx3[rng.integers(len(voxels_Mx3))]
            quarter = np.array(self.window) // 4
            corner = np.array(voxel) - np.array(self.window) // 2 + rng.integers(-quarter, quarter + 1)
            corner = np.clip(corner, np.minimum(room, 0), np.maximum(room, 0))
        else:
            corner = rng.integers(np.minimum(room, 0), np.maximum(room, 0) + 1)
        return np.array([case, slice_, *corner], np.int32)


@dataclass(frozen=True)
class Gather:
    """Turns a batch of places into this process's share of stacks and centre-slice labels, on the host."""

    cases: tuple[CachedCase, ...]
    K: int
    window: tuple[int, int]
    share: slice

    def __call__(self, places_Bx4: np.ndarray) -> Batch:
        """Return stack_BxKxHxWxC (float16), label_BxHxW (uint8) and weight_B (float32, 0 for padding)."""
        stack, label = [], []
        for case, slice_, row, column in places_Bx4[self.share]:
            source = self.cases[case]
            stack.append(stacks.gather(source.image_ZxHxWxC, slice_, (row, column), self.K, self.window, np))
            label.append(stacks.gather(source.label_ZxHxW, slice_, (row, column), 1, self.window, np)[0])
        return {"stack": np.stack(stack), "label": np.stack(label), "weight": np.ones(len(stack), np.float32)}


def batches(
    cases: Sequence[CachedCase], data: Data, batch_size: int, seed: int, process: int = 0, processes: int = 1
) -> grain.DatasetIterator[Batch]:
    """Endless batches of training samples.

    Args:
        cases: what to learn from.
        data: how samples are cut.
        batch_size: B of the whole run; a multiple of `processes`.
        seed: of order and places. Epoch by epoch every slice comes once, in a new order.
        process: the batch's rows of this process are the `process`-th of `processes` equal parts.
        processes: how many read.

    Returns:
        A grain iterator; `get_state` and `set_state` address the next batch exactly.
    """
    own = batch_size // processes
    slices_Nx2 = np.array([(i, z) for i, case in enumerate(cases) for z in range(case.label_ZxHxW.shape[0])])
    place = Place(
        slices_Nx2,
        tuple(case.label_ZxHxW.shape[1:] for case in cases),
        tuple(np.argwhere(case.label_ZxHxW).astype(np.int32) for case in cases),
        data.window,
        data.foreground_share,
    )
    gather = Gather(tuple(cases), data.slices, data.window, slice(process * own, (process + 1) * own))
    places = grain.MapDataset.range(len(slices_Nx2)).seed(seed).shuffle().repeat().random_map(place)
    options = grain.ReadOptions(num_threads=data.threads, prefetch_buffer_size=4 * data.threads)
    return iter(places.batch(batch_size).map(gather).to_iter_dataset(options))


def weights(batch_size: int) -> grain.DatasetIterator[Batch]:
    """Endless batches of weight_B alone, for training on phantoms that the step itself draws."""
    return iter(grain.MapDataset.range(batch_size).repeat().map(_one).batch(batch_size).to_iter_dataset())


def _one(_: int) -> Batch:
    return {"weight": np.float32(1)}
