"""What the ablations vary: a small cross-validation on the digital phantom, or one of the other experiments."""

from dataclasses import replace

from experiments import baseline, t2
from ivdjax.config import Data, Experiment, Optimizer, Phantom, Train
from ivdjax.models import UNet


def small() -> Experiment:
    """Sixteen scans of eight phantom subjects on a coarse grid, four folds, a small network: minutes on two cores."""
    return Experiment(
        name="small",
        model=UNet(features=(8, 16, 32, 48)),
        data=Data(
            phantom=Phantom(cases=16, shape=(18, 128, 88), spacing_mm=(4.0, 2.2, 2.2)),
            folds=4,
            slices=5,
            window=(96, 80),
            foreground_share=0.67,
        ),
        optimizer=Optimizer(ema_decay=0.98),
        train=Train(steps=150, batch_size=8, log_every=25, validate_every=0, checkpoint_every=50),
        folds="all",
    )


def bases() -> dict[str, Experiment]:
    """By the word that an ablation's command line may begin with; the first is taken without one."""
    return {
        "small": small(),
        "baseline": replace(baseline.experiment(), folds="all"),
        "t2": replace(t2.experiment(), data=replace(t2.experiment().data, hold_out=(), folds=4), folds="all"),
    }
