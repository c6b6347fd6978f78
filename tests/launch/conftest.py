import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def sky(tmp_path):
    """Runs launch/sky.sh in a copy of the launchers whose local.sh prints the command; returns its words."""

    def task(*words, **environment):
        shutil.copytree(ROOT / "experiments", tmp_path / "experiments", dirs_exist_ok=True)
        shutil.copytree(ROOT / "launch", tmp_path / "launch", dirs_exist_ok=True)
        (tmp_path / "launch" / "local.sh").write_text('echo "${@@Q}"\n')
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SKYPILOT_")}
        done = subprocess.run(
            ["bash", tmp_path / "launch" / "sky.sh", *words],
            env={**kept, "HOME": str(tmp_path / "home"), "RUNS": str(tmp_path / "runs"), **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return shlex.split(done.stdout)

    return task
