"""Every command on the README and the pages is run, or parsed by what it starts where it takes hours or machines.

Experiments are parsed in `tests/launch/test_commands.py`; where changes are checked the quickstart is run for some
steps.
"""

import importlib
import re
import shlex
import shutil
import sys
import types
from dataclasses import replace
from pathlib import Path

import pytest

from ivdjax import command_line, models, run, trained
from ivdjax.data import dataset, phantom
from tests.trust import verbs, world

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "launch" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# What starts a command that is not a verb of ours, and where it is tried.
ELSEWHERE = {
    "python -m experiments.": "tests/launch/test_commands.py",
    "WANDB_MODE=offline python -m experiments.": "tests/training/test_trackers.py",
    "MLFLOW_TRACKING_URI=sqlite:///mlflow.db python -m experiments.": "tests/training/test_trackers.py",
    "nnUNetv2_": "by hand, in an environment with nnU-Net: tests/exchange/test_nnunet.py tells",
    "node": "tests/launch/test_commands.py",
    "sbatch ": "tests/launch/test_slurm.py",
    "pytest": "these tests",
    "ruff ": "where changes are checked",
    "mypy": "where changes are checked",
    "docker ": "by hand: launch/README.md says how",
    "python -m tests.trust": "in full, by hand: its parts are these tests",
    "IVDJAX_": "these tests, in full",
    "python -m venv audit": "by hand: docs/safety.md says how far",
    "audit/bin/": "by hand: docs/safety.md says how far",
    "python docs/make_pictures.py": "by hand, and looked at",
}


def commands(path):
    """Commands in a page's blocks that are no program, without comments and launch/local.sh."""
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```", path.read_text().replace("\\\n", " "), re.M | re.S):
        if not language:
            for line in block.splitlines():
                yield re.sub(r"\s+", " ", line.split(" # ")[0].removeprefix("bash launch/local.sh ")).strip()


def test_no_command_is_tried_nowhere():
    found = [(page.name, command) for page in PAGES for command in commands(page)]
    assert len(found) > 40
    yaml = ("nodeSelector:", "cloud.google.com/")
    known = ("ivdjax ", *ELSEWHERE, *yaml)
    assert [(page, command) for page, command in found if not command.startswith(known)] == []


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """What the pages' commands name: a small IVDM3Seg, masks, a run on it, another tool's folder."""
    folder, cases = tmp_path_factory.mktemp("docs"), ("01", "02", "03", "04")
    world.tree(folder / "IVDM3Seg", dataset.DIXON, cases)
    world.masks(folder / "IVDM3Seg", folder / "PREDICTIONS", cases)
    world.spider(folder / "SPIDER")
    tiny = world.experiment(folder)
    data = replace(tiny.data, root=folder / "IVDM3Seg", channels=dataset.DIXON)
    run.run(replace(tiny, run_dir=folder / "runs" / "baseline", data=data))
    for name in ("runs/other", "RUN", "RUN_1", "RUN_2"):
        shutil.copytree(folder / "runs" / "baseline", folder / name)
    for name, meant in {
        "REFERENCES": "IVDM3Seg",
        "CASES": "IVDM3Seg",
        "NEW_CASES": "IVDM3Seg",
        "MASKS": "PREDICTIONS",
        "nnUNet_results/.../fold_0/validation": "PREDICTIONS",
    }.items():
        shutil.copytree(folder / meant, folder / name)
    return folder


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_verbs_do_what_the_page_says(page, place, monkeypatch):
    # In earnest it draws sixteen whole scans; tests/data/test_phantom.py draws small ones.
    monkeypatch.setattr(phantom, "write_tree", lambda out, **told: out.mkdir())
    for command in commands(page):
        if not command.startswith("ivdjax "):
            continue
        words = shlex.split(command)[1:]
        if "spider" in words:
            pytest.importorskip("SimpleITK")
        if words[:2] == ["convert", "nnunet"]:  # which the page has before the command that would write such a folder
            to = "convert to-nnunet IVDM3Seg nnUNet_raw/Dataset123_NAME --subjects pairs"
            assert verbs.call(shlex.split(to), place).code == 0
            shutil.rmtree(place / "TREE", ignore_errors=True)
        outcome = verbs.call(words, place)
        assert outcome.crash is None, command
        assert outcome.code == 0, f"{command}: {outcome.err}"
        assert outcome.warned == (), command
        for name in ("network", "weights"):  # new folders, which two pages make
            shutil.rmtree(place / name, ignore_errors=True)


def test_an_experiment_of_your_own_is_the_page_s_file(tmp_path, monkeypatch):
    (program,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "experiments.md").read_text(), re.S)
    (tmp_path / "wide.py").write_text(program)
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("wide")
    started = []
    monkeypatch.setattr(run, "run", started.append)
    monkeypatch.setattr("sys.argv", ["wide", "--data.root", "IVDM3Seg"])
    with pytest.raises(SystemExit) as stop:
        command_line.experiment(module.experiment(), module.__doc__)
    assert stop.value.code == 0
    assert started == [replace(module.experiment(), data=replace(module.experiment().data, root=Path("IVDM3Seg")))]
    assert started[0].loss.focal_weight == 1


def test_a_network_of_your_own_is_the_page_s_file(tmp_path, monkeypatch):
    page = (ROOT / "docs" / "networks.md").read_text()
    program, line = (block for block in re.findall(r"```python\n(.*?)```", page, re.S) if "import" in block)
    home = types.ModuleType("ivdjax.models.plain")
    monkeypatch.setitem(sys.modules, home.__name__, home)
    monkeypatch.setattr(models, "plain", home, raising=False)
    exec(program, home.__dict__)
    namespace = {}
    exec(line, namespace)
    monkeypatch.setattr(models, "Plain", namespace["Plain"], raising=False)
    world.tree(tmp_path / "tree")
    one = replace(world.experiment(tmp_path), model=namespace["Plain"](features=4), run_dir=tmp_path / "run")
    run.run(one)
    assert trained.load(one.folder).experiment.model == one.model
