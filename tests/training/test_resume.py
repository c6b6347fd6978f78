"""Killed runs, with real processes: what they leave must be enough to end as if nothing had happened."""

import os
import random
import signal
import time

import jax
import nibabel as nib
import numpy as np

from ivdjax import trained
from ivdjax.training.checkpoint import Checkpoints
from tests.runs import ended, losses, start

STEPS = 40
# How often the run is killed; more, if asked for.
KILLS = int(os.environ.get("IVDJAX_KILLS", "2"))


def last_state(folder):
    checkpoints = Checkpoints(folder / "checkpoints", read_only=True)
    return trained.read_states(trained.read_experiment(folder), checkpoints, checkpoints.latest)


def test_a_run_killed_again_and_again_ends_bit_for_bit_as_one_that_was_not(tree, tmp_path):
    """By SIGTERM and SIGKILL, while starting, training, saving, restoring and scoring; what was saved is never lost."""
    seed = random.randrange(2**32)
    print(f"kills drawn with seed {seed}")
    chance = random.Random(seed)
    folder, every = tmp_path / "run", 2
    often = {"train.steps": STEPS, "train.validate-every": 15, "train.checkpoint-every": every}
    for _ in range(KILLS):
        process = start(tree, folder, often)
        began, before = time.monotonic(), max(losses(folder), default=0)
        if chance.random() < 0.25:
            time.sleep(8 * chance.random())  # wherever that may be
        else:
            wanted = min(before + 1 + chance.randrange(2 * every), STEPS)
            while process.poll() is None and max(losses(folder), default=0) < wanted:
                assert time.monotonic() - began < 120
                time.sleep(0.002)
            time.sleep(0.05 * chance.random())
        how = chance.choice([signal.SIGTERM, signal.SIGKILL])
        process.send_signal(how)
        output, _ = process.communicate(timeout=120)
        # Before Python has set its handler, SIGTERM stops as it always does; the run may have ended just before.
        assert process.returncode in ({75, -how, 0} if how == signal.SIGTERM else {-how, 0}), output
        steps = max(losses(folder), default=0)
        saved = [int(path.name) for path in (folder / "checkpoints").glob("[0-9]*") if path.name.isdecimal()]
        if process.returncode == 75 and "is saved" in output:
            assert f"step {max(saved)} is saved" in output
            assert max(saved) >= steps
        # One checkpoint may be on its way while the next steps are made.
        assert max(saved, default=0) >= steps - 2 * every
        for step in saved:
            checkpoints = Checkpoints(folder / "checkpoints", read_only=True)
            trained.read_states(trained.read_experiment(folder), checkpoints, step)
    assert ended(start(tree, folder, often)) == [0]
    assert list(losses(folder)) == list(range(1, STEPS + 1))
    assert ended(start(tree, tmp_path / "whole", often)) == [0]
    for a, b in zip(jax.tree.leaves(last_state(tmp_path / "whole")), jax.tree.leaves(last_state(folder)), strict=True):
        np.testing.assert_array_equal(a, b)
    masks = [nib.load(run / "predictions" / "03.nii.gz").get_fdata() for run in (tmp_path / "whole", folder)]
    np.testing.assert_array_equal(*masks)

    again = start(tree, folder, often)
    assert "Finished already" in again.communicate(timeout=240)[0]
    assert again.returncode == 0
    other = start(tree, folder, {**often, "seed": 7})
    assert "seed was 0, now 7" in other.communicate(timeout=240)[0]
    assert other.returncode == 2
