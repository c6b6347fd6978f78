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
STEPS = 12


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "tree"
    rng = np.random.default_rng(0)
    affine = np.diag([2.0, -1.25, -1.25, 1.0])[[0, 2, 1, 3]]
    for name in ("01", "02", "03"):
        label = np.zeros((6, 32, 32), np.uint8)
        label[1:5, 4:12, 8:24] = label[1:5, 18:26, 8:24] = 1
        image = (100 + 300 * label.astype(int) + rng.normal(0, 50, label.shape)).clip(0).astype(np.int16)
        (root / name).mkdir(parents=True)
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
        "--train.validate-every": 0,
        "--train.checkpoint-every": 4,
    }
    # What remains draws random numbers enough, and compiles in a few seconds.
    for part in ("swap", "decay", "bias", "blur-voxels", "blur-through", "log-gamma"):
        settings[f"--augment.{part}"] = 0
    words = [word for name, value in settings.items() for word in (name, *str(value).split())]
    flags = f"--xla_force_host_platform_device_count={devices}"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    return subprocess.Popen(
        [sys.executable, "-m", "experiments.t2", "--predict.no-flip", *words, *map(str, more)],
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


def test_tasks_of_slurm_of_which_one_is_told_to_stop_and_two_machines_by_hand_do_what_one_process_does(tree, tmp_path):
    alone, folder = tmp_path / "alone", tmp_path / "run"
    assert ended(start(tree, alone)) == [0]

    tasks = by_slurm(tree, folder)
    while len(losses(folder)) < 3 and all(task.poll() is None for task in tasks):
        time.sleep(0.02)
    tasks[1].send_signal(signal.SIGTERM)
    assert ended(*tasks) == [75, 75]
    assert 3 <= max(losses(folder)) < STEPS
    assert not (folder / "report.html").exists()

    assert ended(*by_hand(tree, folder)) == [0, 0]
    assert (folder / "report.html").exists()
    assert list(losses(folder)) == list(losses(alone)) == list(range(1, STEPS + 1))
    np.testing.assert_allclose(list(losses(folder).values()), list(losses(alone).values()), atol=1e-5)
    for row, other in zip(scores(folder), scores(alone), strict=True):
        assert row[:3] == other[:3]
        assert row[3] == pytest.approx(other[3], abs=0.02)


def test_where_jax_knows_no_cluster_auto_is_an_error_and_no_run(tree, tmp_path):
    wrong = start(tree, tmp_path / "run", "--distributed", "auto")
    assert ended(wrong) == [2]
    assert not (tmp_path / "run").exists()
