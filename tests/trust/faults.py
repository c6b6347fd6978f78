"""Faults to inject into a run, each at a place that chance picks, and what a run is expected to say of them.

A fault is a context manager: within it the run is disturbed, after it the fault is gone. It yields the exit codes that
are right, and what the line on stderr must say where the run stops.
"""

import errno
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from unittest.mock import patch

import jax
import nibabel as nib
import numpy as np

from ivdjax import command_line, run, run_folder, trained
from ivdjax.config import Augment, Data, Experiment, Predict, Train
from ivdjax.data import stacks
from ivdjax.evaluation import evaluate
from ivdjax.models import UNet
from ivdjax.training import checkpoint, loop, preemption
from ivdjax.training.checkpoint import Checkpoints
from tests.runs import losses

STEPS, EVERY = 8, 2
Expected = tuple[set[int], str]


def experiment(tree: Path, folder: Path) -> Experiment:
    """A run of a few steps whose batches threads of the host cut, so that files are read all the time."""
    still = dict.fromkeys(("swap", "decay", "bias", "blur_voxels", "blur_through", "log_gamma"), 0.0)
    return Experiment(
        name="tiny",
        model=UNet(features=(4, 8)),
        run_dir=folder,
        data=Data(
            root=tree,
            channels=("t2",),
            subjects="single",
            slices=3,
            window=(24, 24),
            hold_out=("03",),
            residency="host",
        ),
        augment=Augment(**still),
        train=Train(steps=STEPS, batch_size=4, log_every=1, checkpoint_every=EVERY, validate_every=0),
        predict=Predict(flip=False),
    )


def command(one: Experiment) -> int:
    """Run an experiment as its command does; the exit code."""

    def work() -> int:
        preemption.stop_on_sigterm()
        run.run(one)
        return 0

    try:
        command_line.end(work)
    except SystemExit as ended:
        return ended.code


def outcome(folder: Path) -> dict[str, object]:
    """All that must not depend on faults: the state after the last step, losses, masks and scores."""
    checkpoints = Checkpoints(folder / "checkpoints", read_only=True)
    states = trained.read_states(trained.read_experiment(folder), checkpoints, STEPS)
    masks = {path.name: nib.load(path).get_fdata().tobytes() for path in (folder / "predictions").iterdir()}
    scores = [(folder / name).read_text() for name in ("scores.csv", "calibration.json", "splits.json")]
    leaves = [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(states)]
    return {"state": leaves, "losses": losses(folder), "masks": masks, "scores": scores}


@contextmanager
def before(owner: object, name: str, fault: Callable[[], None], when: Callable[..., bool] = lambda *_: True):
    """Let a function of a module or class begin with a fault, the first time that `when` is true of its arguments."""
    original, due = getattr(owner, name), [True]

    def disturbed(*args, **kwargs):
        if due and when(*args):
            due.clear()
            fault()
        return original(*args, **kwargs)

    with patch.object(owner, name, disturbed):
        yield


def at_a_step(chance: random.Random, fault: Callable[[], None]):
    """A fault between two steps of the training."""
    step = chance.randrange(1, STEPS)
    return before(loop.Logbook, "advance", fault, lambda _, reached: reached == step)


# Where a run is when something befalls it. The room for a checkpoint is found before Orbax saves it, so amid a save
# Orbax itself meets the full disk.
PLACES: dict[str, tuple[object, str]] = {
    "cache": (run, "_read"),
    "provenance": (run.provenance, "keep"),
    "log": (loop.Logbook, "train"),
    "save": (Checkpoints, "save"),
    "amid a save": (checkpoint.ocp.CheckpointManager, "save"),
    "predict": (run, "_predict"),
    "scores": (evaluate, "evaluate"),
    "report": (run, "write_report"),
}


@contextmanager
def full_disk(place: str, one: Experiment, chance: random.Random) -> Iterator[Expected]:
    """The file system of the run's folder, a small one of its own, is full but for some bytes."""
    disk = one.folder.parent
    hog = disk / "hog"
    left = chance.choice([0, 0, 4096 * chance.randrange(12)])

    def fill() -> None:
        free = os.statvfs(disk)
        with hog.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(1, free.f_bavail * free.f_frsize - left))

    with before(*PLACES[place], fill):
        yield {0, 1} if left else {1}, os.strerror(errno.ENOSPC)
    hog.unlink(missing_ok=True)


@contextmanager
def shortened_file(one: Experiment, chance: random.Random) -> Iterator[Expected]:
    """A file of a case that is learnt from is cut short in the middle of an epoch."""

    def cut() -> None:
        for path in one.folder.glob(f"cache/0[12]/*/{chance.choice(['image', 'label'])}.npy"):
            os.truncate(path, 128 + chance.randrange(512))

    with at_a_step(chance, cut):
        yield {0, 1}, "cannot be read (it has become shorter)"


@contextmanager
def unreadable_file(one: Experiment, chance: random.Random) -> Iterator[Expected]:
    """A disk ends reads with an error, in one of the threads that cut stacks."""
    original, mine = os.preadv, chance.randrange(20, 4 * STEPS)
    reads = iter(range(10**6))

    def preadv(file: int, *args) -> int:
        cached = "/cache/" in str(Path(f"/proc/self/fd/{file}").readlink())
        if cached and threading.current_thread() is not main and next(reads) >= mine:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return original(file, *args)

    main = threading.main_thread()
    with patch.object(os, "preadv", preadv):
        yield {0, 1}, "cannot be read (Input/output error)"


@contextmanager
def dead_reader(one: Experiment, chance: random.Random) -> Iterator[Expected]:
    """A thread that cuts stacks meets an error of the system that no file is to blame for."""

    def die() -> None:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    number, calls = chance.randrange(4 * STEPS), iter(range(10**6))
    with before(stacks, "copy", die, lambda *_: next(calls) == number):
        yield {1}, os.strerror(errno.ENOMEM)


@contextmanager
def jumping_clock(one: Experiment, chance: random.Random) -> Iterator[Expected]:
    """The clock jumps by hours, to and fro. Between saves: Orbax takes a jump while it saves for a save too slow."""
    clock, save, ahead = time.time, Checkpoints.save, [0.0]

    def jump_and_save(self: Checkpoints, *args) -> None:
        self.wait()
        ahead[0] = 3600 * chance.uniform(-30, 30)
        save(self, *args)

    with patch.object(time, "time", lambda: clock() + ahead[0]), patch.object(Checkpoints, "save", jump_and_save):
        yield {0}, ""


def ask_to_stop() -> None:
    """What a scheduler sends."""
    os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def sigterm(place: str, one: Experiment, chance: random.Random) -> Iterator[Expected]:
    """The machine is wanted back, in the training or elsewhere."""
    with at_a_step(chance, ask_to_stop) if place == "training" else before(*PLACES[place], ask_to_stop):
        yield {75}, "stopped by SIGTERM"


@contextmanager
def damaged_checkpoint(one: Experiment, chance: random.Random) -> Iterator[Expected]:
    """A file of the newest checkpoint of a run that was stopped is damaged; it goes on from the one before."""
    with before(loop.Logbook, "advance", ask_to_stop, lambda _, step: step == STEPS - 1):
        assert command(one) == 75
    newest = one.folder / "checkpoints" / str(STEPS - 1)
    damage(chance.choice([path for path in sorted(newest.rglob("*")) if path.is_file()]), chance)
    yield {0}, ""


def damage(path: Path, chance: random.Random) -> None:
    """Flip a bit of a file, or write zeros over it, cut it short or delete it."""
    content = bytearray(path.read_bytes())
    how = chance.choice(["flip", "flip", "flip", "zero", "cut", "delete"])
    if how == "delete":
        path.unlink()
    elif how == "cut":
        path.write_bytes(content[: chance.randrange(len(content))])
    elif how == "zero":
        path.write_bytes(bytes(len(content)))
    else:
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        path.write_bytes(content)


@contextmanager
def second_command(one: Experiment, chance: random.Random) -> Iterator[Expected]:
    """Another command is at work in the folder."""
    with run_folder.at_work(one.folder):
        yield {2}, "another command is at work in it"


FAULTS: dict[str, Callable[[Experiment, random.Random], AbstractContextManager[Expected]]] = {
    **{f"disk full: {place}": partial(full_disk, place) for place in PLACES},
    "file cut short": shortened_file,
    "disk fails": unreadable_file,
    "reader dies": dead_reader,
    "clock jumps": jumping_clock,
    **{f"SIGTERM: {place}": partial(sigterm, place) for place in ("training", "cache", "predict", "scores", "report")},
    "checkpoint damaged": damaged_checkpoint,
    "second command": second_command,
}
