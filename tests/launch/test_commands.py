"""Every command that starts an experiment, on the page about launching and in the launchers, and whether it parses."""

import importlib
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ivdjax import command_line, run
from ivdjax.training import distributed

ROOT = Path(__file__).parents[2]
LAUNCH = ROOT / "launch"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXTS = [*PAGES, *(path for path in sorted(LAUNCH.iterdir()) if path.is_file())]
# Files that the pages tell their readers to write.
WRITTEN = ("wide", "ablate_width")


def found(pattern):
    """What a pattern's group matches in any of the texts, up to the end of the line or of the quoted code."""
    texts = [path.read_text().replace("\\\n", " ") for path in TEXTS]
    return [match for text in texts for match in re.findall(pattern + r"([^`|\n]*)", text)]


@pytest.fixture
def parse(monkeypatch, capfd):
    """Gives words to an experiment's command line; returns the experiment and how its processes would meet."""

    def parsed(name, words):
        met, experiments = [], []
        monkeypatch.setattr(distributed, "start", lambda *told: met.append(told))
        monkeypatch.setattr(run, "run", experiments.append)
        monkeypatch.setattr(sys, "argv", [name, *words])
        module = importlib.import_module(f"experiments.{name}")
        with pytest.raises(SystemExit) as stop:
            command_line.experiment(module.experiment(), module.__doc__)
        assert stop.value.code == 0, capfd.readouterr().err
        (experiment,) = experiments
        return experiment, met[0] if met else None

    return parsed


def test_commands_of_the_pages_and_the_image(parse, monkeypatch, capfd):
    lines = dict.fromkeys(line.split(" # ")[0] for line in found(r"-m experiments\.(?=\w)"))
    commands = [shlex.split(line) for line in lines]
    assert len(commands) >= 15
    for name, *words in commands:
        if name in WRITTEN or name == "NAME" or "--help" in words:
            continue
        if name.startswith("ablate_"):
            lists(name, words, monkeypatch, capfd)
        else:
            parse(name, words)


def lists(name, words, monkeypatch, capfd):
    """Let an ablation list its variants in place of what it was to do."""
    monkeypatch.setattr(sys, "argv", [name, *words, "--list"])
    sys.modules.pop(f"experiments.{name}", None)  # which runpy would warn of
    with pytest.raises(SystemExit) as stop:
        runpy.run_module(f"experiments.{name}", run_name="__main__")
    told = capfd.readouterr()
    assert stop.value.code == 0, told.err
    assert "the base" in told.out


def test_by_hand_two_machines_name_the_same_meeting_place(parse):
    commands = [shlex.split(line) for line in found(r"node\d\$ .* -m experiments\.")]
    met = [parse(name, words)[1] for name, *words in commands]
    (place,) = {where for where, _, _ in met}
    assert met == [(place, 2, 0), (place, 2, 1)]


def test_slurm_jobs_let_jax_find_the_cluster(parse):
    commands = [shlex.split(line) for line in found(r"sbatch [^`\n]*launch/slurm\.sh (?=[a-z])")]
    assert commands
    for words in commands:
        dry = ["bash", LAUNCH / "slurm.sh", "--dry-run", *words]
        step = subprocess.run(dry, capture_output=True, text=True, check=True).stdout.splitlines()[3]
        experiment, met = parse(*_experiment(shlex.split(step)))
        assert met == ("auto", None, None)
        assert experiment.name == "baseline"


def _experiment(words):
    start = words.index("-m") + 1
    return words[start].removeprefix("experiments."), words[start + 1 :]


def test_pods_meet_at_the_first(parse):
    (workers,) = yaml.safe_load((LAUNCH / "kubernetes.yaml").read_text())["spec"]["replicatedJobs"]
    (container,) = workers["template"]["spec"]["template"]["spec"]["containers"]
    for pod in range(2):
        words = [word.replace("$(JOB_COMPLETION_INDEX)", str(pod)) for word in container["args"]]
        experiment, met = parse(*_experiment(words))
        assert met == ("ivdjax-worker-0-0.ivdjax:8476", 2, pod)
        assert experiment.folder == Path("/data/runs/baseline")


@pytest.mark.parametrize("nodes", [1, 2])
def test_cloud_machines_run_what_the_command_names(parse, sky, nodes, monkeypatch):
    commands = [shlex.split(line) for line in found(r"sky jobs launch ")]
    assert len(commands) >= 4
    cluster = {"SKYPILOT_NUM_NODES": str(nodes), "SKYPILOT_NODE_IPS": "10.0.0.5\n10.0.0.6", "SKYPILOT_NODE_RANK": "1"}
    for file, *words in commands:
        task = yaml.safe_load((ROOT / file).read_text())
        assert set(words[::2]) <= {"--env"}
        env = task["envs"] | dict(word.split("=", 1) for word in words[1::2])
        command = sky(env["EXPERIMENT"], *env["ARGUMENTS"].split(), RUN=env["RUN"], **(cluster if nodes > 1 else {}))
        experiment, met = parse(*_experiment(command))
        assert experiment.folder.name == env["EXPERIMENT"]
        assert met == (None if nodes == 1 else ("10.0.0.5:8476", 2, 1))
