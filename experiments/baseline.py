"""IVDM3Seg at full size: four Dixon channels, whole slices, one subject (two scans) held out.

    python -m experiments.baseline --data.root IVDM3Seg --data.fold 0
    python -m experiments.baseline --data.root IVDM3Seg --folds all

The first trains one fold of eight, the second the whole leave-one-subject-out cross-validation beside each other, with
every case held out once. It is sized for one accelerator or more; its figure on IVDM3Seg is yours to measure, since the
data set is not ours to pass on.
"""

from ivdjax import command_line
from ivdjax.config import Data, Experiment, Train
from ivdjax.models import UNet


def experiment() -> Experiment:
    """A 2.5D U-Net on whole 256 x 256 slices, computed in bfloat16."""
    return Experiment(
        name="baseline",
        model=UNet(features=(32, 64, 128, 256, 320), decoder_depth=2, deep_supervision=True, dtype="bfloat16"),
        data=Data(slices=5, window=(256, 256), foreground_share=0.33, threads=8),
        train=Train(steps=10_000, batch_size=16),
    )


if __name__ == "__main__":
    command_line.experiment(experiment(), __doc__)
