"""An experiment's own command as two processes of four devices each, joined by hand and as Slurm joins its tasks."""

import csv
import signal
import time

import numpy as np
import pytest

from tests.runs import ended, free_port, losses, start

SETTINGS = {"train.steps": 20, "train.validate-every": 0}


def by_hand(tree, folder):
    where = f"127.0.0.1:{free_port()}"
    settings = {**SETTINGS, "data.residency": "host"}
    return [
        start(tree, folder, settings, "--distributed", where, "--processes", 2, "--process", process, devices=4)
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
            *(tree, folder, SETTINGS, "--distributed", "auto"),
            devices=4,
            environment=step | {"SLURM_PROCID": str(task), "SLURM_LOCALID": str(task)},
        )
        for task in range(2)
    ]


def scores(folder):
    with (folder / "scores.csv").open() as file:
        return [(row["case"], row["disc"], row["found"], float(row["dice"])) for row in csv.DictReader(file)]


def test_tasks_of_slurm_of_which_one_is_told_to_stop_and_two_machines_by_hand_do_what_one_process_does(tree, tmp_path):
    alone, folder = tmp_path / "alone", tmp_path / "run"
    assert ended(start(tree, alone, SETTINGS)) == [0]

    tasks = by_slurm(tree, folder)
    while len(losses(folder)) < 3 and all(task.poll() is None for task in tasks):
        time.sleep(0.02)
    tasks[1].send_signal(signal.SIGTERM)
    assert ended(*tasks) == [75, 75]
    assert 3 <= max(losses(folder)) < SETTINGS["train.steps"]
    assert not (folder / "report.html").exists()

    assert ended(*by_hand(tree, folder)) == [0, 0]
    assert (folder / "report.html").exists()
    assert list(losses(folder)) == list(losses(alone)) == list(range(1, SETTINGS["train.steps"] + 1))
    np.testing.assert_allclose(list(losses(folder).values()), list(losses(alone).values()), atol=1e-5)
    for row, other in zip(scores(folder), scores(alone), strict=True):
        assert row[:3] == other[:3]
        assert row[3] == pytest.approx(other[3], abs=0.02)


def test_where_jax_knows_no_cluster_auto_is_an_error_and_no_run(tree, tmp_path):
    wrong = start(tree, tmp_path / "run", SETTINGS, "--distributed", "auto")
    assert ended(wrong) == [2]
    assert not (tmp_path / "run").exists()
