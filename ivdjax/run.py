"""run(experiment): data -> cache -> train -> predict -> evaluate -> report. A finished step is not done twice.

What is in the run's folder says what is done: a checkpoint of the last step, a mask a held-out case, the report.
"""

import contextlib
import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import jax

from ivdjax import config, files, limits, lock, progress, provenance, run_folder, trained
from ivdjax.config import Experiment, Phantom
from ivdjax.data import cache, dataset, grouping, nifti, phantom, splits
from ivdjax.data.cache import CachedCase
from ivdjax.data.dataset import Case
from ivdjax.data.splits import Member
from ivdjax.errors import DataError, UsageError, out_of_memory
from ivdjax.evaluation import calibration, evaluate, record, reliability, report
from ivdjax.inference import weights
from ivdjax.training import distributed, loop, trackers, transfer
from ivdjax.training.state import Params

logger = logging.getLogger("ivdjax")


def run(experiment: Experiment, drawn: Path | None = None) -> None:
    """Do what is not yet done of an experiment, and say where the report is.

    Of several processes each trains and predicts its share; the first does the rest.

    Args:
        experiment: what to do.
        drawn: the experiment's phantom, drawn before; by default it is drawn into the run's folder.

    Raises:
        UsageError: the run's folder is of another experiment, another command works in it, or settings do not fit
            the data.
        DataError: a file cannot be read or written.
        Preempted: SIGTERM came; what is done is safe.
    """
    check(experiment)
    try:
        with contextlib.ExitStack() as until_done:
            _run(experiment, drawn, until_done)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise DataError(
            f"{error.filename or experiment.folder}: {error.strerror or error}; see to the disk, its room and its "
            "permissions, and give the same command again"
        ) from error


def _run(experiment: Experiment, drawn: Path | None, until_done: contextlib.ExitStack) -> None:
    folder, data = experiment.folder, experiment.data
    start_params = None
    if experiment.init_from is not None:
        source = trained.load(weights.find(experiment.init_from))
        start_params = transfer.adopt(source.only(), source.experiment, experiment)
    if data.root is not None and not (folder / "config.json").exists():
        _members(data.root, experiment)  # so that a folder is no run's where there is nothing to run on
    distributed.first(lambda: run_folder.refuse_strange(folder, experiment))
    finished = folder / "report.html"
    if finished.exists():
        _say(f"Finished already: look at {finished} (scores in {folder / 'scores.json'}).")
        return
    distributed.first(lambda: until_done.enter_context(run_folder.at_work(folder)))
    claimed = distributed.first(lambda: run_folder.claim(folder, experiment))
    try:
        _finish(experiment, start_params, drawn)
    except (DataError, UsageError, MemoryError, RuntimeError) as error:
        # Where nothing was learnt the folder is free again, so that the settings may change with what is mended. After
        # training began threads may still save to it, unless it was too large to begin.
        begun = (folder / record.PROVENANCE).exists()
        if claimed and (not begun or (out_of_memory(error) and not any(folder.glob("checkpoints/[0-9]*")))):
            run_folder.unclaim(folder)
        raise


def _finish(experiment: Experiment, start_params: Params | None, drawn: Path | None) -> None:
    """Do what is not yet done of an experiment whose folder is claimed."""
    folder, data = experiment.folder, experiment.data
    root = data.root if data.root is not None else folder / "phantom"
    if data.root is None:
        distributed.first(lambda: _link(root, drawn) if drawn is not None else draw_phantom(root, data.phantom))
    cases, members = _members(root, experiment)
    distributed.first(lambda: run_folder.keep_splits(folder, cases, members))
    held_out = sorted({case for member in members for case in member.held_out})
    names = [cases[case].name for case in held_out]
    _say(_introduction(experiment, members, names))
    # The first process fills the cache, from which the others then read.
    first = distributed.first(lambda: _read(cases, experiment))
    read = distributed.together(lambda: _read(cases, experiment) if first is None else first)
    used = [read[case] for case in sorted({case for member in members for case in (*member.learn, *member.held_out)})]

    def keep_provenance(step: int) -> None:
        if step:
            _say(f"Going on after step {step} of {experiment.train.steps}.")
        distributed.first(lambda: provenance.keep(folder, experiment, used, step))

    with distributed.first(lambda: _tracking(experiment)) or trackers.NO_TRACKING as tracking:
        networks = trained.Trained(
            experiment, tuple(loop.train(experiment, members, read, folder, start_params, tracking, keep_provenance))
        )
        distributed.together(lambda: _predict(networks, members, cases, held_out))
        distributed.first(lambda: _score(experiment, root, cases, names, tracking))


def _predict(networks: trained.Trained, members: Sequence[Member], cases: Sequence[Case], held_out: list[int]) -> None:
    """Segment the held-out cases, each by the networks that have not seen it; each process does its share."""
    folder = networks.experiment.folder
    with progress.bar("predicting") as advance:
        own = held_out[jax.process_index() :: jax.process_count()]
        for done, case in enumerate(own, start=1):
            out = folder / "predictions" / f"{cases[case].name}.nii.gz"
            if not (out.exists() and calibration.case_path(folder, cases[case].name).exists()):
                asked = [i for i, member in enumerate(members) if case in member.held_out]
                found = networks.segment(cases[case], members=asked)
                _count(found, networks.experiment)
                found.write(out)
            advance(done, len(own))


def _count(found: trained.Segmentation, experiment: Experiment) -> None:
    """Keep what the scores need of a case beside its mask: counts of its probabilities, and its mask as it was."""
    folder, case, image = experiment.folder, found.case, found.case.images[0]
    if experiment.predict.postprocess.on:
        nifti.write_mask(found.raw_ZxHxW, image, folder / record.RAW / "predictions" / f"{case.name}.nii.gz")
    label_ZxHxW = dataset.load_label(dataset.label_path(case), nifti.read_grid(image), experiment.data.label_grid)
    counts = calibration.count(
        found.consensus.foreground_ZxHxW, found.raw_ZxHxW, found.mask_ZxHxW, label_ZxHxW, found.spacing_mm
    )
    calibration.write_case(calibration.case_path(folder, case.name), counts)


def _read(cases: Sequence[Case], experiment: Experiment) -> list[CachedCase]:
    """Arrays of the cases, from the cache."""
    folder = experiment.data.cache if experiment.data.cache is not None else experiment.folder / "cache"
    read = []
    with progress.bar("reading") as advance:
        for array in cache.build(cases, experiment.data, folder):
            read.append(array)
            advance(len(read), len(cases))
    return read


def _score(
    experiment: Experiment, root: Path, cases: Sequence[Case], names: Sequence[str], tracking: trackers.Tracking
) -> None:
    """Score the predictions of the named cases, write the report and say what came out."""
    folder, subjects = experiment.folder, {case.name: case.subject for case in cases}
    # With rules that take out of the masks, the masks without them are scored first.
    for home in (folder / record.RAW, folder) if experiment.predict.postprocess.on else (folder,):
        with progress.bar("scoring") as advance:
            summary = evaluate.evaluate(
                home / "predictions",
                root,
                home,
                cases=names,
                subjects=subjects,
                label_grid=experiment.data.label_grid,
                progress=advance,
            )
    reliability.write(folder, summary.cases, subjects)
    for line in summary.warnings:
        logger.warning(line)
    tracking.scores(_to_track(summary))
    finished = write_report(folder)
    dice, volume_dice = (summary.estimates[name].mean for name in ("dice", "volume_dice"))
    print(
        f"Discs found {summary.discs_found} of {summary.discs}, mean Dice a disc {dice:.3f}, volume Dice "
        f"{volume_dice:.3f}. Look at {finished}."
    )


def _tracking(experiment: Experiment) -> trackers.Tracking:
    return trackers.start(experiment.train.tracker, experiment.folder, experiment.name, config.to_dict(experiment))


def _to_track(summary: evaluate.Summary) -> dict[str, float]:
    """Scores by the names that a tracker shows them under."""
    values: dict[str, float | None] = {
        "discs": summary.discs,
        "discs_found": summary.discs_found,
        "false_discs": summary.false_discs,
    }
    for name, estimate in summary.estimates.items():
        values |= {name: estimate.mean, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
    return {f"scores/{name}": float(value) for name, value in values.items() if value is not None}


def _say(line: str) -> None:
    if jax.process_index() == 0:
        print(line, flush=True)


def _introduction(experiment: Experiment, members: Sequence[Member], names: Sequence[str]) -> str:
    root, line = experiment.data.root, ""
    if root is None:
        line = "No --data.root, so this is the digital phantom: "
    elif dataset.is_phantom(root):
        line = "Digital phantoms: "
    if experiment.data.fresh.per_step:
        source = "phantoms drawn on the way"
    else:
        source = " or ".join(dict.fromkeys(str(len(member.learn)) for member in members)) + " cases"
    networks = f"{len(members)} networks, each with " if len(members) > 1 else ""
    return f"{line}{networks}{source} to learn from, {len(names)} held out: {', '.join(names)}"


def cases_and_members(experiment: Experiment) -> tuple[list[Case], list[Member]]:
    """Cases of an experiment, and the networks to train with them; those of a phantom need not be drawn yet."""
    if experiment.data.root is not None:
        return _members(experiment.data.root, experiment)
    cases = [Case(f"{number:02d}", (), None, "") for number in range(1, experiment.data.phantom.cases + 1)]
    return _with_members(cases, experiment)


def _members(root: Path, experiment: Experiment) -> tuple[list[Case], list[Member]]:
    return _with_members(dataset.discover(root, experiment.data.channels), experiment)


def _with_members(cases: Sequence[Case], experiment: Experiment) -> tuple[list[Case], list[Member]]:
    data = experiment.data
    cases = grouping.assign_subjects(cases, data.subjects, data.subject_table)
    seeds = range(experiment.seed, experiment.seed + experiment.seeds)
    return cases, splits.members(cases, data, experiment.folds == "all", seeds)


def check(experiment: Experiment) -> None:
    """Refuse settings that do not fit each other, before anything is written."""
    data, train, dixon = experiment.data, experiment.train, set(dataset.DIXON)
    limits.check(experiment)
    if data.root is None and not set(data.channels) <= dixon:
        wrong = ", ".join(data.channels)
        raise UsageError(f"--data.root: name the folder with the cases; the phantom has no channel {wrong}")
    trackers.check(train.tracker)
    if not data.fresh.per_step:
        return
    if experiment.folds == "all":
        raise UsageError("--folds all: phantoms that are drawn while training have no folds; leave it out")
    if not set(data.channels) <= dixon:
        raise UsageError(f"--data.fresh.per-step: phantoms have the channels {', '.join(dataset.DIXON)} only")
    if data.fresh.slab < data.slices or data.fresh.pool < data.fresh.per_step:
        raise UsageError(
            f"--data.fresh: a slab needs {data.slices} slices or more (--data.slices), the pool at least "
            f"{data.fresh.per_step} slabs (--data.fresh.per-step)"
        )


def draw_phantom(folder: Path, size: Phantom) -> None:
    """Draw the phantom's cases, once; what a killed run left half drawn is drawn again.

    Raises:
        UsageError: the folder holds another phantom.
    """
    if dataset.is_phantom(folder):
        found = files.read_json(folder / dataset.PHANTOM_MARK)
        if changed := config.differences(found, config.to_dict(size)):
            raise UsageError(f"{folder}: holds another phantom ({'; '.join(changed)}); remove it to draw it again")
    if folder.exists():
        return
    # Another may be drawing it, as where two ablations share a folder.
    with lock.held(folder.with_name(f".{folder.name}.lock"), f"{folder}: is being drawn", wait=True):
        if folder.exists():
            return
        for half_drawn in folder.parent.glob(f".partial-{folder.name}-*"):  # by a run that was killed
            shutil.rmtree(half_drawn, ignore_errors=True)
        with progress.bar("drawing phantoms") as advance:
            phantom.write_tree(
                folder,
                cases=size.cases,
                seed=size.seed,
                shape=size.shape,
                spacing_mm=size.spacing_mm,
                progress=advance,
            )


def _link(link: Path, folder: Path) -> None:
    if not link.exists():
        link.symlink_to(os.path.relpath(folder, link.parent), target_is_directory=True)


def write_report(folder: Path, out: Path | None = None) -> Path:
    """Write the report of a run whose cases are predicted and scored, from its folder and its images.

    Args:
        folder: of the run.
        out: file to make or replace; None writes `report.html` into the folder.

    Returns:
        The path of the page.

    Raises:
        DataError: the folder is not that of such a run, or its data is not where it was.
    """
    finished = record.read(folder)
    experiment = trained.read_experiment(folder)
    data = experiment.data
    pages = record.load_cases(finished)
    cases, members = _members(data.root if data.root is not None else folder / "phantom", experiment)
    run_folder.keep_splits(folder, cases, members)
    held_out = sorted({case for member in members for case in member.held_out})
    names = ", ".join(cases[case].name for case in held_out)
    learnt = " or ".join(
        dict.fromkeys(
            f"{len(member.learn)} cases of {len({cases[case].subject for case in member.learn})} subjects"
            for member in members
        )
    )
    scans = {"learned from": "phantoms drawn on the way" if data.fresh.per_step else learnt}
    if len(members) > 1:
        scans["networks"] = f"{len(members)}; a case is segmented by those that have not seen it (splits.json)"
    scans["channel in the pictures"] = data.channels[-1]
    source = "the digital phantom"
    if data.root is not None and not dataset.is_phantom(data.root):
        source = data.root.resolve().name
    return report.write_report(folder, pages, out=out, caption=f"Held-out cases {names} of {source}.", data=scans)
