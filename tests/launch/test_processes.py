"""An experiment's own command as two processes of four devices each, joined by hand and as Slurm joins its tasks."""

import csv
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from ivdjax.training import logbook

ROOT = Path(__file__).parents[2]
STEPS = 20


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("tree")
    rng = np.random.default_rng(0)
    affine = np.diag([2.0, -1.25, -1.25, 1.0])[[0, 2, 1, 3]]
    for name in ("01", "02", "03"):
        label = np.zeros((6, 32, 32), np.uint8)
        label[1:5, 4:12, 8:24] = label[1:5, 18:26, 8:24] = 1
        image = (100 + 300 * label.astype(int) + rng.normal(0, 50, label.shape)).clip(0).astype(np.int16)
        (root / name).mkdir()
        nib.save(nib.Nifti1Image(image, affine), root / name / f"{name}_t2.nii.gz")
        nib.save(nib.Nifti1Image(label, affine), root / name / f"{name}_Labels.nii.gz")
    return root


def start(tree, folder, *more, devices=1, **environment):
    settings = {
        "--data.root": tree,
        "--run-dir": folder,
        "--data.hold-out": "03",
        "--data.window": "24 24",
        "--data.slices": 3,
        "--model.features": "4 8",
        "--train.steps": STEPS,
        "--train.batch-size": 8,
        "--train.log-every": 1,
        "--train.validate-every": 10,
        "--train.checkpoint-every": 4,
    }
    words = [word for name, value in settings.items() for word in (name, *str(value).split())]
    flags = f"--xla_force_host_platform_device_count={devices}"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    return subprocess.Popen(
        [sys.executable, "-m", "experiments.t2", *words, *map(str, more)],
        cwd=ROOT,
        env={**kept, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def by_hand(tree, folder):
    where = f"127.0.0.1:{free_port()}"
    return [
        start(tree, folder, "--distributed", where, "--processes", 2, "--process", process, devices=4)
        for process in range(2)
    ]


def by_slurm(tree, folder):
    """Two tasks on this machine, told of each other as srun tells them."""
    # jax takes the port from the number of the job: one of 4096.
    job = free_port(range(61440, 65536)) - 61440 + 4096
    step = {"SLURM_JOB_ID": str(job), "SLURM_NTASKS": "2", "SLURM_STEP_NUM_NODES": "1"}
    step["SLURM_STEP_NODELIST"] = "localhost"
    return [
        start(
            *(tree, folder, "--distributed", "auto"),
            devices=4,
            **(step | {"SLURM_PROCID": str(task), "SLURM_LOCALID": str(task)}),
        )
        for task in range(2)
    ]


def free_port(ports=(0,)):
    for port in ports:
        with socket.socket() as listener:
            try:
                listener.bind(("", port))
            except OSError:
                continue
            return listener.getsockname()[1]
    raise AssertionError("no port is free")


def ended(*processes):
    """Exit codes, with all that was said where a test then fails."""
    for process in processes:
        print(process.communicate(timeout=240)[0])
    return [process.returncode for process in processes]


def losses(folder):
    path = folder / "log.jsonl"
    rows = [row for row in logbook.read(path) if row["kind"] == "train"] if path.exists() else []
    return {row["step"]: row["loss"] for row in rows}


def scores(folder):
    with (folder / "scores.csv").open() as file:
        return [(row["case"], row["disc"], row["found"], float(row["dice"])) for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def alone(tree, tmp_path_factory):
    """The run of one process with one device."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    assert ended(start(tree, folder)) == [0]
    assert list(losses(folder)) == list(range(1, STEPS + 1))
    return folder


def assert_same(folder, alone):
    assert (folder / "report.html").exists()
    ours, theirs = losses(folder), losses(alone)
    assert list(ours) == list(theirs)
    np.testing.assert_allclose(list(ours.values()), list(theirs.values()), atol=1e-5)
    for row, other in zip(scores(folder), scores(alone), strict=True):
        assert row[:3] == other[:3]
        assert row[3] == pytest.approx(other[3], abs=0.02)


def test_two_processes_joined_by_hand_learn_what_one_does(tree, alone, tmp_path):
    assert ended(*by_hand(tree, tmp_path / "run")) == [0, 0]
    assert_same(tmp_path / "run", alone)


def test_slurm_tasks_of_which_one_is_told_to_stop_all_save_and_go_on_later(tree, alone, tmp_path):
    folder = tmp_path / "run"
    tasks = by_slurm(tree, folder)
    while len(losses(folder)) < 3 and all(task.poll() is None for task in tasks):
        time.sleep(0.02)
    tasks[1].send_signal(signal.SIGTERM)
    assert ended(*tasks) == [75, 75]
    stopped = max(losses(folder))
    assert 3 <= stopped < STEPS
    assert ended(*by_slurm(tree, folder)) == [0, 0]
    assert_same(folder, alone)


def test_a_process_that_no_other_joins_never_goes_on_alone(tree, tmp_path):
    wrong = start(tree, tmp_path / "run", "--distributed", "auto")
    assert ended(wrong) == [2]
    assert not (tmp_path / "run").exists()
