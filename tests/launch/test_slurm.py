"""The job script, with stand-ins on PATH for Slurm's commands that write down how they were called."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "launch" / "slurm.sh"


def run(*words, **environment):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    return subprocess.run(
        ["bash", SCRIPT, *map(str, words)],
        cwd=ROOT,
        env={**kept, **{name: str(value) for name, value in environment.items()}},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def slurm(tmp_path):
    """Runs the job script as job 42 and returns what it ended with and the lines of the calls it made."""

    def job(*words, exits, state="RUNNING"):
        calls = tmp_path / "calls"
        for name, does in (("srun", f"exit {exits}"), ("squeue", f"echo {state}"), ("scontrol", "")):
            fake = tmp_path / name
            fake.write_text(f'#!/bin/bash\necho {name} "${{@@Q}}" >>{calls}\n{does}\n')
            fake.chmod(0o755)
        done = run(
            *words,
            PATH=f"{tmp_path}:{os.environ['PATH']}",
            SLURM_JOB_ID=42,
            SLURM_SUBMIT_DIR=ROOT,
            SLURM_CPUS_PER_TASK=3,
            IVDJAX_PYTHON="container exec python",
        )
        return done, [shlex.split(line) for line in calls.read_text().splitlines()] if calls.exists() else []

    return job


def test_every_task_runs_the_experiment_as_one_process_of_the_cluster(slurm):
    done, calls = slurm("t2", "--data.root", "two words", exits=0)
    assert done.returncode == 0, done.stderr
    (step,) = calls
    assert step[0] == "srun"
    start = step.index("container")
    assert all(word.startswith("--") for word in step[1:start])
    assert step[start:] == (
        ["container", "exec", "python", "-m", "experiments.t2", "--data.root", "two words", "--distributed", "auto"]
    )


def test_a_job_that_stopped_early_is_requeued_once(slurm):
    done, calls = slurm("t2", exits=75)
    assert done.returncode == 75
    assert [call for call in calls if call[0] == "scontrol"] == [["scontrol", "requeue", "42"]]


@pytest.mark.parametrize("code", [1, 2, 130, 137])
def test_a_job_that_failed_is_not_requeued(slurm, code):
    done, calls = slurm("t2", exits=code)
    assert done.returncode == code
    assert [call[0] for call in calls] == ["srun"]


@pytest.mark.parametrize("state", ["CANCELLED", "COMPLETING", "PREEMPTED", ""])
def test_a_cancelled_job_stays_so_and_one_that_slurm_requeues_is_left_to_it(slurm, state):
    done, calls = slurm("t2", exits=75, state=state)
    assert done.returncode == 75
    assert "scontrol" not in [call[0] for call in calls]


def test_dry_run_prints_what_would_run_and_runs_nothing(tmp_path):
    done = run("--dry-run", "baseline", "--data.root", "two words", PATH=os.environ["PATH"])
    assert done.returncode == 0
    submit, _, prepare, step, requeue = done.stdout.splitlines()
    options = shlex.split(submit)
    assert options[0] == "sbatch"
    assert {"--requeue", "--open-mode=append", "--signal=TERM@120"} <= set(options)
    assert options[-4:] == ["launch/slurm.sh", "baseline", "--data.root", "two words"]
    assert shlex.split(prepare) == ["IVDJAX_EXTRAS=cuda", "bash", "launch/local.sh", "true"]
    assert shlex.split(step)[-6:] == ["-m", "experiments.baseline", "--data.root", "two words", "--distributed", "auto"]
    assert "75" in requeue
    assert "scontrol requeue" in requeue


@pytest.mark.parametrize(
    ("words", "environment", "said"),
    [
        ([], {}, "name an experiment"),
        (["no_such"], {}, "no experiments/no_such.py"),
        (["baseline"], {}, "no Slurm job"),
        (["--dry-run", "baseline"], {"SLURM_SUBMIT_DIR": "/"}, "submit from there"),
        (["baseline"], {"SLURM_JOB_ID": 42, "SLURM_GPUS_PER_TASK": 1}, "--gpus-per-node"),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_2(words, environment, said):
    done = run(*words, **environment)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert said in done.stderr


def test_options_stand_where_sbatch_reads_them():
    lines = SCRIPT.read_text().splitlines()
    first = next(n for n, line in enumerate(lines) if line and not line.startswith("#"))
    assert all(n < first for n, line in enumerate(lines) if line.startswith("#SBATCH"))
