"""Ablations as a user runs them: listed, stopped, resumed, named, handed to a cluster."""

import os
import shlex
import signal
import stat
import subprocess
import sys
import time

import pytest

from tests import runs

SETTINGS = {
    **runs.SETTINGS,
    "data.folds": 3,
    "train.steps": 6,
    "train.checkpoint-every": 2,
    "train.validate-every": 0,
    "seed": 1,
}
del SETTINGS["data.hold-out"]
WORDS = [word for name, value in SETTINGS.items() for word in (f"--{name}", *str(value).split())]


def command(folder, tree, *more, module="ablate_context", **keywords):
    """Start an ablation of two variants, of 1 and of 3 slices, the base."""
    words = ["t2", "--data.root", tree, "--run-dir", folder, "--predict.no-flip", *WORDS, *more]
    return subprocess.Popen(
        [sys.executable, "-m", f"experiments.{module}", *map(str, words)],
        cwd=runs.ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu", **keywords},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def said(process):
    output = process.communicate(timeout=240)[0]
    print(output)
    return output


@pytest.fixture(scope="module")
def finished(tree, tmp_path_factory):
    """Folder of an ablation that ran through, and what it printed."""
    folder = tmp_path_factory.mktemp("whole") / "ablation"
    process = command(folder, tree, "--only", "k1", "k3")
    output = said(process)
    assert process.returncode == 0
    return folder, output


def test_it_ends_with_a_table_a_csv_and_a_figure(finished):
    folder, output = finished
    text = (folder / "table.md").read_text()
    assert text in output
    assert "3 held-out cases of 3 subjects" in text
    assert "| **k3**, base |" in text
    assert len((folder / "results.csv").read_text().splitlines()) == 1 + 2 * 3
    assert (folder / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert all((folder / name / "report.html").exists() for name in ("k1", "k3"))


def test_stopped_and_started_again_it_ends_with_the_same_table(finished, tree, tmp_path):
    folder = tmp_path / "ablation"
    process = command(folder, tree, "--only", "k1", "k3")
    until = time.monotonic() + 200
    # In the middle of the second variant.
    while not (folder / "k3" / "checkpoints" / "2").exists() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    said(process)
    assert process.returncode == 75
    assert not (folder / "table.md").exists()

    listed = said(command(folder, tree, "--only", "k1", "k3", "--list"))
    assert "finished" in listed
    assert " of 6" in listed

    assert "Finished already" not in said(command(folder, tree, "--only", "k1", "k3"))
    for name in ("table.md", "results.csv"):
        assert (folder / name).read_bytes() == (finished[0] / name).read_bytes()


def test_what_is_finished_is_not_run_again_and_an_estimate_leaves_nothing(finished, tree):
    folder, _ = finished
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    output = said(command(folder, tree, "--only", "k1", "k7", "--dry-run"))
    assert "k1: " not in output
    assert "k7: 3 networks x 6 steps" in output
    assert "1 of 2 to run" in output
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_mistakes_are_one_line(finished, tree):
    folder, _ = finished
    for words, line in (
        (("--only", "k9"), "ivdjax: ablate_context-t2 has no variant k9; it has k1, k3, k5, k7, attention, 3d"),
        (("--only", "k1", "--train.steps", "8", "--part", "sky"), "ivdjax: k1: "),
        (("--only", "k7", "--train.batch-size", "4"), "ivdjax: k3: "),
        (("--only", "k1", "--part", "slurm"), "ivdjax: --part slurm: this is no task of the array"),
    ):
        environment = {"SLURM_ARRAY_TASK_ID": ""}
        process = command(folder if "steps" not in str(words) else folder / "k1", tree, *words, **environment)
        output = said(process)
        assert process.returncode == 2
        assert output.strip().splitlines()[-1].startswith(line)


def test_a_cluster_gets_an_array_and_a_table_after_it(tree, tmp_path):
    sbatch, told = tmp_path / "bin" / "sbatch", tmp_path / "told"
    sbatch.parent.mkdir()
    sbatch.write_text(f'#!/bin/sh\necho "$@" >> {told}\necho "77;cluster"\n')
    sbatch.chmod(sbatch.stat().st_mode | stat.S_IXUSR)
    path = f"{sbatch.parent}:{os.environ['PATH']}"
    finished = tmp_path / "runs" / "k5" / "report.html"
    finished.parent.mkdir(parents=True)
    finished.touch()
    process = command(tmp_path / "runs", tree, "--submit", "slurm", "--only", "k1", "k3", "k5", PATH=path)
    assert "submitted k1, k3, and" in said(process)
    array, table = told.read_text().splitlines()
    assert array.startswith("--parsable --array=0-1 launch/slurm.sh ablate_context t2 --data.root")
    assert array.endswith("--only k1 k3 --part slurm")
    assert table.startswith("--parsable --dependency=afterok:77 --kill-on-invalid-dep=yes launch/slurm.sh ablate_con")
    assert table.endswith("--only k1 k3 k5")
    assert "--submit" not in array + table


def test_a_task_of_the_array_runs_its_variant_alone(tree, tmp_path):
    folder = tmp_path / "ablation"
    process = command(folder, tree, "--only", "k1", "k3", "--part", "slurm", SLURM_ARRAY_TASK_ID="1")
    said(process)
    assert process.returncode == 0
    assert (folder / "k3" / "report.html").exists()
    assert sorted(path.name for path in folder.iterdir()) == ["k3"]


def test_sky_jobs_are_one_a_variant(tree, tmp_path):
    output = said(command(tmp_path / "mine", tree, "--submit", "sky", "--dry-run", "--only", "k1", "k7"))
    jobs = [shlex.split(job) for job in output.splitlines()]
    assert len(jobs) == 2
    for job, name in zip(jobs, ("k1", "k7"), strict=True):
        assert job[:3] == ["sky", "jobs", "launch"]
        assert job[-1] == "launch/sky-gpu.yaml"
        (words,) = [word.removeprefix("ARGUMENTS=") for word in job if word.startswith("ARGUMENTS=")]
        assert words.startswith(f"t2 --data.root {tree} --predict.no-flip")
        assert words.endswith(f"--only {name} --part sky")
        assert f"RUN=mine/{name}" in job
