"""run(experiment): data -> cache -> train -> predict -> evaluate -> report. A finished step is not done twice.

What is in the run's folder says what is done: a checkpoint of the last step, a mask a held-out case, the report.
"""

import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import numpy as np
from flax import linen as nn

from ivdjax import config, files, models, progress
from ivdjax.config import Data, Experiment
from ivdjax.data import cache, dataset, nifti, phantom, splits
from ivdjax.data.dataset import Case
from ivdjax.errors import DataError, UsageError
from ivdjax.evaluation import evaluate, record, report
from ivdjax.inference import predict, weights
from ivdjax.training import loop, transfer
from ivdjax.training.checkpoint import Checkpoints
from ivdjax.training.state import State

logger = logging.getLogger("ivdjax")

_FREE = ("data.threads ", "data.cache ")


def run(experiment: Experiment) -> None:
    """Do what is not yet done of an experiment, and say where the report is.

    Raises:
        UsageError: the run's folder is of another experiment, or settings do not fit the data.
        DataError: a file cannot be used.
    """
    folder, data = experiment.folder, experiment.data
    _check(experiment)
    start_params = None
    if experiment.init_from is not None:
        source = load(weights.find(experiment.init_from))
        start_params = transfer.adopt(source.state.mean_params, source.experiment, experiment)
    if data.root is not None and not (folder / "config.json").exists():
        _split(data.root, data)  # so that a folder is no run's where there is nothing to run on
    _claim(folder, experiment)
    finished = folder / "report.html"
    if finished.exists():
        print(f"Finished already: look at {finished} (scores in {folder / 'scores.json'}).")
        return
    root = data.root if data.root is not None else _draw_phantom(folder / "phantom", experiment)
    cases, parts = _split(root, data)
    names = [case.name for case in parts.held_out]
    source = "phantoms drawn on the way" if data.fresh.per_step else f"{len(parts.train)} cases"
    if data.root is None:
        print("The digital phantom, for want of a --data.root:", end=" ")
    print(f"{source} to learn from, {len(names)} held out: {', '.join(names)}", flush=True)
    everything = [*parts.train, *parts.held_out]
    made = cache.build(everything, data, data.cache if data.cache is not None else folder / "cache")
    cached = []
    with progress.bar("reading") as advance:
        for array in made:
            cached.append(array)
            advance(len(cached), len(everything))
    loop.train(experiment, cached[: len(parts.train)], cached[len(parts.train) :], folder, start_params)

    trained = load(folder)
    predictions = folder / "predictions"
    with progress.bar("predicting") as advance:
        for done, case in enumerate(parts.held_out, start=1):
            out = predictions / f"{case.name}.nii.gz"
            if not out.exists():
                trained.predict(case, out)
            advance(done, len(names))
    with progress.bar("scoring") as advance:
        summary = evaluate.evaluate(
            predictions,
            root,
            folder,
            cases=names,
            subjects={case.name: case.subject for case in cases},
            label_grid=data.label_grid,
            progress=advance,
        )
    for line in summary.warnings:
        logger.warning(line)
    write_report(folder)
    dice, volume_dice = (summary.estimates[name].mean for name in ("dice", "volume_dice"))
    print(
        f"Discs found {summary.discs_found} of {summary.discs}, mean Dice a disc {dice:.3f}, volume Dice "
        f"{volume_dice:.3f}. Look at {finished}."
    )


@dataclass(frozen=True)
class Trained:
    """A trained network and what it must know of its data."""

    experiment: Experiment
    state: State

    def predict(self, case: Case, out: Path, channels: Sequence[str] | None = None) -> None:
        """Segment a case and write the mask to `out` on the grid of the case's first image.

        channels names the case's images, where they are not all of the network's (see `accept`).

        Raises:
            DataError: an image cannot be read.
            UsageError: the network cannot do with these channels.
        """
        known = self.experiment.data.channels
        columns = self.accept(known if channels is None else channels)
        image_ZxHxWxC, _, _, _ = dataset.load(replace(case, label=None))
        data = self.experiment.data
        normalised_ZxHxWxC = np.zeros((*image_ZxHxWxC.shape[:3], len(known)), np.float32)
        normalised_ZxHxWxC[..., columns] = cache.normalise(image_ZxHxWxC, data.clip_percentiles)
        present_C = None
        if self.experiment.subsets:
            present_C = np.isin(np.arange(len(known)), columns).astype(np.float32)
        chances_ZxHxWxN = predict.probability(
            self.experiment.model,
            self.state.mean_params,
            normalised_ZxHxWxC,
            data.slices,
            self.experiment.predict,
            present_C,
        )
        nifti.write_mask(predict.mask(chances_ZxHxWxN), case.images[0], out)

    def channels_in(self, source: Path) -> tuple[str, ...]:
        """Channels to segment the cases of a folder from: the network's, or those of them that every case has.

        Raises:
            DataError: the folder cannot be listed, or its cases do not have the same channels.
        """
        known = self.experiment.data.channels
        if not self.experiment.subsets:
            return known
        found = dataset.survey(source, known)
        sets = {name: tuple(c for c in known if c in images) for name, images in found.images.items()}
        first = next(iter(sets), None)
        for name, there in sets.items():
            if there != sets[first]:
                raise DataError(
                    f"{source}: case {first} has {', '.join(sets[first])} but case {name} {', '.join(there)}; say "
                    "which to use of all with --channels"
                )
        return sets[first] if first is not None else known

    def accept(self, channels: Sequence[str]) -> list[int]:
        """Places of the named channels among the network's.

        Raises:
            UsageError: a channel the network does not know, or absent channels and a network trained with all.
        """
        known = self.experiment.data.channels
        if not channels or not set(channels) <= set(known) or len(set(channels)) < len(channels):
            raise UsageError(
                f"--channels {' '.join(channels)}: the network knows {', '.join(known)}; name some of these"
            )
        if len(channels) < len(known) and not self.experiment.subsets:
            raise UsageError(
                f"--channels {' '.join(channels)}: this run was trained with all of {', '.join(known)}; use one "
                "trained with --augment.channel-dropout above 0"
            )
        return [known.index(name) for name in channels]


def load(folder: Path, checkpoint: str | None = None) -> Trained:
    """Read a run's experiment and a checkpoint, `last` or `best` or as the experiment says; or weights without a run.

    Raises:
        DataError: the folder is neither that of a run nor of weights, or it has no checkpoint.
    """
    experiment = read_experiment(folder)
    if (folder / weights.FILE).exists():
        params = weights.read(folder / weights.FILE)
        return Trained(experiment, State(np.zeros((), np.int32), params, params, ()))
    if not (folder / "checkpoints").is_dir():
        raise DataError(f"{folder}: has no checkpoints; train the run first")
    checkpoints = Checkpoints(folder / "checkpoints", read_only=True)
    wanted = checkpoint if checkpoint is not None else experiment.predict.checkpoint
    step = checkpoints.best if wanted == "best" else checkpoints.latest
    if step is None:
        raise DataError(f"{folder / 'checkpoints'}: no checkpoint yet; train the run further")
    state = checkpoints.restore(step, jax.jit(lambda: loop.initial_state(experiment))())
    return Trained(experiment, state)


def release(folder: Path, out: Path, checkpoint: str | None = None) -> None:
    """Write a run's weights to a folder of their own, small enough to pass on (see `inference.weights`).

    Raises:
        DataError: as `load`.
    """
    trained = load(folder, checkpoint)
    weights.write(out / weights.FILE, trained.state.mean_params)
    # Where the run's own start lay says nothing elsewhere.
    files.write_json(out / "config.json", config.to_dict(replace(trained.experiment, init_from=None)))


def read_experiment(folder: Path) -> Experiment:
    """Read the experiment of a run's folder from its `config.json`.

    Raises:
        DataError: the file is missing, damaged or of another version.
    """
    path = folder / "config.json"
    fields = files.read_json(path)
    network = fields.get("model")
    network = dict(network) if isinstance(network, dict) else {}
    kind = getattr(models, str(network.pop("network", "")), None)
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise DataError(f"{path}: names no network of ivdjax.models; was it written by another version of ivdjax?")
    fields["model"] = config.from_dict(kind, network, f"{path}: model")
    return config.from_dict(Experiment, fields, str(path))


def _check(experiment: Experiment) -> None:
    """Refuse settings that do not fit each other, before anything is written."""
    data, train, dixon = experiment.data, experiment.train, set(dataset.DIXON)
    if data.slices % 2 == 0:
        raise UsageError(f"--data.slices {data.slices}: choose an odd number, so that a stack has a centre")
    if min(train.steps, train.batch_size, train.log_every, train.checkpoint_every) < 1 or train.validate_every < 0:
        raise UsageError(
            "--train: steps, batch-size, log-every and checkpoint-every are 1 or more, validate-every is 0 or more"
        )
    if data.root is None and not set(data.channels) <= dixon:
        wrong = ", ".join(data.channels)
        raise UsageError(f"--data.root: name the folder with the cases; the phantom has no channel {wrong}")
    if not data.fresh.per_step:
        return
    if not set(data.channels) <= dixon:
        raise UsageError(f"--data.fresh.per-step: phantoms have the channels {', '.join(dataset.DIXON)} only")
    if data.fresh.slab < data.slices or data.fresh.pool < data.fresh.per_step:
        raise UsageError(
            f"--data.fresh: a slab needs {data.slices} slices or more (--data.slices), the pool at least "
            f"{data.fresh.per_step} slabs (--data.fresh.per-step)"
        )


def _claim(folder: Path, experiment: Experiment) -> None:
    """Make the run's folder this experiment's, or refuse it if it is another's."""
    path, wanted = folder / "config.json", config.to_dict(experiment)
    # Where the run lies is not part of what it is: a folder may be moved and then resumed. The scans stay where they
    # are, from wherever the path to them was given.
    wanted["run_dir"] = None
    if experiment.data.root is not None:
        wanted["data"]["root"] = str(experiment.data.root.resolve())
    if not path.exists():
        if folder.is_dir() and any(folder.iterdir()):
            raise UsageError(f"{folder}: is neither empty nor a run's folder; choose another with --run-dir")
        files.write_json(path, wanted)
        return
    # Nor is what changes how fast it goes, but not what comes out.
    found = files.read_json(path)
    changed = [line for line in config.differences(found, wanted) if not line.startswith(_FREE)]
    if changed:
        raise UsageError(
            f"{folder}: holds a run with other settings ({'; '.join(changed)}); choose another folder with --run-dir"
        )


def _draw_phantom(folder: Path, experiment: Experiment) -> Path:
    """Draw the phantom's cases, once; a tree that a killed run left half drawn is drawn again."""
    if not folder.exists():
        size = experiment.data.phantom
        partial = folder.with_name(f".partial-{folder.name}")
        shutil.rmtree(partial, ignore_errors=True)
        with progress.bar("drawing phantoms") as advance:
            phantom.write_tree(
                partial,
                cases=size.cases,
                seed=size.seed,
                shape=size.shape,
                spacing_mm=size.spacing_mm,
                progress=advance,
            )
        partial.rename(folder)
    return folder


def _split(root: Path, data: Data) -> tuple[list[Case], splits.Split]:
    cases = dataset.assign_subjects(dataset.discover(root, data.channels), data.subjects, data.subject_table)
    # Phantoms drawn on the way are learned from; every case there is, then, is held out.
    return cases, splits.Split((), tuple(cases)) if data.fresh.per_step else splits.split(cases, data)


def write_report(folder: Path) -> Path:
    """Write the report of a run whose cases are predicted and scored, from its folder and its images.

    Returns:
        The path of the page.

    Raises:
        DataError: the folder is not that of such a run, or its data is not where it was.
    """
    data = read_experiment(folder).data
    pages = record.load_cases(record.read(folder))
    _, parts = _split(data.root if data.root is not None else folder / "phantom", data)
    names = ", ".join(case.name for case in parts.held_out)
    scans = {
        "learned from": f"{len(parts.train)} cases of {len({case.subject for case in parts.train})} subjects"
        if not data.fresh.per_step
        else "phantoms drawn on the way",
        "channel in the pictures": data.channels[-1],
    }
    caption = f"Held-out cases {names} of {'the digital phantom' if data.root is None else data.root.resolve().name}."
    machine = {"devices": ", ".join(sorted({device.device_kind for device in jax.devices()}))}
    return report.write_report(folder, pages, caption=caption, data=scans, machine=machine)
