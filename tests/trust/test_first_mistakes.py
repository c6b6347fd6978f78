"""The ten most likely first mistakes, made as a newcomer would make them, and what each is told."""

import contextlib
import os
import shlex
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from experiments import baseline, t2
from ivdjax import command_line
from tests.trust import verbs, world

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def here(tmp_path_factory) -> Path:
    """Where the newcomer works: scans in `tree`, masks in `masks`, a finished run in `run`."""
    folder = tmp_path_factory.mktemp("newcomer")
    with contextlib.redirect_stdout(sys.stderr):
        world.build(folder)
    return folder


def told(command: str, folder: Path, code: int) -> str:
    """The one line that a command ends with; everything must be as it was."""
    before = world.state(folder)
    outcome = verbs.call(shlex.split(command), folder)
    assert outcome.crash is None
    assert (outcome.code, outcome.err.count("\n")) == (code, 1), outcome.err
    assert world.state(folder) == before
    return outcome.err.strip().replace(f"{folder}/", "")


def told_by(experiment, words: str, folder: Path, monkeypatch, capsys) -> str:
    """The one line that a module of `experiments` ends with."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["", *shlex.split(words)])
    before = world.state(folder)
    with pytest.raises(SystemExit) as stop:
        command_line.experiment(experiment, "")
    line = capsys.readouterr().err
    assert (stop.value.code in (1, 2), line.count("\n")) == (True, 1), line
    assert world.state(folder) == before
    return line.strip()


def test_1_a_slip_in_a_path(here):
    assert told("predict --weights default tere new_masks", here, 1) == (
        "ivdjax: tere: no such folder; did you mean tree?; pass the folder of the cases"
    )


def test_2_the_folder_of_one_case_to_train_on(here, monkeypatch, capsys):
    words = "--data.root tree/01 --data.channels fat wat"
    assert told_by(baseline.experiment(), words, here, monkeypatch, capsys) == (
        "ivdjax: --data.root tree/01: holds scans of one subject only (01), and another must be held out; pass the "
        "folder of all cases"
    )


def test_3_no_root_where_the_phantom_has_no_such_channel(here, monkeypatch, capsys):
    assert told_by(t2.experiment(), "", here, monkeypatch, capsys) == (
        "ivdjax: --data.root: name the folder with the cases; the phantom has no channel t2"
    )


def test_4_other_names_of_channels(here):
    assert told("measure masks --case tree --channels F W", here, 1) == (
        "ivdjax: tree: no case with F, W (layouts looked for: NAME/NAME_<channel>.nii[.gz], dataset/ beside label/, "
        "train/NAME beside train/labels/, <channel>.nii[.gz]); found channels fat, wat: pass --channels fat wat"
    )


def test_5_the_scans_before_the_run(here):
    assert told("predict tree run new_masks", here, 2) == (
        "ivdjax: predict: run is a run's folder and tree is not; RUN comes first, then INPUT"
    )


def test_6_the_references_before_the_predictions(here, tmp_path):
    outcome = verbs.call(["evaluate", "tree", "masks", "--out", str(tmp_path / "scores")], here)
    # What anybody's masks are called is theirs, so it is done and told.
    assert (outcome.code, outcome.err) == (
        0,
        "tree: its masks are named as references are, those of masks are not; PREDICTIONS come first, then "
        "REFERENCES\n",
    )


def test_7_without_the_environment(tmp_path):
    venv.create(tmp_path / "bare", symlinks=True)
    python = tmp_path / "bare" / "bin" / "python"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [python, "-m", "experiments.quickstart"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"ivdjax: {python} has no jax, so it is not the Python that ivdjax was installed for; activate that "
        "environment (source .venv/bin/activate), or install ivdjax here (pip install -e .)\n"
    )


def test_8_a_finished_run_again_with_other_settings(here):
    assert told("python -m experiments.tiny --run-dir run --train.steps 500", here, 2) == (
        "ivdjax: run: holds a run with other settings (train.steps was 2, now 500); choose another folder with "
        "--run-dir"
    )


def test_9_a_folder_of_dicom(here):
    scans = here / "dicom" / "series1"
    scans.mkdir(parents=True)
    for number in range(3):
        (scans / f"IM{number:04d}").write_bytes(bytes(128) + b"DICM" + bytes(100))
    try:
        assert told("predict --weights default dicom new_masks --channels wat", here, 1) == (
            "ivdjax: dicom: holds DICOM files (series1/IM0000), no NIfTI; convert them first, as dcm2niix does"
        )
    finally:
        shutil.rmtree(here / "dicom")


def test_10_labels_in_a_place_of_their_own(here):
    shutil.copytree(here / "tree", here / "scans", ignore=shutil.ignore_patterns("*_Labels*"))
    try:
        line = told("python -m experiments.tiny --run-dir new --data.root scans", here, 1)
    finally:
        shutil.rmtree(here / "scans")
    assert line == (
        "ivdjax: scans/01: case 01 has no label to learn from or to score; add 01_Labels.nii.gz, here or in any folder "
        "of --data.root"
    )
