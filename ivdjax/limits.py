"""Numbers that settings may have; others are refused before anything is done with them."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

from ivdjax.config import Augment, Experiment, Loss
from ivdjax.errors import UsageError

_SEEDS = (0, 2**32 - 1)
_SHARE = (0.0, 1.0)
_POSITIVE = (1e-9, math.inf)

# By the dotted name of a setting: the least and the most that it, or each of its numbers, may be.
LIMITS = {
    **{f"augment.{field.name}": (0.0, 1e3) for field in dataclasses.fields(Augment)},
    **{f"augment.{name}": _SHARE for name in ("flip", "swap", "invert", "channel_dropout", "foreign")},
    **{f"loss.{field.name}": (0.0, 1e6) for field in dataclasses.fields(Loss)},
    "loss.tversky_misses": _SHARE,
    "data.phantom.cases": (1, 9999),
    "data.phantom.seed": _SEEDS,
    "data.phantom.shape": (1, 4096),
    "data.phantom.spacing_mm": (0.05, 100.0),
    "data.fresh.per_step": (0, math.inf),
    "data.fresh.pool": (1, math.inf),
    "data.fresh.slab": (1, math.inf),
    "data.fresh.spacing_mm": (0.05, 100.0),
    "data.fresh.thickness_mm": (0.05, 100.0),
    "data.fresh.reach_mm": (0.0, 1e3),
    "data.folds": (0, math.inf),
    "data.fold": (0, math.inf),
    "data.learn_subjects": (0, math.inf),
    "data.slices": (1, 999),
    "data.window": (1, 4096),
    "data.foreground_share": _SHARE,
    "data.clip_percentiles": (0.0, 100.0),
    "data.threads": (1, 1024),
    "optimizer.learning_rate": _POSITIVE,
    "optimizer.warmup_steps": (0, math.inf),
    "optimizer.weight_decay": (0.0, 1e6),
    "optimizer.clip_norm": _POSITIVE,
    "optimizer.ema_decay": _SHARE,
    "train.steps": (1, math.inf),
    "train.batch_size": (1, math.inf),
    "train.log_every": (1, math.inf),
    "train.validate_every": (0, math.inf),
    "train.checkpoint_every": (1, math.inf),
    "train.steps_per_call": (0, math.inf),
    "predict.shifts": (0, 8),
    "predict.batch_size": (1, math.inf),
    "predict.postprocess.specks_mm3": (0.0, 1e9),
    "predict.postprocess.lowest": (0, 99),
    "seeds": (1, 1000),
    "seed": _SEEDS,
}

# The least of what networks call so; a user's own has other fields, which are the user's business.
_LEAST = {"classes": 2, "features": 1, "depth": 1, "decoder_depth": 1, "blocks": 1, "heads": 1, "flat": 0}

# Voxels of a phantom: thirty times those of its own grid.
_PHANTOM_VOXELS = 2**26


def check(experiment: Experiment) -> None:
    """Refuse an experiment with a number that nothing can be done with.

    Raises:
        UsageError: the first such setting, what it is and what it may be.
    """
    for name, value in _settings(experiment):
        _check_number(name, value)
    low, high = experiment.data.clip_percentiles
    if low >= high:
        raise UsageError(f"--data.clip-percentiles {low:g} {high:g}: the first is the smaller")
    if experiment.data.slices % 2 == 0:
        raise UsageError(f"--data.slices {experiment.data.slices}: choose an odd number, so that a stack has a centre")
    channels = experiment.data.channels
    if not channels or len({channel.lower() for channel in channels}) != len(channels):
        raise UsageError(f"--data.channels {' '.join(channels) or 'without names'}: name one or more, each once")
    _check_voxels(experiment.data.phantom.shape)
    _check_network(experiment)


def check_phantom(phantom: Any) -> None:
    """Refuse a `config.Phantom` that cannot be drawn; errors are as of `check`."""
    for field in dataclasses.fields(phantom):
        _check_number(f"data.phantom.{field.name}", getattr(phantom, field.name))
    _check_voxels(phantom.shape)


def _check_voxels(shape: tuple[int, int, int]) -> None:
    if math.prod(shape) > _PHANTOM_VOXELS:
        sides = " ".join(map(str, shape))
        raise UsageError(f"--data.phantom.shape {sides}: is over {_PHANTOM_VOXELS} voxels; choose a smaller one")


def _settings(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every setting by its dotted name, but for those of the network."""
    for field in dataclasses.fields(value):
        inner = getattr(value, field.name)
        if dataclasses.is_dataclass(inner):
            if field.name != "model":
                yield from _settings(inner, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", inner


def _check_number(name: str, value: Any) -> None:
    if name not in LIMITS:
        return
    low, high = LIMITS[name]
    numbers = value if isinstance(value, tuple) else (value,)
    # A NaN is not within anything.
    if not all(low <= number <= high and math.isfinite(number) for number in numbers):
        told = " ".join(f"{number:g}" if isinstance(number, float) else str(number) for number in numbers)
        if (low, high) == _POSITIVE:
            allowed = "more than 0"
        else:
            allowed = f"{low:g} or more" if high in (math.inf, 1e3, 1e6, 1e9) else f"{low:g} to {high:.10g}"
        raise UsageError(f"--{name.replace('_', '-')} {told}: may be {allowed}")


def _check_network(experiment: Experiment) -> None:
    """Refuse a network without a resolution or a feature."""
    model = experiment.model
    for name, least in _LEAST.items():
        value = getattr(model, name, least)
        numbers = value if isinstance(value, tuple) else (value,)
        if not numbers or min(numbers) < least:
            told = " ".join(map(str, numbers)) or "without numbers"
            raise UsageError(f"--model.{name.replace('_', '-')} {told}: may be {least} or more")
    features, blocks, heads = (getattr(model, name, None) for name in ("features", "blocks", "heads"))
    if not isinstance(features, tuple):
        return
    if isinstance(blocks, tuple) and len(blocks) != len(features):
        raise UsageError(f"--model.blocks: has {len(blocks)} numbers, --model.features {len(features)}; give as many")
    if isinstance(heads, int) and any(number % heads for number in features):
        raise UsageError(
            f"--model.heads {heads}: does not divide each of --model.features {' '.join(map(str, features))}"
        )
