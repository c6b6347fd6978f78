"""Nothing that we load can run: no pickle, no eval and no shell in the package, the experiments and the launchers."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

from ivdjax.data import instances, nifti_header, paths
from ivdjax.inference import weights

ROOT = Path(__file__).parents[2]
FOLDERS = ("ivdjax", "experiments", "launch")

MODULES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "dbm", "yaml", "code"}
MODULES |= {"imp", "runpy"}
BUILTINS = {"eval", "exec", "compile", "__import__", "breakpoint", "input"}
CALLS = {
    "os.system",
    "os.popen",
    "os.execv",
    "os.spawnl",
    "torch.load",
    "pd.read_pickle",
    "np.fromfile",
    "tempfile.mktemp",
}
# The trackers' packages are optional; which of two is imported is checked when settings are read.
IMPORTS = {"ivdjax/training/trackers.py": "importlib.import_module(kind)"}


def unsafe(source, name="a.py"):
    """What a module does that could run what it loads, a line each."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            found += [f"{name}:{node.lineno} imports {n}" for n in names if n.split(".")[0] in MODULES]
        if isinstance(node, ast.Call):
            called, told = ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}
            bad = called in BUILTINS | CALLS or called.split(".")[-1] in (
                "import_module",
                "load_module",
                "literal_eval",
            )
            bad |= told.get("shell", "False") != "False" or told.get("allow_pickle", "False") != "False"
            bad |= called.endswith("np.load") and told.get("allow_pickle") != "False"
            if bad and ast.unparse(node) != IMPORTS.get(name):
                found.append(f"{name}:{node.lineno} calls {ast.unparse(node)}")
    return found


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "import os, cloudpickle as c",
        "eval(text)",
        "exec(text)",
        "__import__(name)",
        "import os\nos.system(command)",
        "import subprocess\nsubprocess.run(command, shell=True)",
        "subprocess.run(command, shell=asked)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "np.load(path, mmap_mode='r', allow_pickle=trusted)",
        "import yaml",
        "importlib.import_module(kind)",
        "torch.load(path)",
    ],
)
def test_what_is_unsafe_is_seen(source):
    assert unsafe(source)


def test_what_is_safe_is_let_through():
    assert unsafe("import json\nmodel.evaluate(x)\nnp.load(path, allow_pickle=False)\nsubprocess.run(['ls'])") == []


def test_no_code_loads_what_can_run():
    paths = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
    assert len(paths) > 100
    assert [line for path in paths for line in unsafe(path.read_text("utf-8"), str(path.relative_to(ROOT)))] == []


def test_no_launcher_evaluates_what_it_is_told():
    scripts = [path for path in sorted((ROOT / "launch").iterdir()) if path.suffix in (".sh", "") and path.is_file()]
    assert len(scripts) >= 5
    for path in scripts:
        assert not re.search(r"(^|[;&|]\s*)\s*eval\b|\bcurl\b.*\|\s*(ba)?sh", path.read_text("utf-8"), re.MULTILINE), (
            path
        )


def test_the_page_on_safety_has_the_limits_and_the_licence_of_every_dependency():
    text = (ROOT / "docs" / "safety.md").read_text("utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    licences = text.partition("## Licences")[2].partition("## Checking")[0]
    named = set(re.findall(r"[\w-]+", "".join(line for line in licences.splitlines() if line.startswith("|"))))
    assert {re.split(r"[<>=\[]", dependency)[0] for dependency in project["dependencies"]} <= named
    limits = {nifti_header.MAX_VOXELS: "2^26 voxels", instances.MOST_VOXELS: "2^24 voxels", weights.MAX_BYTES: "1 GiB"}
    assert limits.keys() == {2**26, 2**24, 2**30}
    assert (nifti_header.MAX_OFFSET, nifti_header.MAX_DEFLATE_RATIO) == (64 * 2**20, 1032)
    for words in (*limits.values(), "64 MiB", "1032 to 1", f"{paths.LINKS}=follow"):
        assert words in text
