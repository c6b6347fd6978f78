"""Runs that something befalls: they stop with one clear line, or go on, and end as if nothing had happened.

IVDJAX_FAULTS=500 injects so many, at random places; the seed that a failure prints, given as IVDJAX_FAULTS_SEED, draws
the same again.
"""

import os
import random
import shutil
import subprocess

import pytest

from tests.trust.faults import FAULTS, command, experiment, outcome

NUMBER = int(os.environ.get("IVDJAX_FAULTS", "0"))
SEED = int(os.environ.get("IVDJAX_FAULTS_SEED", "0")) or random.randrange(1, 2**32)
# Each once, or as many as are asked for.
NAMES = [
    name for _, name in zip(range(NUMBER or len(FAULTS)), (NUMBER // len(FAULTS) + 1) * list(FAULTS), strict=False)
]


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
    if code or not (one.folder / "report.html").exists():
        assert command(one) == 0
    assert outcome(one.folder) == expected
    shutil.rmtree(one.folder)
