"""What an ablation has before it: a list of its variants, and about how long each will take."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax

from ivdjax import run
from ivdjax.ablation.plan import Variant
from ivdjax.bench import sizes, step
from ivdjax.config import Experiment
from ivdjax.data import nifti
from ivdjax.data.dataset import Case
from ivdjax.models import labelled_slices

_STEPS = 3  # timed, of which the quickest counts


@dataclass(frozen=True)
class Cost:
    """What a variant takes, seconds."""

    compile_s: float
    """Until the first step is done."""
    step_s: float
    """A step of one network."""
    networks: int
    """Networks that its run trains."""
    steps: int
    """Steps of each."""
    predict_s: float
    """Segmenting what is held out, by the work that a step does on as many pixels."""

    @property
    def total_s(self) -> float:
        """All of it; reading, scoring and the report are not counted."""
        return self.compile_s + self.step_s * self.steps * self.networks + self.predict_s


def describe(chosen: Sequence[Variant]) -> list[str]:
    """A line a variant: its name, how far it is and what differs from the base."""
    width = max(len(variant.name) for variant in chosen)
    far = max(len(variant.state) for variant in chosen)
    return [
        f"{variant.name:{width}}  {variant.state:{far}}  {'; '.join(variant.changes) or 'the base'}"
        for variant in chosen
    ]


def announce(chosen: Sequence[Variant]) -> None:
    """Print the list, and what each unfinished variant will take, from a few steps that are made and timed here."""
    print("\n".join(describe(chosen)))
    left = [variant for variant in chosen if not variant.finished]
    total = 0.0
    for variant in left:
        cost = measure(variant.experiment)
        total += cost.total_s
        print(
            f"{variant.name}: {cost.networks} network{'s' if cost.networks > 1 else ''} x {cost.steps} steps x "
            f"{cost.step_s:.3g} s, {cost.compile_s:.0f} s to compile, {cost.predict_s:.0f} s to predict: "
            f"about {_minutes(cost.total_s)}",
            flush=True,
        )
    kinds = ", ".join(sorted({device.device_kind for device in jax.devices()}))
    print(f"{len(left)} of {len(chosen)} to run, about {_minutes(total)} on one device of this machine ({kinds})")


def measure(experiment: Experiment) -> Cost:
    """Make a few steps on one device, with made-up images, and tell what the whole run will take there."""
    data = experiment.data
    cases, members = run.cases_and_members(experiment)
    start = step.initial_state(experiment)
    make = step.compiled(experiment, sizes.fixed_batch(experiment), start)
    compile_s = _timed(make)
    step_s = min(_timed(make) for _ in range(_STEPS))
    # Of a step's work a third is what prediction does, too; the rest makes the gradients.
    pixel_s = step_s / 3 / (experiment.train.batch_size * data.window[0] * data.window[1])
    views = 1 + experiment.predict.flip
    held_out = [case for member in members for case in member.held_out]
    # A stack for each slice, or for every few where a stack has all of its slices segmented.
    stacks = 1 / max(1, labelled_slices(experiment.model, data.slices) // 2)
    pixels = stacks * views * sum(_voxels(cases[case], experiment) for case in held_out)
    return Cost(compile_s, step_s, len(members), experiment.train.steps, pixels * pixel_s)


def _voxels(case: Case, experiment: Experiment) -> int:
    shape = nifti.read_grid(case.images[0]).shape if case.images else experiment.data.phantom.shape
    return shape[0] * shape[1] * shape[2]


def _timed(make: Callable[[], jax.Array]) -> float:
    began = time.perf_counter()
    jax.block_until_ready(make())
    return time.perf_counter() - began


def _minutes(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
