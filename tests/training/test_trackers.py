"""Trackers by stand-ins for their packages: what they are told, how they go on, and that they may fail."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from ivdjax import config, run
from ivdjax.config import Augment, Data, Experiment, Predict, Train
from ivdjax.errors import UsageError
from ivdjax.models import UNet
from ivdjax.training import logbook, trackers

ROOT = Path(__file__).parents[2]


class FakeWandb(ModuleType):
    """Keeps what it is told; without a `key`, `init` refuses."""

    def __init__(self, fail_at=None):
        super().__init__("wandb")
        self.begun, self.logged, self.summary, self.axes, self.exits = [], [], {}, [], []
        self.fail_at, self.key = fail_at, True
        self.Settings = SimpleNamespace

    def init(self, **settings):
        if not self.key:
            raise ValueError("No API key\nconfigured.")
        self.begun.append(settings)
        return SimpleNamespace(
            define_metric=lambda name, step_metric: self.axes.append((name, step_metric)),
            log=self._log,
            summary=self.summary,
            finish=lambda exit_code: self.exits.append(exit_code),
        )

    def _log(self, row):
        if self.fail_at == row["step"]:
            raise ConnectionError("the network is away")
        self.logged.append(row)


class FakeMlflow(ModuleType):
    """Keeps what it is told."""

    def __init__(self):
        super().__init__("mlflow")
        self.runs, self.experiments = {}, []
        self.entities = ModuleType("mlflow.entities")
        self.entities.Metric = lambda key, value, timestamp, step: (key, value, step)
        self.entities.Param = lambda key, value: (key, value)

    def MlflowClient(self):
        return self

    def get_experiment_by_name(self, name):
        return SimpleNamespace(experiment_id=name) if name in self.experiments else None

    def create_experiment(self, name):
        self.experiments.append(name)
        return name

    def create_run(self, experiment_id, run_name):
        self.runs[f"run{len(self.runs)}"] = {"in": experiment_id, "name": run_name, "params": [], "metrics": []}
        return SimpleNamespace(info=SimpleNamespace(run_id=f"run{len(self.runs) - 1}"))

    def log_batch(self, run_id, metrics=(), params=()):
        assert len(params) <= 100
        self.runs[run_id]["metrics"] += metrics
        self.runs[run_id]["params"] += params

    def update_run(self, run_id, status):
        self.runs[run_id]["status"] = status

    def set_terminated(self, run_id, status):
        self.runs[run_id]["status"] = status


@pytest.fixture
def wandb(monkeypatch):
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    monkeypatch.setitem(sys.modules, "wandb", FakeWandb())
    return sys.modules["wandb"]


@pytest.fixture
def mlflow(monkeypatch):
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    fake = FakeMlflow()
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    monkeypatch.setitem(sys.modules, "mlflow.entities", fake.entities)
    return fake


@pytest.fixture
def experiment(tree, tmp_path):
    return Experiment(
        name="tiny",
        model=UNet(features=(4, 8)),
        data=Data(root=tree, channels=("t2",), subjects="single", hold_out=("03",), slices=3, window=(24, 24)),
        augment=Augment(swap=0, decay=0, bias=0, blur_voxels=0, blur_through=0, log_gamma=0),
        train=Train(steps=4, batch_size=4, log_every=2, validate_every=4, checkpoint_every=4, tracker="wandb"),
        predict=Predict(flip=False),
        run_dir=tmp_path / "run",
    )


def tracked_by(experiment, kind):
    return dataclasses.replace(experiment, train=dataclasses.replace(experiment.train, tracker=kind))


def test_a_run_tells_its_settings_its_metrics_and_its_scores(experiment, wandb):
    run.run(experiment)
    (begun,) = wandb.begun
    assert (begun["project"], begun["name"], begun["resume"]) == ("ivdjax", "tiny", "allow")
    assert begun["config"]["train"]["steps"] == 4
    assert json.loads((experiment.folder / "tracker.json").read_text()) == {"wandb": begun["id"]}
    assert wandb.axes == [("*", "step")]
    rows = logbook.read(experiment.folder / "log.jsonl")
    assert [row["step"] for row in wandb.logged] == [row["step"] for row in rows] == [2, 4, 4]
    assert wandb.logged[0]["train/loss"] == rows[0]["loss"]
    assert wandb.logged[2]["validation/dice"] == rows[2]["dice"]
    scores = json.loads((experiment.folder / "scores.json").read_text())
    assert wandb.summary["scores/dice"] == scores["dice"]["mean"]
    assert wandb.summary["scores/discs"] == 2
    assert wandb.exits == [0]


def test_a_tracker_that_fails_is_given_up_with_one_warning(experiment, wandb, caplog):
    wandb.fail_at = 4
    run.run(experiment)
    assert [row["step"] for row in wandb.logged] == [2]
    assert (wandb.summary, wandb.exits) == ({}, [])
    assert [record.message for record in caplog.records if "tracker" in record.message] == [
        "the tracker failed (the network is away); going on without it, log.jsonl has all"
    ]
    assert (experiment.folder / "report.html").exists()
    assert len(logbook.read(experiment.folder / "log.jsonl")) == 3


def begin(experiment, folder):
    return trackers.start(experiment.train.tracker, folder, experiment.name, config.to_dict(experiment))


def interrupted(experiment, folder):
    with begin(experiment, folder) as tracking:
        tracking.log(1, {"train/loss": 2.0})
        raise KeyboardInterrupt


def test_a_run_that_goes_on_does_so_at_its_tracker(experiment, tmp_path, wandb, caplog):
    with pytest.raises(KeyboardInterrupt):
        interrupted(experiment, tmp_path)
    assert wandb.exits == [1]
    with begin(experiment, tmp_path) as tracking:
        tracking.log(2, {"train/loss": 1.0})
    assert wandb.begun[0]["id"] == wandb.begun[1]["id"]
    assert wandb.logged == [{"step": 1, "train/loss": 2.0}, {"step": 2, "train/loss": 1.0}]
    assert wandb.exits == [1, 0]
    wandb.key = False  # gone by the third time: no reason to stop
    with begin(experiment, tmp_path) as tracking:
        tracking.log(3, {"train/loss": 0.5})
    assert "does not go on (No API key configured.)" in caplog.text
    assert len(wandb.logged) == 2


def test_mlflow_is_told_the_same(experiment, tmp_path, mlflow):
    experiment = tracked_by(experiment, "mlflow")
    with pytest.raises(KeyboardInterrupt):
        interrupted(experiment, tmp_path)
    assert mlflow.runs["run0"]["status"] == "KILLED"
    with begin(experiment, tmp_path) as tracking:
        assert mlflow.runs["run0"]["status"] == "RUNNING"
        tracking.log(2, {"train/loss": 1.0})
        tracking.scores({"scores/dice": 0.5})
    (told,) = mlflow.runs.values()
    assert (told["in"], told["name"], told["status"]) == ("ivdjax", "tiny", "FINISHED")
    assert told["metrics"] == [("train/loss", 2.0, 1), ("train/loss", 1.0, 2), ("scores/dice", 0.5, 0)]
    params = dict(told["params"])
    assert (params["train.steps"], params["data.channels"]) == ("4", "['t2']")
    assert len(params) == len(told["params"]) > 60
    with begin(experiment, tmp_path / "other"):
        assert mlflow.experiments == ["ivdjax"]
    assert len(mlflow.runs) == 2


@pytest.mark.parametrize("kind", ["wandb", "mlflow"])
def test_without_the_package_one_line_says_so_before_anything_is_written(experiment, monkeypatch, kind):
    monkeypatch.setitem(sys.modules, kind, None)
    with pytest.raises(UsageError, match=f"{kind} is not installed; pip install {kind}"):
        run.run(tracked_by(experiment, kind))
    assert not experiment.folder.exists()


def test_a_tracker_that_does_not_start_is_one_line_before_training(experiment, wandb):
    wandb.key = False
    with pytest.raises(UsageError, match=r"tracker wandb: does not start \(No API key configured.\)") as stop:
        run.run(experiment)
    assert "\n" not in str(stop.value)
    assert not (experiment.folder / "log.jsonl").exists()
    assert not (experiment.folder / "tracker.json").exists()


def test_neither_is_imported_without_being_asked_for(tmp_path):
    for name in ("wandb", "mlflow", "SimpleITK"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(f'{__name__} was imported')")
    code = (
        "import sys, ivdjax.cli, ivdjax.run, experiments.t2\n"
        "import ivdjax.exchange.nnunet, ivdjax.exchange.spider\n"
        "from ivdjax.training import trackers\n"
        "trackers.check('none'), trackers.start('none', None, '', {})\n"
        "import wandb"
    )
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    # The last line alone imports it, so the stand-ins were there to be found.
    assert done.stderr.strip() == "wandb was imported"
    assert done.returncode == 1
