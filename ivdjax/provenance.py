"""What a run was made with and of: the scans, and at each of its starts the versions, the code and the machine.

A run's folder keeps it in `provenance.json`:

- `data`: `cases`, for each the SHA-256 of the bytes of its scans and its mask, and `sha256` over all of them. Neither
  depends on where the scans lie or on any setting.
- `starts`: an entry each time training began or went on, with the step it began at.
"""

import hashlib
import os
import platform
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from ivdjax import files
from ivdjax.config import Experiment
from ivdjax.data.cache import CachedCase
from ivdjax.errors import UsageError
from ivdjax.evaluation import record

PACKAGES = (
    *("ivdjax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "nibabel"),
    *("scipy", "surface-distance", "pillow"),
)


def keep(folder: Path, experiment: Experiment, cases: Sequence[CachedCase], step: int) -> None:
    """Add a start to what a run's folder tells of how it was made.

    Args:
        folder: of the run.
        experiment: its settings.
        cases: all that it learns from or holds out.
        step: the last one that is done.

    Raises:
        UsageError: a case is not what it was when the run began.
        DataError: what the folder tells cannot be read.
    """
    path, digests = folder / record.PROVENANCE, {case.name: case.digest for case in cases}
    told: dict[str, Any] = files.read_json(path) if path.exists() else {"data": _data(digests), "starts": []}
    if changed := sorted(name for name, digest in told["data"]["cases"].items() if digests.get(name) != digest):
        raise UsageError(
            f"{folder}: was begun with other scans or masks ({', '.join(changed)} changed since); restore them, or "
            "choose another folder with --run-dir"
        )
    told["starts"].append(_start(experiment, step))
    files.write_json(path, told)


def _data(digests: dict[str, str]) -> dict[str, Any]:
    lines = "".join(f"{name} {digest}\n" for name, digest in sorted(digests.items()))
    return {"sha256": hashlib.sha256(lines.encode()).hexdigest(), "cases": digests}


def _start(experiment: Experiment, step: int) -> dict[str, Any]:
    kinds = sorted({device.device_kind for device in jax.devices()})
    return {
        "step": step,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "seeds": list(range(experiment.seed, experiment.seed + experiment.seeds)),
        "versions": versions(),
        "code_sha256": code(),
        "machine": {
            "system": platform.platform(terse=True),
            "processor": platform.machine(),
            "cpu cores": os.cpu_count(),
            "devices": f"{jax.device_count()} x {', '.join(kinds)}",
            "processes": jax.process_count(),
        },
    }


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that figures may depend on."""
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in PACKAGES}}


def code() -> str:
    """SHA-256 of the package's own files, wherever it is installed: of a checkout as it is, changes and all."""
    root = Path(sys.modules["ivdjax"].__path__[0])
    digest = hashlib.sha256()
    paths = (path for path in root.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    for name, path in sorted((path.relative_to(root).as_posix(), path) for path in paths):
        digest.update(f"{name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()
