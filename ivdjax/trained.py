"""What a finished training is good for: it is read from its folder, segments cases, and is passed on."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from flax.errors import FlaxError

from ivdjax import config, files, limits, models
from ivdjax.config import Experiment
from ivdjax.data import cache, dataset, masks, nifti
from ivdjax.data.dataset import Case
from ivdjax.errors import DataError, UsageError
from ivdjax.evaluation import record
from ivdjax.inference import confidence, postprocess, predict, weights
from ivdjax.inference.confidence import DiscConfidence
from ivdjax.inference.uncertainty import Consensus, consensus
from ivdjax.training import loop
from ivdjax.training.checkpoint import Checkpoints
from ivdjax.training.state import Params, State

# Of a network's widths, depths and numbers of classes; what is read back is built before it is used.
_LARGEST = 4096

Spacing = tuple[float, float, float]

# Beside released weights: the smallest and the largest voxel size that they learnt from.
LEARNT = "learnt_from.json"

# A voxel edge beyond that by this factor is out of what training samples, which are zoomed, show.
FAR = 1.5


@dataclass(frozen=True)
class Segmentation:
    """What trained networks say of a case, on the canonical axes of its first image."""

    case: Case
    """The case."""
    consensus: Consensus
    """What they say together."""
    raw_ZxHxW: np.ndarray
    """The most probable class of each voxel."""
    mask_ZxHxW: np.ndarray
    """The same after what `Predict.postprocess` takes out."""
    spacing_mm: tuple[float, float, float]
    """Voxel size along Z, H, W."""

    def confidence(self) -> list[DiscConfidence]:
        """How sure the networks are of each disc of the mask, the lowest first."""
        return confidence.discs(self.mask_ZxHxW, self.consensus.foreground_ZxHxW, self.spacing_mm)[1]

    def write(self, out: Path) -> None:
        """Write the mask on the image's own grid, after maps of how sure it is, if there are any, to `maps` beside it.

        Maps of an earlier mask of the case are removed, since they say nothing of this one.

        Raises:
            DataError: a file cannot be written.
        """
        image, found = self.case.images[0], self.consensus
        measured = found.entropy_ZxHxW is not None
        shown = (found.foreground_ZxHxW, found.entropy_ZxHxW, found.disagreement_ZxHxW)
        for kind, map_ZxHxW in zip(masks.MAPS, shown, strict=True):
            path = out.parent / "maps" / f"{self.case.name}_{kind}.nii.gz"
            if measured and map_ZxHxW is not None:
                nifti.write_map(map_ZxHxW, image, path, f"disc {kind}")
            else:
                files.remove(path)
        nifti.write_mask(self.mask_ZxHxW, image, out)


@dataclass(frozen=True)
class Trained:
    """Trained networks, one or several that answer together, and what they must know of their data."""

    experiment: Experiment
    params: tuple[Params, ...]
    learnt_mm: tuple[Spacing, Spacing] | None = None
    """Smallest and largest voxel size along Z, H, W that they learnt from; None where nobody wrote it down."""
    learnt_from: frozenset[str] = frozenset()
    """Digests (`cache.digest_of`) of the cases that one of them learnt from, as far as they are known."""

    def predict(
        self, case: Case, out: Path, channels: Sequence[str] | None = None, members: Sequence[int] | None = None
    ) -> Segmentation:
        """Segment a case and write the mask to `out` on the grid of the case's first image (see `segment`)."""
        found = self.segment(case, channels, members)
        found.write(out)
        return found

    def segment(
        self, case: Case, channels: Sequence[str] | None = None, members: Sequence[int] | None = None
    ) -> Segmentation:
        """Segment a case.

        Args:
            case: its label, if it has one, is not read.
            channels: names of the case's images, where they are not all of the network's (see `accept`).
            members: numbers of the networks to ask; all by default. Their probabilities are averaged.

        Raises:
            DataError: an image cannot be read.
            UsageError: the network cannot do with these channels.
        """
        known = self.experiment.data.channels
        columns = self.accept(known if channels is None else channels)
        image_ZxHxWxC, grid = dataset.load_images(case)
        data, rules = self.experiment.data, self.experiment.predict
        normalised_ZxHxWxC = np.zeros((*image_ZxHxWxC.shape[:3], len(known)), np.float32)
        normalised_ZxHxWxC[..., columns] = cache.normalise(image_ZxHxWxC, data.clip_percentiles)
        present_C = None
        if self.experiment.subsets:
            present_C = np.isin(np.arange(len(known)), columns).astype(np.float32)
        views = (
            view
            for member in (range(len(self.params)) if members is None else members)
            for view in predict.views(
                self.experiment.model, self.params[member], normalised_ZxHxWxC, data.slices, rules, present_C
            )
        )
        found = consensus(views, measured=rules.maps)
        raw_ZxHxW = predict.mask(found.probability_ZxHxWxN)
        mask_ZxHxW = postprocess.apply(raw_ZxHxW, grid.spacing_mm, rules.postprocess)
        return Segmentation(case, found, raw_ZxHxW, mask_ZxHxW, grid.spacing_mm)

    def told(self, **settings: Any) -> "Trained":
        """The same with other settings of `Predict` and its `Postprocess`, by name; those that are None stay.

        Raises:
            UsageError: a setting is out of range.
        """
        given = {name: value for name, value in settings.items() if value is not None}
        rules = {name: given.pop(name) for name in ("specks_mm3", "column", "lowest") if name in given}
        old = self.experiment.predict
        new = replace(old, **given, postprocess=replace(old.postprocess, **rules))
        experiment = replace(self.experiment, predict=new)
        limits.check(experiment)
        return replace(self, experiment=experiment)

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
        first, common = next(iter(sets.items()), ("", known))
        for name, there in sets.items():
            if there != common:
                raise DataError(
                    f"{source}: case {first} has {', '.join(common)} but case {name} {', '.join(there)}; say "
                    "which to use of all with --channels"
                )
        return common

    def cases_in(self, source: Path, channels: Sequence[str]) -> list[Case]:
        """Cases of a folder to segment from these channels.

        Raises:
            DataError: as `dataset.discover`; or the folder has other channels than the networks know.
        """
        try:
            return dataset.discover(source, channels)
        except DataError as error:
            found, known = dataset.survey(source, channels), self.experiment.data.channels
            seen = [] if found.images else dataset.channels_seen(found)
            if not seen or set(seen) & set(known):
                raise
            raise DataError(
                f"{source}: has the channels {', '.join(seen)}, and the network was trained on {', '.join(known)}; "
                "name a run or weights that know one of these"
            ) from error

    def learnt(self, case: Case) -> bool:
        """Whether a case with its label, as it is now, is known to be one that a network learnt from."""
        if not self.learnt_from or case.label is None:
            return False
        try:
            return cache.digest_of(case) in self.learnt_from
        except DataError:
            return False  # a label that cannot be read is no matter here

    def unlike(self, spacing_mm: Spacing) -> str:
        """What to say of voxels far from those that the networks learnt from; empty where they are not."""
        if self.learnt_mm is None:
            return ""
        far = any(
            not low / FAR <= edge <= high * FAR for edge, low, high in zip(spacing_mm, *self.learnt_mm, strict=True)
        )
        if not far:
            return ""
        low, high = map(_edges, self.learnt_mm)
        return (
            f"voxels of {_edges(spacing_mm)} mm, where the network learnt from {low}{f' to {high}' * (low != high)} mm "
            "(Z x H x W); look at the mask before you trust it"
        )

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

    def only(self) -> Params:
        """Weights of the one network.

        Raises:
            UsageError: there are several.
        """
        if len(self.params) > 1:
            raise UsageError(
                f"the run has {len(self.params)} networks (--folds all, --seeds); name one that was trained alone"
            )
        return self.params[0]


def load(folder: Path, checkpoint: str | None = None) -> Trained:
    """Read a run's experiment and a checkpoint, `last` or `best` or as the experiment says; or weights without a run.

    Raises:
        DataError: the folder is neither that of a run nor of weights, or it has no checkpoint.
    """
    if not folder.is_dir():
        if folder.exists():
            what = "is a file"
        else:
            packaged = difflib.get_close_matches(str(folder), weights.PACKAGED, 1)
            what = "no such folder" + (f"; did you mean --weights {packaged[0]}?" if packaged else files.near(folder))
        raise DataError(f"{folder}: {what}; pass the folder of a run, or of released weights (--weights)")
    experiment = read_experiment(folder)
    if (folder / weights.FILE).exists():
        params = weights.read(folder / weights.FILE)
        _check_fit(params, experiment, folder / weights.FILE)
        return Trained(experiment, (params,), _learnt_mm(folder, experiment))
    if not (folder / "checkpoints").is_dir():
        raise DataError(f"{folder}: has neither checkpoints nor {weights.FILE}; train the run, or restore the weights")
    checkpoints = Checkpoints(folder / "checkpoints", read_only=True)
    wanted = checkpoint if checkpoint is not None else experiment.predict.checkpoint
    step = checkpoints.best if wanted == "best" else checkpoints.latest
    if step is None:
        raise DataError(f"{folder / 'checkpoints'}: no checkpoint yet; train the run further")
    params = tuple(state.mean_params for state in read_states(experiment, checkpoints, step))
    _check_fit(params[0], experiment, folder / "checkpoints" / str(step))
    return Trained(experiment, params, _learnt_mm(folder, experiment), _learnt_from(folder))


def _learnt_from(folder: Path) -> frozenset[str]:
    """Digests of the cases that a run's networks learnt from; none where the run does not tell."""
    splits, told = folder / "splits.json", folder / record.PROVENANCE
    if not (splits.exists() and told.exists()):
        return frozenset()
    provenance, members = files.read_json(told), files.read_json_list(splits)
    try:
        return frozenset(provenance["data"]["cases"][name] for member in members for name in member["learn"])
    except record.MALFORMED as error:
        raise DataError(f"{splits}: does not fit {told.name} beside it; restore both from one place") from error


def _learnt_mm(folder: Path, experiment: Experiment) -> tuple[Spacing, Spacing] | None:
    """Smallest and largest voxel size that a run or released weights learnt from, if that is known."""
    fresh = experiment.data.fresh
    if fresh.per_step:
        (thin, thick), (fine, coarse) = fresh.thickness_mm, fresh.spacing_mm
        return (thin, fine, fine), (thick, coarse, coarse)
    for path in (folder / LEARNT, folder / record.PROVENANCE):
        if path.exists():
            said = files.read_json(path).get("spacing_mm")
            return config.from_dict(tuple[Spacing, Spacing], said, f"{path}: spacing_mm")
    return None


def _edges(spacing_mm: Spacing) -> str:
    return " x ".join(f"{edge:.2f}" for edge in spacing_mm)


def _check_fit(params: Params, experiment: Experiment, path: Path) -> None:
    """Refuse weights that are not of the experiment's network."""
    try:
        wanted_F = jax.eval_shape(lambda: loop.initial_state(experiment, [0])).params
    except (ValueError, TypeError, LookupError, ArithmeticError, FlaxError) as error:
        raise DataError(f"{path.with_name('config.json')}: its model cannot be built ({error}); restore it") from error
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params)):
        raise DataError(f"{path}: holds weights that are not finite; train again, with a lower learning rate")
    wanted = {jax.tree_util.keystr(name): leaf.shape[1:] for name, leaf in jax.tree.leaves_with_path(wanted_F)}
    found = {jax.tree_util.keystr(name): leaf.shape for name, leaf in jax.tree.leaves_with_path(params)}
    if odd := [name for name in {**wanted, **found} if wanted.get(name) != found.get(name)]:
        raise DataError(
            f"{path}: is not of the network in config.json ({odd[0]}: {found.get(odd[0], 'missing')} "
            f"against {wanted.get(odd[0], 'none')}); restore both from one place"
        )


def read_states(experiment: Experiment, checkpoints: Checkpoints, step: int) -> list[State]:
    """States of a run's networks after a step, as NumPy arrays.

    Raises:
        DataError: the checkpoint is not of this experiment, or cannot be read.
    """
    shapes_F = jax.eval_shape(lambda: loop.initial_state(experiment, [0] * checkpoints.networks(step)))
    blank = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), shapes_F)
    return loop.split_members(checkpoints.restore(step, blank))


def release(folder: Path, out: Path, checkpoint: str | None = None) -> None:
    """Write a run's weights to a folder of their own, small enough to pass on (see `inference.weights`).

    Of the run's settings those are left out that say where things lay, and which cases were held out.

    Raises:
        DataError: as `load`; or the folder cannot be written.
        UsageError: the run has several networks, or `out` is no new folder.
    """
    trained = load(folder, checkpoint)
    params, data = trained.only(), trained.experiment.data
    data = replace(data, root=None, cache=None, subject_table=None, fold_table=None, hold_out=())
    experiment = replace(trained.experiment, run_dir=None, init_from=None, data=data)
    with files.making(out) as partial:
        weights.write(partial / weights.FILE, params)
        files.write_json(partial / "config.json", config.to_dict(experiment))
        if trained.learnt_mm is not None:
            files.write_json(partial / LEARNT, {"spacing_mm": trained.learnt_mm})


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
    numbers = {name: value if isinstance(value, list) else [value] for name, value in network.items()}
    if large := [name for name, values in numbers.items() if any(type(v) is int and v > _LARGEST for v in values)]:
        raise DataError(f"{path}: model: {large[0]} is over {_LARGEST}; restore it")
    fields["model"] = config.from_dict(kind, network, f"{path}: model")
    experiment = config.from_dict(Experiment, fields, str(path))
    try:
        limits.check(experiment)
    except UsageError as error:
        raise DataError(f"{path}: holds a setting that cannot be ({error}); restore it") from error
    return experiment
