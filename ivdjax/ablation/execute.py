"""Run what is missing of an ablation, one variant after the other; what was stopped goes on where it was."""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import numpy as np

from ivdjax import run, run_folder
from ivdjax.ablation import figure, results, table
from ivdjax.ablation.plan import Plan, Variant
from ivdjax.ablation.submit import Cluster
from ivdjax.errors import DataError, UsageError
from ivdjax.training import distributed


def execute(plan: Plan, chosen: Sequence[Variant]) -> None:
    """Run what is missing of some variants, then write and print the table of those and of the base.

    Of several processes all run the same variants in the same order; the first does the rest.

    Raises:
        UsageError: what is wrong with a variant, after its name. Nothing is lost by it.
        DataError: likewise.
        Preempted: SIGTERM came; what is done is safe.
    """
    run_variants(plan, chosen)
    distributed.first(lambda: conclude(plan, chosen))


def run_variants(plan: Plan, chosen: Sequence[Variant]) -> None:
    """Run what is missing of these variants, in their order."""
    distributed.first(lambda: prepare(plan, chosen))
    # What the first process finds missing all must run, even if they see files a little later.
    missing = np.array([not variant.finished for variant in chosen], int)
    missing = distributed.add_up(missing if jax.process_index() == 0 else 0 * missing)
    left = [variant for variant, is_missing in zip(chosen, missing, strict=True) if is_missing]
    for number, variant in enumerate(left, start=1):
        if jax.process_index() == 0:
            print(f"\n{plan.name}: {variant.name} ({number} of {len(left)})", flush=True)
        _named(variant, partial(run.run, variant.experiment, shared_phantom(plan, variant)))


def prepare(plan: Plan, chosen: Sequence[Variant]) -> None:
    """Refuse what cannot be run, before anything is, and draw the phantom that the variants share."""
    for variant in dict.fromkeys((*chosen, plan.base_variant)):
        if (variant.folder / "config.json").exists():
            _named(variant, partial(run_folder.refuse_another, variant.folder, variant.experiment))
    for variant in chosen:
        _named(variant, partial(run.check, variant.experiment))
        if variant.folder != variant.experiment.folder and not variant.finished:
            raise UsageError(
                f"{variant.name}: {variant.experiment.folder} holds copies of a run that is not finished "
                f"({variant.state}); let its job end, or submit it again"
            )
    if any(not variant.finished and shared_phantom(plan, variant) is not None for variant in chosen):
        run.draw_phantom(plan.folder / "phantom", plan.base.data.phantom)


def shared_phantom(plan: Plan, variant: Variant) -> Path | None:
    """The phantom that a variant shares with the base; None where it has scans, or a phantom of its own."""
    data = variant.experiment.data
    return plan.folder / "phantom" if data.root is None and data.phantom == plan.base.data.phantom else None


def execute_part(plan: Plan, chosen: Sequence[Variant], part: Cluster) -> None:
    """Run one variant beside others that other machines run at this time; errors are as of `execute`.

    It shares no phantom and no cache with them, which two would then make at once, and writes no table.

    Args:
        plan: the ablation; its folder is on SkyPilot, where a machine has but one run, that of the run.
        chosen: the variants of the whole job.
        part: Slurm: the one with the number of the array's task. SkyPilot: the only one.
    """
    cache = None
    if part == "slurm":
        number = os.environ.get("SLURM_ARRAY_TASK_ID", "")
        if not number.isdecimal() or int(number) >= len(chosen):
            raise UsageError("--part slurm: this is no task of the array that --submit slurm makes; leave it out")
        variant = chosen[int(number)]
    else:
        if len(chosen) != 1:
            raise UsageError("--part sky: name one variant with --only")
        variant = replace(chosen[0], experiment=replace(chosen[0].experiment, run_dir=plan.folder))
        cache = plan.base.data.cache
    alone = replace(variant.experiment, data=replace(variant.experiment.data, cache=cache))
    _named(variant, lambda: run.run(alone))


def conclude(plan: Plan, chosen: Sequence[Variant]) -> None:
    """Write `results.csv`, `table.md` and `figure.png` about what is finished of these variants and the base."""
    done = [v for v in plan.variants if v.finished and (v in chosen or v == plan.base_variant)]
    found = results.collect(plan, done)
    results.write_csv(found, plan.folder / "results.csv")
    text = table.write(found, plan.folder / "table.md")
    figure.write(found, plan.folder / "figure.png")
    print(f"\n{text}\nLook at {plan.folder / 'table.md'}, figure.png and results.csv.")


def _named(variant: Variant, work: Callable[[], None]) -> None:
    try:
        work()
    except (DataError, UsageError) as error:
        raise type(error)(f"{variant.name}: {error}") from error
