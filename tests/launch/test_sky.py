"""What a cloud machine runs: copies that are whole whenever it is lost, and the options of a run on several nodes."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# A run in small: steps counted in checkpoints, each made beside and renamed, the older one then deleted. SIGTERM: 75.
WORKER = """
set -eu
folder=$1 steps=$2
mkdir -p "$folder/checkpoints"
done=$(ls "$folder/checkpoints" | sort -n | tail -1)
done=${done:-0}
trap 'echo saved >"$folder/saved"; exit 75' TERM
while [ "$done" -lt "$steps" ]; do
  next=$((done + 1))
  rm -rf "$folder/checkpoints/tmp" && mkdir "$folder/checkpoints/tmp"
  for part in 1 2 3; do echo "$next" >"$folder/checkpoints/tmp/$part"; done
  echo "$next" >>"$folder/log"
  mv "$folder/checkpoints/tmp" "$folder/checkpoints/$next"
  rm -rf "$folder/checkpoints/$done"
  done=$next
  sleep 0.05
done
"""


def mirrored(folder, copies, *command, seconds=0.05):
    return subprocess.Popen(
        ["bash", ROOT / "launch" / "mirrored.sh", folder, copies, *map(str, command)],
        env={**os.environ, "IVDJAX_MIRROR_SECONDS": str(seconds)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def newest(copies):
    """The newest copy that is whole."""
    numbers = {int(path.read_text() or 0): path.stem for path in copies.glob("*.complete")}
    return copies / numbers[max(numbers)]


def whole_step(copies):
    """The last step of the newest copy, which must be there with all its parts."""
    copy = newest(copies)
    steps = [int(path.name) for path in (copy / "checkpoints").iterdir() if path.name != "tmp"]
    parts = {(copy / "checkpoints" / str(max(steps)) / part).read_text() for part in "123"}
    assert parts == {f"{max(steps)}\n"}
    assert max(steps) in [int(line) for line in (copy / "log").read_text().split()]
    return max(steps)


def wait_for(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_what_was_written_is_copied_when_the_command_ends(tmp_path):
    process = mirrored(
        tmp_path / "run", tmp_path / "copies", "bash", "-c", WORKER, "-", tmp_path / "run", 3, seconds=60
    )
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
    assert whole_step(tmp_path / "copies") == 3


@pytest.mark.parametrize("code", [1, 2, 130])
def test_the_commands_exit_code_is_kept(tmp_path, code):
    process = mirrored(tmp_path / "run", tmp_path / "copies", "bash", "-c", f"exit {code}")
    process.communicate(timeout=60)
    assert process.returncode == code


def logged(folder):
    """Steps in the log; what was done again after a loss stands there twice."""
    log = folder / "log"
    return list(dict.fromkeys(int(line) for line in log.read_text().split())) if log.exists() else []


def lose_a_machine(folder, copies, steps):
    """Start a run on a machine, and end it at once after so many steps and two copies; returns what was said."""
    before = {path.name: path.read_text() for path in copies.glob("*.complete")}
    process = mirrored(folder, copies, "bash", "-c", WORKER, "-", folder, 1000)
    wait_for(lambda: len(logged(folder)) >= steps)
    wait_for(lambda: sum(path.read_text() != before.get(path.name) for path in copies.glob("*.complete")) == 2)
    os.killpg(process.pid, signal.SIGKILL)
    return process.communicate(timeout=60)[1]


def test_a_machine_lost_at_any_time_leaves_a_whole_copy_to_go_on_from(tmp_path):
    copies, reached = tmp_path / "bucket", 0
    for machine in range(3):
        folder = tmp_path / f"machine{machine}" / "run"
        said = lose_a_machine(folder, copies, reached + 3)
        assert ("going on from" in said) == (machine > 0)
        assert logged(folder)[:reached] == list(range(1, reached + 1))
        assert whole_step(copies) >= reached
        reached = whole_step(copies)
    assert reached > 3


def test_sigterm_reaches_the_command_whose_last_words_are_copied(tmp_path):
    folder, copies = tmp_path / "run", tmp_path / "copies"
    process = mirrored(folder, copies, "bash", "-c", WORKER, "-", folder, 1000, seconds=60)
    wait_for(lambda: (folder / "checkpoints" / "2").exists())
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 75
    assert (newest(copies) / "saved").exists()


def test_copies_that_cannot_be_written_fail_the_run_in_one_line(tmp_path):
    run, copies = tmp_path / "run", tmp_path / "copies"
    (copies / "a.complete").mkdir(parents=True)  # in the way
    process = mirrored(run, copies, "bash", "-c", f"mkdir {run}; touch {run}/a", seconds=60)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "could not be written to" in errors.splitlines()[-1]


def test_one_node_works_on_its_disk(sky, tmp_path):
    home = tmp_path / "home"
    words = ["--run-dir", f"{home}/runs/t2", "--data.cache", f"{home}/cache/t2"]
    assert sky("t2", "--seed", "3", SKYPILOT_NUM_NODES="1") == ["python", "-m", "experiments.t2", "--seed", "3", *words]


def test_several_nodes_meet_at_the_first(sky, tmp_path):
    cluster = {"SKYPILOT_NUM_NODES": "2", "SKYPILOT_NODE_IPS": "10.0.0.5\n10.0.0.6", "SKYPILOT_NODE_RANK": "1"}
    assert sky("t2", RUN="mine", **cluster) == [
        *("python", "-m", "experiments.t2", "--run-dir", f"{tmp_path}/runs/mine"),
        *("--distributed", "10.0.0.5:8476", "--processes", "2", "--process", "1"),
    ]
