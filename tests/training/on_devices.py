"""Train tiny networks on as many devices as this process is given, for tests that compare what comes out.

    python -m tests.training.on_devices FOLDER NAME=SETTINGS... [--distributed HOST:PORT PROCESSES PROCESS]

SETTINGS are those of `trainings`, as JSON; the run NAME is written to FOLDER/NAME.
"""

import json
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import jax

from ivdjax.config import Augment, Data, Experiment, Optimizer, Predict, Train
from ivdjax.data.splits import Member
from ivdjax.errors import Preempted
from ivdjax.models import UNet
from ivdjax.training import distributed, loop
from tests.conftest import made_case

MEMBERS = [Member((0, 1), (2,), 0), Member((1, 2), (0,), 0), Member((0, 2), (1,), 0), Member((0, 1), (2,), 5)]


def tiny(steps: int = 20, **train) -> Experiment:
    return Experiment(
        name="tiny",
        model=UNet(features=(4, 8)),
        data=Data(channels=("t2",), slices=3, window=(24, 24), threads=1),
        # What remains draws random numbers enough, and compiles in a few seconds.
        augment=Augment(swap=0, decay=0, bias=0, blur_voxels=0, blur_through=0, log_gamma=0),
        optimizer=Optimizer(learning_rate=2e-3, warmup_steps=5),
        train=Train(**{"steps": steps, "batch_size": 8, "log_every": 1, "validate_every": 0, **train}),
        predict=Predict(flip=False),
    )


def run(folder: Path, members=(0,), residency: str = "auto", until: int | None = None, **train) -> None:
    """Train some of MEMBERS side by side; `until` stops as a preemption would, with a checkpoint there."""
    experiment = tiny(**train)
    experiment = replace(experiment, data=replace(experiment.data, residency=residency))
    cases = [made_case(seed) for seed in range(3)]
    with patch.object(loop.preemption, "deferred", lambda: nullcontext(lambda step: step == until)):
        try:
            loop.train(experiment, [MEMBERS[i] for i in members], cases, folder)
        except Preempted:
            assert until is not None


if __name__ == "__main__":
    words = sys.argv[1:]
    if "--distributed" in words:
        at = words.index("--distributed")
        distributed.start(words[at + 1], int(words[at + 2]), int(words[at + 3]))
        words = words[:at]
    folder, *runs = words
    for each in runs:
        name, _, settings = each.partition("=")
        run(Path(folder) / name, **json.loads(settings or "{}"))
    print(jax.device_count(), "devices,", jax.process_count(), "processes")
