"""What is measured: a network, a batch and a volume, small on a CPU and of full size on an accelerator."""

import dataclasses
from dataclasses import dataclass

import jax
import numpy as np

from ivdjax.config import Augment, Data, Experiment, Train
from ivdjax.models import UNet, labelled_slices

Batch = dict[str, np.ndarray]

NO_AUGMENTATION = Augment(**{field.name: 0.0 for field in dataclasses.fields(Augment)})


@dataclass(frozen=True)
class Sizes:
    """What the measurements share."""

    experiment: Experiment
    """Network, window and batch."""
    volume: tuple[int, int, int] = (36, 256, 256)
    """Voxels along Z, H, W of a case."""
    cases: int = 16
    """Cases that the pipeline reads."""
    rounds: int = 8
    """Timings of each thing, of which the shortest counts."""
    steps: int = 8
    """Training steps in one timing of the pipeline, a multiple of those of one call."""


CPU = Sizes(Experiment(name="bench", model=UNet(), data=Data(slices=5, window=(160, 160)), train=Train(batch_size=8)))
"""The small network in float32, for the cores of a laptop."""

ACCELERATOR = Sizes(
    Experiment(
        name="bench",
        model=UNet(features=(32, 64, 128, 256, 320), decoder_depth=2, deep_supervision=True, dtype="bfloat16"),
        data=Data(slices=5, window=(256, 256), threads=8),
        train=Train(batch_size=16),
    ),
    rounds=30,
    steps=60,
)
"""Network, window and batch of `experiments.baseline`."""


def here() -> Sizes:
    """The sizes for this machine."""
    return CPU if jax.default_backend() == "cpu" else ACCELERATOR


def without_augmentation(experiment: Experiment) -> Experiment:
    """The same experiment with every random change switched off."""
    return dataclasses.replace(experiment, augment=NO_AUGMENTATION)


def fixed_batch(experiment: Experiment) -> Batch:
    """A batch of noise with boxes for discs: stack_BxKxHxWxC in float32, label_BxLxHxW, sample_B and weight_B."""
    data, B = experiment.data, experiment.train.batch_size
    label_BxHxW = np.repeat(boxes(*data.window)[None], B, 0)
    shape = (B, data.slices, *data.window, len(data.channels))
    stack_BxKxHxWxC = 0.5 * np.random.default_rng(0).standard_normal(shape, np.float32)
    stack_BxKxHxWxC += 2 * label_BxHxW[:, None, :, :, None]
    return {
        "stack": stack_BxKxHxWxC,
        "label": np.repeat(label_BxHxW[:, None], labelled_slices(experiment.model, data.slices), 1),
        "sample": np.arange(B, dtype=np.int32),
        "weight": np.ones(B, np.float32),
    }


def boxes(H: int, W: int) -> np.ndarray:
    """Four boxes for discs, label_HxW."""
    label_HxW = np.zeros((H, W), np.uint8)
    for top in range(H // 16, H, max(H // 4, 1)):
        label_HxW[top : top + max(H // 20, 1), W // 3 : 2 * W // 3] = 1
    return label_HxW
