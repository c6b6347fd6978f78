"""run(experiment): data -> cache -> train -> predict -> evaluate -> report. A finished step is not done twice.

What is in the run's folder says what is done: a checkpoint of the last step, a mask a held-out case, the report.
"""

import logging
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import jax
from flax import linen as nn

from ivdjax import config, files, models, progress
from ivdjax.config import Data, Experiment
from ivdjax.data import cache, dataset, nifti, phantom, splits
from ivdjax.data.dataset import Case
from ivdjax.errors import DataError, UsageError
from ivdjax.evaluation import evaluate, record, report
from ivdjax.inference import predict
from ivdjax.training import loop
from ivdjax.training.checkpoint import Checkpoints
from ivdjax.training.state import State

logger = logging.getLogger("ivdjax")


def run(experiment: Experiment) -> None:
    """Do what is not yet done of an experiment, and say where the report is.

    Raises:
        UsageError: the run's folder is of another experiment, or settings do not fit the data.
        DataError: a file cannot be used.
    """
    folder, data = experiment.folder, experiment.data
    if data.root is None and not set(data.channels) <= set(dataset.DIXON):
        wrong = ", ".join(data.channels)
        raise UsageError(f"--data.root: name the folder with the cases; the phantom has no channel {wrong}")
    _claim(folder, experiment)
    finished = folder / "report.html"
    if finished.exists():
        print(f"Finished already: look at {finished} (scores in {folder / 'scores.json'}).")
        return
    root = data.root if data.root is not None else _draw_phantom(folder / "phantom", experiment)
    cases, parts = _split(root, data)
    names = [case.name for case in parts.held_out]
    print(f"{len(parts.train)} cases to learn from, {len(names)} held out: {', '.join(names)}", flush=True)
    everything = [*parts.train, *parts.held_out]
    made = cache.build(everything, data, data.cache if data.cache is not None else folder / "cache")
    cached = []
    with progress.bar("reading") as advance:
        for array in made:
            cached.append(array)
            advance(len(cached), len(everything))
    loop.train(experiment, cached[: len(parts.train)], cached[len(parts.train) :], folder)

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

    def predict(self, case: Case, out: Path) -> None:
        """Segment a case and write the mask to `out` on the grid of the case's first image.

        Raises:
            DataError: an image cannot be read.
        """
        image_ZxHxWxC, _, _, _ = dataset.load(replace(case, label=None))
        data = self.experiment.data
        normalised_ZxHxWxC = cache.normalise(image_ZxHxWxC, data.clip_percentiles)
        chances_ZxHxWxN = predict.probability(
            self.experiment.model, self.state.mean_params, normalised_ZxHxWxC, data.slices, self.experiment.predict
        )
        nifti.write_mask(predict.mask(chances_ZxHxWxN), case.images[0], out)


def load(folder: Path, checkpoint: str | None = None) -> Trained:
    """Read a run's experiment and a checkpoint, `last` or `best` or as the experiment says.

    Raises:
        DataError: the folder is not that of a run, or it has no checkpoint.
    """
    experiment = read_experiment(folder)
    if not (folder / "checkpoints").is_dir():
        raise DataError(f"{folder}: has no checkpoints; train the run first")
    checkpoints = Checkpoints(folder / "checkpoints", read_only=True)
    wanted = checkpoint if checkpoint is not None else experiment.predict.checkpoint
    step = checkpoints.best if wanted == "best" else checkpoints.latest
    if step is None:
        raise DataError(f"{folder / 'checkpoints'}: no checkpoint yet; train the run further")
    state = checkpoints.restore(step, jax.jit(lambda: loop.initial_state(experiment))())
    return Trained(experiment, state)


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


def _claim(folder: Path, experiment: Experiment) -> None:
    """Make the run's folder this experiment's, or refuse it if it is another's."""
    path, wanted = folder / "config.json", config.to_dict(experiment)
    # Where the run lies is not part of what it is: a folder may be moved and then resumed.
    wanted["run_dir"] = None
    if not path.exists():
        if folder.is_dir() and any(folder.iterdir()):
            raise UsageError(f"{folder}: is neither empty nor a run's folder; choose another with --run-dir")
        files.write_json(path, wanted)
        return
    changed = config.differences(files.read_json(path), wanted)
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
    return cases, splits.split(cases, data)


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
        "learned from": f"{len(parts.train)} cases of {len({case.subject for case in parts.train})} subjects",
        "channel in the pictures": data.channels[-1],
    }
    caption = f"Held-out cases {names} of {'the digital phantom' if data.root is None else data.root.resolve().name}."
    machine = {"devices": ", ".join(sorted({device.device_kind for device in jax.devices()}))}
    return report.write_report(folder, pages, caption=caption, data=scans, machine=machine)
