"""Runs of several processes: how they find each other, and what only the first of them does.

The processes share a file system. Each reads its own share of a batch and its own share of the cases to predict; the
first claims the run's folder, draws, caches, scores and writes the report.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from ivdjax.errors import DataError, Preempted, UsageError
from ivdjax.training import preemption

_LONGEST = 2000  # bytes of a message that travels between processes
_KINDS: dict[str, tuple[type, ...]] = {"data": (DataError, OSError), "preempted": (Preempted,)}


def start(where: str, processes: int | None = None, process: int | None = None) -> None:
    """Join the other processes of a run; before anything else is asked of jax.

    Args:
        where: `auto` where jax knows the cluster (Slurm, Open MPI, Cloud TPU, Kubernetes), or HOST:PORT of process 0.
        processes: how many there are, with HOST:PORT.
        process: which one this is, from 0, with HOST:PORT.

    Raises:
        UsageError: the processes did not find each other. A run never goes on alone.
    """
    if where == "auto":
        known: dict[str, Any] = {}
    else:
        host, _, port = where.rpartition(":")
        if not host or not port.isdigit() or processes is None or process is None:
            raise UsageError(f"--distributed {where}: say auto, or HOST:PORT with --processes N and --process I")
        if not 0 <= process < processes:
            raise UsageError(f"--process {process}: processes are numbered 0 to {processes - 1}")
        known = {"coordinator_address": where, "num_processes": processes, "process_id": process}
    try:
        jax.distributed.initialize(**known)
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"--distributed {where}: the processes did not find each other ({reason})") from error
    if processes is not None and jax.process_count() != processes:
        raise UsageError(f"--distributed {where}: {jax.process_count()} processes came, not {processes}")


def first(work: Callable[[], Any]) -> Any:
    """Let the first process do something while the others wait, and all fail together if it fails.

    Returns:
        What `work` returned on the first process, None on the others.
    """
    return together(work if jax.process_index() == 0 else lambda: None)


def together(work: Callable[[], Any]) -> Any:
    """Let every process do something, wait for all, and fail in all if one fails or is told to stop.

    Returns:
        What `work` returned on this process.
    """
    if jax.process_count() == 1:
        return work()
    done, failure = None, None
    try:
        with preemption.raised():
            done = work()
    except (Exception, Preempted) as error:  # told to the others, and raised again below
        failure = error
    told = b""
    if failure is not None:
        kind = next((name for name, types in _KINDS.items() if isinstance(failure, types)), "usage")
        told = f"{kind} {failure}".encode()[:_LONGEST]
    padded = np.frombuffer(told.ljust(_LONGEST, b"\0"), np.uint8)
    every = np.asarray(multihost_utils.process_allgather(padded)).reshape(jax.process_count(), _LONGEST)
    if failure is not None:
        raise failure
    for told in (bytes(row).rstrip(b"\0") for row in every):
        if told:
            kind, _, message = told.decode(errors="replace").partition(" ")
            raise {"data": DataError, "preempted": Preempted}.get(kind, UsageError)(message)
    return done


def add_up(values: np.ndarray) -> np.ndarray:
    """Sum of the processes' arrays."""
    if jax.process_count() == 1:
        return values
    return np.asarray(multihost_utils.process_allgather(values)).sum(0)
