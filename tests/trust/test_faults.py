"""Runs that something befalls: they stop with one clear line, or go on, and end as if nothing had happened.

IVDJAX_FAULTS=500 injects so many, of all kinds and at random places (`python -m tests.trust` asks for 200); the seed
that a failure prints, given as IVDJAX_FAULTS_SEED, draws the same again.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from unittest.mock import patch

import jax
import numpy as np
import pytest

from ivdjax import files, lock, run_folder, trained
from ivdjax.errors import DataError, UsageError
from ivdjax.training import loop
from ivdjax.training.checkpoint import Checkpoints
from tests.runs import ended, free_port, losses, start
from tests.trust.faults import EVERY, FAULTS, STEPS, command, damage, experiment, outcome

NUMBER = int(os.environ.get("IVDJAX_FAULTS", "0"))
SEED = int(os.environ.get("IVDJAX_FAULTS_SEED", "0")) or (random.randrange(1, 2**32) if NUMBER else 1)
ALWAYS = (
    *("disk full: cache", "disk full: save", "disk full: amid a save", "disk full: predict"),
    *("disk fails", "clock jumps", "checkpoint damaged"),
)
NAMES = (NUMBER // len(FAULTS) * list(FAULTS) + list(FAULTS)[: NUMBER % len(FAULTS)]) if NUMBER else ALWAYS


@pytest.fixture(scope="module")
def undisturbed(tree, tmp_path_factory):
    one = experiment(tree, tmp_path_factory.mktemp("undisturbed") / "run")
    assert command(one) == 0
    return one.folder


@pytest.fixture(scope="module")
def expected(undisturbed):
    return outcome(undisturbed)


@pytest.fixture(scope="module")
def disk(tmp_path_factory):
    """A small file system of its own, which a test may fill."""
    folder = tmp_path_factory.mktemp("disk")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root can make a file system to fill")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


# The threads of a save that fails complain of each other where nobody listens.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(("number", "name"), list(enumerate(NAMES)), ids=str)
def test_a_run_stops_with_one_line_or_goes_on_and_ends_as_one_that_nothing_befell(
    number, name, tree, expected, tmp_path, capfd, request
):
    print(f"IVDJAX_FAULTS_SEED={SEED}")
    chance = random.Random(f"{SEED} {number}")
    home = request.getfixturevalue("disk") if name.startswith("disk full") else tmp_path
    one = experiment(tree, home / "run")
    with FAULTS[name](one, chance) as (codes, told):
        capfd.readouterr()
        code = command(one)
        lines = [line for line in capfd.readouterr().err.splitlines() if line]
    assert code in codes, lines
    if code:
        assert len(lines) == 1, lines
        assert lines[0].startswith("ivdjax: ")
        assert told in lines[0]
    if code:
        if name == "disk full: amid a save":
            time.sleep(1)  # until threads of the failed save have ended, as they would have with a process of their own
        assert command(one) == 0
    assert outcome(one.folder) == expected
    shutil.rmtree(one.folder)


def state_of(folder):
    checkpoints = Checkpoints(folder / "checkpoints", read_only=True)
    return trained.read_states(trained.read_experiment(folder), checkpoints, checkpoints.latest)


def test_a_damaged_checkpoint_is_read_as_it_was_or_refused(undisturbed, tmp_path):
    """A bit or more of any of its files; what Orbax keeps twice may be damaged once."""
    print(f"IVDJAX_FAULTS_SEED={SEED}")
    chance, refused = random.Random(SEED), 0
    whole = tree_bytes(state_of(undisturbed))
    inside = undisturbed / "checkpoints" / str(STEPS)
    names = [path.relative_to(undisturbed) for path in sorted(inside.rglob("*")) if path.is_file()]
    # The tensors themselves are the largest; Orbax alone reads a flipped bit of theirs as a number like any other.
    largest = max(names, key=lambda name: (undisturbed / name).stat().st_size)
    for number, name in enumerate(chance.choices([*names, *[largest] * 8], k=max(12, NUMBER))):
        folder = tmp_path / str(number)
        shutil.copytree(undisturbed / "checkpoints", folder / "checkpoints")
        shutil.copy(undisturbed / "config.json", folder)
        damage(folder / name, chance)
        found = state_or_refusal(folder)
        if isinstance(found, str):
            refused += 1
            assert f"checkpoints/{STEPS}: " in found
            assert "\n" not in found
        else:
            assert tree_bytes(found) == whole, name
        shutil.rmtree(folder)
    assert refused


def state_or_refusal(folder):
    try:
        return state_of(folder)
    except DataError as error:
        return str(error)


def tree_bytes(tree):
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_without_a_sound_checkpoint_nothing_is_moved_and_one_line_says_what_to_do(undisturbed, tmp_path, capfd):
    folder = tmp_path / "run"
    shutil.copytree(undisturbed, folder)
    (folder / "report.html").unlink()
    for step in (STEPS, STEPS - EVERY):
        (folder / "checkpoints" / str(step) / "state" / "manifest.ocdbt").write_bytes(b"")
    before = sorted(folder.rglob("*"))
    one = replace(trained.read_experiment(folder), run_dir=folder)
    assert command(one) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert f"checkpoints/{STEPS}: is damaged" in line
    assert f"remove {folder / 'checkpoints'} to begin anew" in line
    assert sorted(folder.rglob("*")) == before


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_damaged_checkpoint_is_put_aside_and_the_one_before_goes_on(undisturbed, expected, tmp_path, caplog):
    folder = tmp_path / "run"
    shutil.copytree(undisturbed, folder)
    (folder / "report.html").unlink()
    (folder / "checkpoints" / str(STEPS) / "data" / "metadata").write_text('{"next_index": 3}')
    assert command(replace(trained.read_experiment(folder), run_dir=folder)) == 0
    (line,) = [record.getMessage() for record in caplog.records if record.name == "ivdjax"]
    assert f"checkpoints/{STEPS}: is damaged (the position in the data" in line
    assert f"put aside as damaged-{STEPS}, going on from step {STEPS - EVERY}" in line
    assert (folder / "checkpoints" / f"damaged-{STEPS}" / "data" / "metadata").exists()
    assert outcome(folder) == expected


def test_scans_that_have_changed_since_a_run_began_are_refused(undisturbed, tree, tmp_path, capfd):
    folder, scans = tmp_path / "run", tmp_path / "tree"
    shutil.copytree(undisturbed, folder)
    (folder / "report.html").unlink()
    shutil.copytree(tree, scans)
    shutil.copy(scans / "01" / "01_t2.nii.gz", scans / "02" / "02_t2.nii.gz")
    one = experiment(scans, folder)
    settings = files.read_json(folder / "config.json")
    settings["data"]["root"] = str(scans.resolve())
    files.write_json(folder / "config.json", settings)
    assert command(one) == 2
    assert "was begun with other scans or masks (02 changed since)" in capfd.readouterr().err
    # Elsewhere they are the same scans.
    shutil.copy(tree / "02" / "02_t2.nii.gz", scans / "02")
    assert command(one) == 0
    told = files.read_json(folder / "provenance.json")
    assert [start["step"] for start in told["starts"]] == [0, STEPS]


def test_a_second_command_in_a_folder_is_refused_and_one_that_is_finished_needs_no_lock(undisturbed, tmp_path, capfd):
    folder = tmp_path / "run"
    shutil.copytree(undisturbed, folder)
    one = replace(trained.read_experiment(folder), run_dir=folder)
    with run_folder.at_work(folder):
        assert command(one) == 0
        (folder / "report.html").unlink()
        capfd.readouterr()
        assert command(one) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert "another command is at work in it; let it end, or choose another folder with --run-dir (process " in line


def test_a_killed_command_leaves_no_lock(tmp_path):
    held = "import sys, time; from ivdjax.lock import held\nwith held(__import__('pathlib').Path(sys.argv[1]), 'x'):\n"
    holder = subprocess.Popen(
        [sys.executable, "-c", f"{held}    print('held', flush=True); time.sleep(60)", tmp_path / ".lock"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(UsageError, match=rf"busy \(process {holder.pid} on "), lock.held(tmp_path / ".lock", "busy"):
        pass
    holder.kill()
    holder.communicate()
    with lock.held(tmp_path / ".lock", "busy"):
        assert (tmp_path / ".lock").read_text().startswith(f"process {os.getpid()} on ")


def test_weights_that_are_no_numbers_are_neither_saved_nor_read(tree, undisturbed, tmp_path, capfd):
    one = experiment(tree, tmp_path / "run")
    wild = replace(one.optimizer, learning_rate=1e30, clip_norm=1e30, weight_decay=0.0, warmup_steps=0)
    assert command(replace(one, optimizer=wild)) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert "the loss is not a finite number any more at step" in line
    assert "choose a lower --optimizer.learning-rate, and another --run-dir" in line
    assert all(np.isfinite(loss) for loss in losses(one.folder).values())
    for path in (one.folder / "checkpoints").glob("[0-9]*"):
        states = trained.read_states(one, Checkpoints(one.folder / "checkpoints", read_only=True), int(path.name))
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(states[0].params))
    shutil.copytree(undisturbed, tmp_path / "spoilt")
    read = trained.read_states
    spoilt = patch.object(trained, "read_states", lambda *_: [replace(s, mean_params=nan(s)) for s in read(*_)])
    with spoilt, pytest.raises(DataError, match="holds weights that are not finite; train again"):
        trained.load(tmp_path / "spoilt")


def nan(state):
    return jax.tree.map(lambda leaf: np.full_like(leaf, np.nan), state.mean_params)


def test_what_does_not_fit_into_memory_leaves_the_folder_free(tree, tmp_path, capfd):
    one = experiment(tree, tmp_path / "run")

    def full(*_):
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 92997633744 bytes.")

    with patch.object(loop, "_loop", full):
        assert command(one) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert "out of memory; choose a smaller --train.batch-size" in line
    assert command(replace(one, train=replace(one.train, batch_size=2))) == 0


def test_a_command_leaves_the_handling_of_sigterm_as_it_was(undisturbed):
    before = signal.getsignal(signal.SIGTERM)
    assert command(replace(trained.read_experiment(undisturbed), run_dir=undisturbed)) == 0
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.skipif(not NUMBER, reason="a minute of processes; IVDJAX_FAULTS asks for it")
@pytest.mark.parametrize("signalled", [(0,), (1,), (0, 1)])
@pytest.mark.parametrize("where", ["splits.json", "provenance.json", "predictions", "scores.csv"])
def test_two_processes_that_are_told_to_stop_outside_the_training_stop_together(tree, tmp_path, where, signalled):
    folder = tmp_path / "run"

    def both():
        host = f"127.0.0.1:{free_port()}"
        return [
            start(tree, folder, {"train.steps": 4}, "--distributed", host, "--processes", 2, "--process", process)
            for process in range(2)
        ]

    pair = both()
    while not (folder / where).exists() and all(process.poll() is None for process in pair):
        time.sleep(0.005)
    for number in signalled:
        pair[number].send_signal(signal.SIGTERM)
    assert ended(*pair) in ([75, 75], [0, 0])  # the run may have been about to end
    assert ended(*both()) == [0, 0]
    assert (folder / "report.html").exists()
