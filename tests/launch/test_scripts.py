"""Every script of launch/: that the shell can read it, and what it says to wrong use."""

import subprocess
from pathlib import Path

import pytest

LAUNCH = Path(__file__).parents[2] / "launch"
SCRIPTS = [path for path in sorted(LAUNCH.iterdir()) if path.is_file() and path.read_bytes().startswith(b"#!")]


def test_all_scripts_are_found():
    names = {path.name for path in SCRIPTS}
    assert names == {"challenge-run", "local.sh", "mirrored.sh", "sky.sh", "slurm.sh"}


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_bash_that_parses_and_stops_at_errors(path):
    assert path.read_text().startswith("#!/usr/bin/env bash\n")
    assert "\nset -euo pipefail\n" in path.read_text()
    done = subprocess.run(["bash", "-n", path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", ["local.sh", "mirrored.sh", "sky.sh", "slurm.sh"])
def test_a_script_without_arguments_says_how_it_is_used(name):
    done = subprocess.run(["bash", LAUNCH / name], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert f"launch/{name}" in done.stderr


def test_what_the_image_runs_can_be_run():
    assert (LAUNCH / "challenge-run").stat().st_mode & 0o111 == 0o111
