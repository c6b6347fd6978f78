"""The grain pipeline: steps in, batches out, made ahead of their use; its iterator is part of a checkpoint.

A record is a training step, and what follows from its number: the places, case and slice and window, of every sample
that the step's networks learn from. Where the volumes lie on the accelerator, that is all that is shipped. Where they
do not, each process then cuts the stacks of its own share. Either way the batches are the same, whatever the number of
processes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

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
class Places:
    """Turns the number of a step into the places of a network's samples: case, slice, row and column of the window.

    Epoch by epoch every slice comes once, in a new order. With probability `foreground_share` a sample is moved to a
    random disc voxel of the same case, which the window is centred on give or take a quarter of its size; otherwise its
    window lies anywhere in the slice.
    """

    seed: int
    batch_size: int
    slices_Nx2: np.ndarray
    """Case and slice of each slice that is learnt from."""
    shapes_Px2: np.ndarray
    """Height and width of each case."""
    voxels_Mx3: np.ndarray
    """Disc voxels of all cases, one case after the other: slice, row, column."""
    first_P: np.ndarray
    """Where those of each case begin, and at the end where the last end."""
    window: tuple[int, int]
    foreground_share: float

    def __call__(self, step: int) -> np.ndarray:
        """Return place_Bx4, int32: case, slice, row and column of the window's first voxel."""
        B, N = self.batch_size, len(self.slices_Nx2)
        rng = np.random.default_rng((self.seed, step))
        samples = range(step * B, step * B + B)
        number_B = [_order(self.seed, sample // N, N)[sample % N] for sample in samples]
        place_Bx4 = np.empty((B, 4), np.int32)
        place_Bx4[:, :2] = self.slices_Nx2[number_B]
        case_B = place_Bx4[:, 0]
        # The room by which the window can move; negative where the slice is smaller than the window.
        room_Bx2 = self.shapes_Px2[case_B] - self.window
        low_Bx2, high_Bx2 = np.minimum(room_Bx2, 0), np.maximum(room_Bx2, 0)
        place_Bx4[:, 2:] = rng.integers(low_Bx2, high_Bx2 + 1)
        # Drawn for all, used for those that are moved, so that no sample's place depends on another's.
        moved_B, share_B = rng.random(B) < self.foreground_share, rng.random(B)
        quarter_2, half_2 = np.array(self.window) // 4, np.array(self.window) // 2
        shift_Bx2 = rng.integers(-quarter_2, quarter_2 + 1, (B, 2))
        first_B, count_B = self.first_P[case_B], self.first_P[case_B + 1] - self.first_P[case_B]
        moved_B &= count_B > 0
        voxel_Lx3 = self.voxels_Mx3[(first_B + (share_B * count_B).astype(int))[moved_B]]
        place_Bx4[moved_B, 1] = voxel_Lx3[:, 0]
        corner_Lx2 = voxel_Lx3[:, 1:] - half_2 + shift_Bx2[moved_B]
        place_Bx4[moved_B, 2:] = np.clip(corner_Lx2, low_Bx2[moved_B], high_Bx2[moved_B])
        return place_Bx4


@lru_cache(maxsize=64)
def _order(seed: int, epoch: int, N: int) -> np.ndarray:
    # Three numbers where a step's own generator has two: never the same stream.
    return np.random.default_rng((seed, epoch, N)).permutation(N)


@dataclass(frozen=True)
class AllPlaces:
    """Turns the number of a step into the places of all networks' samples."""

    members: tuple[Places, ...]

    def __call__(self, step: int) -> np.ndarray:
        """Return place_FxBx4, int32."""
        return np.stack([member(step) for member in self.members])


@dataclass(frozen=True)
class Ship:
    """Turns places into this process's share of a batch for volumes that lie on the accelerator."""

    share: Share

    def __call__(self, place_FxBx4: np.ndarray) -> Batch:
        """Return place_FxBx4, sample_FxB (number of a sample in its batch) and weight_FxB (0 for padding)."""
        return {"place": place_FxBx4[self.share], **_numbers(place_FxBx4.shape[:2], self.share)}


@dataclass(frozen=True)
class Gather:
    """Turns places into this process's share of stacks and the labels of their L middle slices, on the host."""

    cases: tuple[CachedCase, ...]
    K: int
    L: int
    window: tuple[int, int]
    share: Share

    def __call__(self, place_FxBx4: np.ndarray) -> Batch:
        """Return stack_FxBxKxHxWxC (float16), label_FxBxLxHxW (uint8), sample_FxB and weight_FxB (0 for padding)."""
        own_FxBx4 = place_FxBx4[self.share]
        image_ZxHxWxC, label_ZxHxW = self.cases[0].image_ZxHxWxC, self.cases[0].label_ZxHxW
        F, B = own_FxBx4.shape[:2]
        stack = np.empty((F, B, self.K, *self.window, image_ZxHxWxC.shape[-1]), image_ZxHxWxC.dtype)
        label = np.empty((F, B, self.L, *self.window), label_ZxHxW.dtype)
        for at in np.ndindex(F, B):
            case, slice_, *corner = own_FxBx4[at].tolist()
            stacks.copy(self.cases[case].image_ZxHxWxC, slice_, corner, stack[at])
            stacks.copy(self.cases[case].label_ZxHxW, slice_, corner, label[at])
        return {"stack": stack, "label": label, **_numbers(place_FxBx4.shape[:2], self.share)}


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
    """Places of the samples of every step, place_FxBx4.

    Args:
        cases: of the whole run.
        members: the F networks; the places of one do not depend on the others.
        data: how samples are cut.
        batch_size: B of one network, over all processes.
    """
    shapes_Px3 = np.array([case.label_ZxHxW.shape for case in cases])
    voxels = [np.argwhere(np.asarray(case.label_ZxHxW)).astype(np.int32) for case in cases]
    voxels_Mx3, first_P = np.concatenate(voxels), np.cumsum([0, *map(len, voxels)])
    every = []
    for member in members:
        slices_Nx2 = np.array([(case, z) for case in member.learn for z in range(shapes_Px3[case, 0])])
        every.append(
            Places(
                member.seed,
                batch_size,
                slices_Nx2,
                shapes_Px3[:, 1:],
                voxels_Mx3,
                first_P,
                data.window,
                data.foreground_share,
            )
        )
    return grain.MapDataset.range(_STEPS).map(AllPlaces(tuple(every)))


def resident(step_places: grain.MapDataset, share: Share = WHOLE) -> grain.DatasetIterator[Batch]:
    """Endless batches of places, for volumes that lie on the accelerator."""
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=32)
    return iter(step_places.map(Ship(share)).to_iter_dataset(options))


def gathered(
    step_places: grain.MapDataset, cases: Sequence[CachedCase], data: Data, L: int = 1, share: Share = WHOLE
) -> grain.DatasetIterator[Batch]:
    """Endless batches of stacks that this process cuts from its files, ahead of their use."""
    options = grain.ReadOptions(num_threads=data.threads, prefetch_buffer_size=data.threads + 2)
    return iter(step_places.map(Gather(tuple(cases), data.slices, L, data.window, share)).to_iter_dataset(options))


def counted(members: int, batch_size: int, share: Share = WHOLE) -> grain.DatasetIterator[Batch]:
    """Endless batches without images, for training on phantoms that the step itself draws."""
    return iter(grain.MapDataset.range(_STEPS).map(Count(members, batch_size, share)).to_iter_dataset())
