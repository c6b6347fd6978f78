"""Weights & Biases and MLflow beside TensorBoard: imported where they are asked for, and only there.

A run's folder keeps the id of its run there (`tracker.json`), so a run that goes on does so there too. Where a tracker
keeps things is said by its own environment variables (WANDB_MODE, WANDB_PROJECT, MLFLOW_TRACKING_URI,
MLFLOW_EXPERIMENT_NAME ...).
"""

import importlib
import logging
import os
import secrets
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from ivdjax import files
from ivdjax.errors import UsageError

logger = logging.getLogger("ivdjax")

_PROJECT = "ivdjax"  # or experiment, as MLflow says, unless the environment names another
_MLFLOW_BATCH = 100  # parameters that MLflow takes at once


class Tracker(Protocol):
    """A run at a tracker; any method may raise anything that the tracker's package does."""

    id: str
    """By which the run is found there again."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record what was measured after a step."""

    def scores(self, values: Mapping[str, float]) -> None:
        """Record what came out in the end."""

    def close(self, finished: bool) -> None:
        """Send what is not sent yet; a run that is not finished may go on later."""


class WandbTracker:
    """A run at Weights & Biases; WANDB_MODE=offline keeps it in the run's folder."""

    def __init__(self, folder: Path, name: str, settings: Mapping[str, Any], known: str | None) -> None:
        """Start a run, or go on with the one of the id `known`."""
        import wandb

        self.id = known or secrets.token_hex(8)
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", _PROJECT),
            name=name,
            dir=str(folder),
            id=self.id,
            resume="allow",
            config=dict(settings),
            allow_val_change=True,
            # What is printed stays the terminal's.
            settings=wandb.Settings(console="off"),
        )
        # An axis of our own: steps that a killed run makes again are not refused as theirs would be.
        self._run.define_metric("*", step_metric="step")

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """As `Tracker` says."""
        self._run.log({"step": step, **metrics})

    def scores(self, values: Mapping[str, float]) -> None:
        """As `Tracker` says."""
        self._run.summary.update(dict(values))

    def close(self, finished: bool) -> None:
        """As `Tracker` says."""
        self._run.finish(exit_code=0 if finished else 1)


class MlflowTracker:
    """A run at MLflow; MLFLOW_TRACKING_URI says where."""

    def __init__(self, folder: Path, name: str, settings: Mapping[str, Any], known: str | None) -> None:
        """Start a run, or go on with the one of the id `known`."""
        import mlflow
        from mlflow import entities

        self._entities, self._client = entities, mlflow.MlflowClient()
        if known is not None:
            self.id = known
            self._client.update_run(known, status="RUNNING")
            return
        project = os.environ.get("MLFLOW_EXPERIMENT_NAME", _PROJECT)
        found = self._client.get_experiment_by_name(project)
        where = self._client.create_experiment(project) if found is None else found.experiment_id
        self.id = self._client.create_run(where, run_name=name).info.run_id
        params = [entities.Param(key, value) for key, value in _flat(settings)]
        for start in range(0, len(params), _MLFLOW_BATCH):
            self._client.log_batch(self.id, params=params[start : start + _MLFLOW_BATCH])

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """As `Tracker` says."""
        now_ms = time.time_ns() // 1_000_000
        batch = [self._entities.Metric(name, value, now_ms, step) for name, value in metrics.items()]
        self._client.log_batch(self.id, metrics=batch)

    def scores(self, values: Mapping[str, float]) -> None:
        """As `Tracker` says."""
        self.log(0, values)

    def close(self, finished: bool) -> None:
        """As `Tracker` says."""
        self._client.set_terminated(self.id, "FINISHED" if finished else "KILLED")


class Tracking:
    """What a run tells its tracker, if it has one. A tracker that fails is given up with a warning; the run goes on."""

    def __init__(self, tracker: Tracker | None = None) -> None:
        """Tell `tracker`, or nobody."""
        self._tracker = tracker

    def __enter__(self) -> Self:
        """Nothing is to be done."""
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close the run there, as finished where nothing was raised."""
        self._tell(lambda tracker: tracker.close(error is None))

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record what was measured after a step."""
        self._tell(lambda tracker: tracker.log(step, metrics))

    def scores(self, values: Mapping[str, float]) -> None:
        """Record what came out in the end."""
        self._tell(lambda tracker: tracker.scores(values))

    def _tell(self, what: Callable[[Tracker], None]) -> None:
        if self._tracker is None:
            return
        try:
            what(self._tracker)
        except Exception as error:  # whatever it was, it is no reason to lose a training
            logger.warning("the tracker failed (%s); going on without it, log.jsonl has all", _line(error))
            self._tracker = None


NO_TRACKING = Tracking()


def check(kind: str) -> None:
    """Import the package of the tracker that is asked for.

    Raises:
        UsageError: it is not installed.
    """
    if kind == "none":
        return
    try:
        importlib.import_module(kind)
    except ImportError as error:
        raise UsageError(
            f"--train.tracker {kind}: {kind} is not installed; pip install {kind}, or install the extra `{kind}`"
        ) from error


def start(kind: str, folder: Path, name: str, settings: Mapping[str, Any]) -> Tracking:
    """Start a run at a tracker, or go on with the one that the folder knows of.

    Args:
        kind: none, wandb or mlflow.
        folder: of the run.
        name: of the run.
        settings: what was run, as plain values, nested dicts among them.

    Raises:
        UsageError: it cannot be started. One that cannot go on is a warning.
    """
    if kind == "none":
        return NO_TRACKING
    path = folder / "tracker.json"
    ids = files.read_json(path) if path.exists() else {}
    create = WandbTracker if kind == "wandb" else MlflowTracker
    try:
        tracker = create(folder, name, settings, ids.get(kind))
    except Exception as error:  # a package of others, which may raise anything
        if kind not in ids:
            advice = "set it up by its environment variables, or leave it out"
            raise UsageError(f"--train.tracker {kind}: does not start ({_line(error)}); {advice}") from error
        logger.warning("the tracker %s does not go on (%s); log.jsonl has all", kind, _line(error))
        return NO_TRACKING
    files.write_json(path, {**ids, kind: tracker.id})
    return Tracking(tracker)


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Fields of nested dicts by their dotted names."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _flat(inner, f"{prefix}.{name}" if prefix else name)
    else:
        yield prefix, str(value)


def _line(error: Exception) -> str:
    return textwrap.shorten(str(error), 160) or type(error).__name__
