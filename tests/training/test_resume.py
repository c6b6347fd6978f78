"""Killed runs, with real processes: what they leave must be enough to end as if nothing had happened."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import nibabel as nib
import numpy as np
import pytest

from ivdjax import trained
from ivdjax.training.checkpoint import Checkpoints

ROOT = Path(__file__).parents[2]
STEPS = 40
# How often the run of the last test is killed; more, if asked for.
KILLS = int(os.environ.get("IVDJAX_KILLS", "5"))


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("tree")
    rng = np.random.default_rng(0)
    affine = np.diag([2.0, -1.25, -1.25, 1.0])[[0, 2, 1, 3]]
    for name in ("01", "02", "03"):
        label = np.zeros((6, 32, 32), np.uint8)
        label[1:5, 4:12, 8:24] = label[1:5, 18:26, 8:24] = 1
        image = (100 + 300 * label.astype(int) + rng.normal(0, 50, label.shape)).clip(0).astype(np.int16)
        (root / name).mkdir()
        nib.save(nib.Nifti1Image(image, affine), root / name / f"{name}_t2.nii.gz")
        nib.save(nib.Nifti1Image(label, affine), root / name / f"{name}_Labels.nii.gz")
    return root


def start(tree, folder, **more):
    settings = {
        "--data.root": tree,
        "--run-dir": folder,
        "--data.hold-out": "03",
        "--data.window": "24 24",
        "--data.slices": 3,
        "--model.features": "4 8",
        "--train.steps": STEPS,
        "--train.batch-size": 4,
        "--train.log-every": 1,
        "--train.validate-every": 15,
        "--train.checkpoint-every": 4,
        **{"--" + name.replace("__", ".").replace("_", "-"): value for name, value in more.items()},
    }
    words = [word for name, value in settings.items() for word in (name, *str(value).split())]
    return subprocess.Popen(
        [sys.executable, "-m", "experiments.t2", *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process):
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    return output


def logged_steps(folder):
    path = folder / "log.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return [row["step"] for row in map(json.loads, lines) if row["kind"] == "train"]


def last_state(folder):
    checkpoints = Checkpoints(folder / "checkpoints", read_only=True)
    return trained.read_states(trained.read_experiment(folder), checkpoints, checkpoints.latest)


def test_a_run_killed_at_random_steps_ends_bit_for_bit_as_one_that_was_not(tree, tmp_path):
    finish(start(tree, tmp_path / "whole"))

    seed = random.randrange(2**32)
    print(f"kills drawn with seed {seed}")
    for kill_after in sorted(random.Random(seed).sample(range(1, STEPS - 2), 2)):
        process = start(tree, tmp_path / "killed")
        while process.poll() is None and max(logged_steps(tmp_path / "killed"), default=0) < kill_after:
            time.sleep(0.005)
        process.kill()
        process.communicate()
        assert not (tmp_path / "killed" / "report.html").exists()
    finish(start(tree, tmp_path / "killed"))

    whole, killed = (last_state(tmp_path / name) for name in ("whole", "killed"))
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(killed), strict=True):
        np.testing.assert_array_equal(a, b)
    assert logged_steps(tmp_path / "killed") == list(range(1, STEPS + 1))
    masks = [nib.load(tmp_path / name / "predictions" / "03.nii.gz").get_fdata() for name in ("whole", "killed")]
    np.testing.assert_array_equal(*masks)

    assert "Finished already" in finish(start(tree, tmp_path / "killed"))
    other = subprocess.run(
        [sys.executable, "-m", "experiments.t2", "--data.root", tree, "--run-dir", tmp_path / "killed", "--seed", "7"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert other.returncode == 2
    assert "seed was 0, now 7" in other.stderr


def test_a_run_killed_again_and_again_loses_nothing_that_was_saved(tree, tmp_path):
    """By SIGTERM and SIGKILL, while starting, training, saving, restoring and scoring."""
    seed = random.randrange(2**32)
    print(f"kills drawn with seed {seed}")
    chance = random.Random(seed)
    folder, every = tmp_path / "run", 2
    often = {"train__checkpoint_every": every, "train__validate_every": 0}
    for _ in range(KILLS):
        process = start(tree, folder, **often)
        began, before = time.monotonic(), max(logged_steps(folder), default=0)
        if chance.random() < 0.25:
            time.sleep(8 * chance.random())  # wherever that may be
        else:
            wanted = min(before + 1 + chance.randrange(2 * every), STEPS)
            while process.poll() is None and max(logged_steps(folder), default=0) < wanted:
                assert time.monotonic() - began < 120
                time.sleep(0.002)
            time.sleep(0.05 * chance.random())
        how = chance.choice([signal.SIGTERM, signal.SIGKILL])
        process.send_signal(how)
        output, _ = process.communicate(timeout=120)
        # Before Python has set its handler, SIGTERM stops as it always does; the run may have ended just before.
        assert process.returncode in ({75, -how, 0} if how == signal.SIGTERM else {-how, 0}), output
        steps = max(logged_steps(folder), default=0)
        saved = [int(path.name) for path in (folder / "checkpoints").glob("[0-9]*") if path.name.isdecimal()]
        if process.returncode == 75 and "is saved" in output:
            assert f"step {max(saved)} is saved" in output
            assert max(saved) >= steps
        # One checkpoint may be on its way while the next steps are made.
        assert max(saved, default=0) >= steps - 2 * every
        for step in saved:
            checkpoints = Checkpoints(folder / "checkpoints", read_only=True)
            trained.read_states(trained.read_experiment(folder), checkpoints, step)
    finish(start(tree, folder, **often))
    assert logged_steps(folder) == list(range(1, STEPS + 1))
    finish(start(tree, tmp_path / "whole", **often))
    for a, b in zip(jax.tree.leaves(last_state(tmp_path / "whole")), jax.tree.leaves(last_state(folder)), strict=True):
        np.testing.assert_array_equal(a, b)
