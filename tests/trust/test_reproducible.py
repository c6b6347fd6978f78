"""Two runs of one experiment on one machine are the same to the bit, and tell what they were made with."""

import dataclasses
import os
import pickle
import subprocess
import sys

import jax
import pytest

from ivdjax import files, provenance
from ivdjax.data import cache, dataset
from tests.runs import ROOT
from tests.trust.faults import command, experiment, outcome

# What a process of its own prints of a run: everything in it that must not differ.
AGAIN = """
import pickle, sys
from pathlib import Path
from tests.trust.faults import command, experiment, outcome
import dataclasses
tree, folder, out, threads = map(Path, sys.argv[1:])
one = experiment(tree, folder)
one = dataclasses.replace(one, data=dataclasses.replace(one.data, threads=int(str(threads))))
assert command(one) == 0
out.write_bytes(pickle.dumps(outcome(folder)))
"""


@pytest.fixture(scope="module")
def here(tree, tmp_path_factory):
    one = experiment(tree, tmp_path_factory.mktemp("here") / "run")
    assert command(one) == 0
    return one


def test_a_run_in_another_process_and_folder_with_other_threads_and_hashes_is_the_same_to_the_bit(here, tmp_path):
    seed = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    words = [here.data.root, tmp_path / "elsewhere" / "run", tmp_path / "outcome", "5"]
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", AGAIN, *words], check=True, cwd=ROOT, env=environment)
    assert pickle.loads((tmp_path / "outcome").read_bytes()) == outcome(here.folder)
    ours, theirs = (files.read_json(path / "provenance.json") for path in (here.folder, tmp_path / "elsewhere" / "run"))
    for start in (*ours["starts"], *theirs["starts"]):
        start.pop("time")
    assert ours == theirs


def test_a_run_tells_versions_device_seeds_data_and_code(here):
    told = files.read_json(here.folder / "provenance.json")
    assert sorted(told["data"]["cases"]) == ["01", "02", "03"]
    (start,) = told["starts"]
    assert (start["step"], start["seeds"]) == (0, [0])
    for name in ("jaxlib", "orbax-checkpoint", "grain", "nibabel"):
        assert start["versions"][name][0].isdigit()
    assert start["versions"]["jax"] == jax.__version__
    assert start["machine"]["devices"] == f"{jax.device_count()} x {jax.devices()[0].device_kind}"
    page = (here.folder / "report.html").read_text("utf-8")
    for words in (start["code_sha256"][:16], told["data"]["sha256"][:16], "machine of the training"):
        assert words in page


def test_the_hash_of_the_code_changes_with_any_of_its_files(tmp_path, monkeypatch):
    for name in ("a.py", "evaluation/b.css"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    monkeypatch.setattr(sys.modules["ivdjax"], "__path__", [str(tmp_path)])
    first = provenance.code()
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "a.pyc").write_text("compiled")
    assert provenance.code() == first
    (tmp_path / "evaluation" / "b.css").write_text("changed")
    assert provenance.code() != first


def test_the_hash_of_the_data_knows_no_settings(here, tmp_path):
    """Neither where the run and its cache lie, nor what it holds out or how it clips."""
    data = dataclasses.replace(here.data, hold_out=("01",), clip_percentiles=(2.0, 98.0), label_grid="voxels")
    cases = list(cache.build(dataset.discover(data.root, data.channels), data, tmp_path / "cache"))
    provenance.keep(tmp_path, dataclasses.replace(here, data=data), cases, 0)
    told = [files.read_json(folder / "provenance.json")["data"] for folder in (here.folder, tmp_path)]
    assert told[0] == told[1]
