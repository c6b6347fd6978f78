"""What is handed to a cluster, and what is not."""

import dataclasses

import pytest

from ivdjax.ablation import submit
from ivdjax.ablation.plan import plan
from ivdjax.config import Data, Experiment
from ivdjax.errors import UsageError
from ivdjax.models import UNet


@pytest.fixture
def laid(tmp_path):
    base = Experiment(name="ablate_made", model=UNet(), run_dir=tmp_path / "mine", data=Data(slices=3))
    return plan("ablate_made", lambda b: {"one": dataclasses.replace(b, seed=1), "base": b}, base)


@pytest.mark.parametrize(
    ("cluster", "words", "line"),
    [
        ("slurm", ["--distributed", "auto"], "--submit slurm: the jobs set --distributed themselves"),
        ("sky", ["--process=1"], "--submit sky: the jobs set --process themselves"),
        ("sky", ["--data.root", "two words"], "--submit sky: 'two words' would not arrive as one word"),
    ],
)
def test_what_a_job_would_not_understand_is_refused_before_anything_is_submitted(laid, capfd, cluster, words, line):
    with pytest.raises(UsageError, match=line):
        submit.submit(laid, laid.variants, words, cluster, dry=True)
    assert capfd.readouterr().out == ""


def test_where_runs_lie_in_the_cloud_is_the_launchers_to_say(laid, capfd):
    submit.submit(laid, laid.variants, ["--run-dir", "runs/mine", "--seed", "2"], "sky", dry=True)
    job = capfd.readouterr().out.splitlines()[0]
    assert "'ARGUMENTS=--seed 2 --only one --part sky'" in job
    assert "RUN=mine/one" in job


def test_what_is_finished_is_not_submitted(laid, capfd):
    for variant in laid.variants:
        variant.folder.mkdir(parents=True)
        (variant.folder / "report.html").touch()
    submit.submit(laid, laid.variants, [], "slurm", dry=True)
    assert "sbatch" not in capfd.readouterr().out


def test_what_says_what_to_submit_is_not_passed_on():
    words = ["t2", "--submit", "slurm", "--seed", "2", "--only", "k1", "k3", "--dry-run", "--train.steps", "4"]
    assert submit.passed_on(words) == ["t2", "--seed", "2", "--train.steps", "4"]
