"""Seconds from the start of a process to the end of its first training step.

    python -m ivdjax.bench.startup [FOLDER]

makes that step and says so, for the experiment of FOLDER's config.json or, without a folder, of this machine's size.
"""

import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from ivdjax import config, files
from ivdjax.bench.sizes import Sizes
from ivdjax.errors import DataError

_DONE = "first step done"


def measure(sizes: Sizes | None = None) -> dict[str, float]:
    """Seconds with nothing compiled yet (`cold`), and with the program in the compilation cache (`cached`).

    Both are processes of their own, so call this before this process takes an accelerator for itself.

    Args:
        sizes: what to train; None lets the processes choose by the devices that they find.

    Raises:
        DataError: a process ended before its first step.
    """
    with TemporaryDirectory() as folder:
        arguments = []
        if sizes is not None:
            files.write_json(Path(folder) / "config.json", config.to_dict(sizes.experiment))
            arguments = [folder]
        environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(Path(folder) / "programs")}
        return {name: _seconds(arguments, environment) for name in ("cold", "cached")}


def _seconds(arguments: list[str], environment: dict[str, str]) -> float:
    command = [sys.executable, "-m", "ivdjax.bench.startup", *arguments]
    start = time.perf_counter()
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None  # since it is a pipe
        lines = iter(process.stdout.readline, "")
        found = any(line.strip() == _DONE for line in lines)
        taken = time.perf_counter() - start
        _, said = process.communicate()
    if not found:
        raise DataError(f"{' '.join(command)}: ended before its first step: {said.strip()[-300:]}")
    return taken


def main() -> None:
    """Make the first step of an experiment and say so."""
    # What a run imports is part of its start.
    from ivdjax import memory, programs, run, trained  # noqa: F401
    from ivdjax.bench import sizes, step

    programs.keep()
    memory.keep_freed()
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    experiment = sizes.here().experiment if folder is None else trained.read_experiment(folder)
    call = step.compiled(experiment, sizes.fixed_batch(experiment), step.initial_state(experiment))
    call().block_until_ready()
    print(_DONE, flush=True)


if __name__ == "__main__":
    main()
