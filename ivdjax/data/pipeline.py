"""The grain pipeline: shuffle, repeat, batch, gather; its iterator is part of a checkpoint.

A record is a training step: the places, case by case and slice by slice, of every sample that the step's networks
learn from. Where the volumes lie on the accelerator, that is all that is shipped. Where they do not, each process then
cuts the stacks of its own share. Either way the batches are the same, whatever the number of processes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import grain
import numpy as np

from ivdjax.config import Data
from ivdjax.data import stacks
from ivdjax.data.cache import CachedCase
from ivdjax.data.splits import Member

Batch = dict[str, np.ndarray]
# Of the networks that a run trains beside each other, and of the samples of a batch, those of this process.
Share = tuple[slice, slice]
WHOLE: Share = (slice(None), slice(None))
_STEPS = 2**40  # more than any run has


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
class Places:
    """Turns the number of a step into the places of its samples, place_FxBx4."""

    members: tuple[grain.MapDataset, ...]

    def __call__(self, step: int) -> np.ndarray:
        """Return int32 (F, B, 4)."""
        return np.stack([member[step] for member in self.members])


@dataclass(frozen=True)
class Ship:
    """Turns places into this process's share of a batch for volumes that lie on the accelerator."""

    share: Share

    def __call__(self, place_FxBx4: np.ndarray) -> Batch:
        """Return place_FxBx4, sample_FxB (number of a sample in its batch) and weight_FxB (0 for padding)."""
        return {"place": place_FxBx4[self.share], **_numbers(place_FxBx4.shape[:2], self.share)}


@dataclass(frozen=True)
class Gather:
    """Turns places into this process's share of stacks and centre-slice labels, on the host."""

    cases: tuple[CachedCase, ...]
    K: int
    window: tuple[int, int]
    share: Share

    def __call__(self, place_FxBx4: np.ndarray) -> Batch:
        """Return stack_FxBxKxHxWxC (float16), label_FxBxHxW (uint8), sample_FxB and weight_FxB (0 for padding)."""
        own_FxBx4 = place_FxBx4[self.share]
        image_ZxHxWxC, label_ZxHxW = self.cases[0].image_ZxHxWxC, self.cases[0].label_ZxHxW
        F, B = own_FxBx4.shape[:2]
        stack = np.empty((F, B, self.K, *self.window, image_ZxHxWxC.shape[-1]), image_ZxHxWxC.dtype)
        label = np.empty((F, B, 1, *self.window), label_ZxHxW.dtype)
        for at in np.ndindex(F, B):
            case, slice_, *corner = own_FxBx4[at].tolist()
            stacks.copy(self.cases[case].image_ZxHxWxC, slice_, corner, stack[at])
            stacks.copy(self.cases[case].label_ZxHxW, slice_, corner, label[at])
        return {"stack": stack, "label": label[:, :, 0], **_numbers(place_FxBx4.shape[:2], self.share)}


@dataclass(frozen=True)
class Count:
    """Turns the number of a step into this process's share of a batch that the step itself draws."""

    members: int
    batch_size: int
    share: Share

    def __call__(self, _: int) -> Batch:
        """Return sample_FxB and weight_FxB."""
        return _numbers((self.members, self.batch_size), self.share)


def _numbers(shape_FxB: tuple[int, int], share: Share) -> Batch:
    sample_FxB = np.broadcast_to(np.arange(shape_FxB[1], dtype=np.int32), shape_FxB)[share]
    return {"sample": sample_FxB, "weight": np.ones(sample_FxB.shape, np.float32)}


def places(cases: Sequence[CachedCase], members: Sequence[Member], data: Data, batch_size: int) -> grain.MapDataset:
    """Places of the samples of every step, place_FxBx4; epoch by epoch each slice comes once, in a new order.

    Args:
        cases: of the whole run.
        members: the F networks; the places of one do not depend on the others.
        data: how samples are cut.
        batch_size: B of one network, over all processes.
    """
    shapes = tuple(case.label_ZxHxW.shape for case in cases)
    foreground = tuple(np.argwhere(case.label_ZxHxW).astype(np.int32) for case in cases)
    steps = []
    for member in members:
        slices_Nx2 = np.array([(case, z) for case in member.learn for z in range(shapes[case][0])])
        place = Place(slices_Nx2, tuple(s[1:] for s in shapes), foreground, data.window, data.foreground_share)
        one = grain.MapDataset.range(len(slices_Nx2)).seed(member.seed).shuffle().repeat().random_map(place)
        steps.append(one.batch(batch_size))
    return grain.MapDataset.range(_STEPS).map(Places(tuple(steps)))


def resident(step_places: grain.MapDataset, share: Share = WHOLE) -> grain.DatasetIterator[Batch]:
    """Endless batches of places, for volumes that lie on the accelerator."""
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=32)
    return iter(step_places.map(Ship(share)).to_iter_dataset(options))


def gathered(
    step_places: grain.MapDataset, cases: Sequence[CachedCase], data: Data, share: Share = WHOLE
) -> grain.DatasetIterator[Batch]:
    """Endless batches of stacks that this process cuts from its memory-mapped arrays, ahead of their use."""
    options = grain.ReadOptions(num_threads=data.threads, prefetch_buffer_size=data.threads + 2)
    return iter(step_places.map(Gather(tuple(cases), data.slices, data.window, share)).to_iter_dataset(options))


def counted(members: int, batch_size: int, share: Share = WHOLE) -> grain.DatasetIterator[Batch]:
    """Endless batches without images, for training on phantoms that the step itself draws."""
    return iter(grain.MapDataset.range(_STEPS).map(Count(members, batch_size, share)).to_iter_dataset())
