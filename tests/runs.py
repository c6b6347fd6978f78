"""Runs of `experiments.t2` in processes of their own, small enough for tests that stop, join and compare them."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from ivdjax.training import logbook

ROOT = Path(__file__).parents[1]

SETTINGS = {
    "data.hold-out": "03",
    "data.window": "24 24",
    "data.slices": 3,
    "model.features": "4 8",
    "train.batch-size": 8,
    "train.log-every": 1,
    "train.checkpoint-every": 4,
    # What remains draws random numbers enough, and compiles in a few seconds.
    **{f"augment.{part}": 0 for part in ("swap", "decay", "bias", "blur-voxels", "blur-through", "log-gamma")},
}


def start(
    tree: Path,
    folder: Path,
    settings: Mapping[str, object],
    *more: object,
    devices: int = 1,
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen:
    """Start a run on so many devices; what it prints is in its stdout."""
    named = {"data.root": tree, "run-dir": folder, **SETTINGS, **settings}
    words = [word for name, value in named.items() for word in (f"--{name}", *str(value).split())]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    flags = f"--xla_force_host_platform_device_count={devices}"
    return subprocess.Popen(
        [sys.executable, "-m", "experiments.t2", "--predict.no-flip", *words, *map(str, more)],
        cwd=ROOT,
        env={**kept, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ended(*processes: subprocess.Popen) -> list[int]:
    """Exit codes, with all that was said where a test then fails."""
    for process in processes:
        print(process.communicate(timeout=240)[0])
    return [process.returncode for process in processes]


def losses(folder: Path) -> dict[int, float]:
    """Loss by step, as far as a run has come."""
    return {row["step"]: row["loss"] for row in logbook.read(folder / "log.jsonl") if row["kind"] == "train"}


def free_port(ports: Iterable[int] = (0,)) -> int:
    """A port of this machine, of those named, that nobody listens on."""
    for port in ports:
        with socket.socket() as listener:
            try:
                listener.bind(("", port))
            except OSError:
                continue
            return listener.getsockname()[1]
    raise AssertionError("no port is free")
