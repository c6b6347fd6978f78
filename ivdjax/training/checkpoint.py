"""Orbax checkpoints: state and data iterator together, atomically; the newest two and the best are kept.

Orbax verifies what it keeps of a checkpoint's tensors, but not their bytes, so a checksum of each lies beside them: a
checkpoint is what was saved, or it is damaged.
"""

import errno
import logging
import os
import tempfile
import textwrap
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grain
import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from orbax.checkpoint.checkpoint_managers import preservation_policy

from ivdjax.errors import DataError, Preempted
from ivdjax.training import distributed

logger = logging.getLogger("ivdjax")

# The score of the held-out cases that says which checkpoint is the best.
SCORE = "volume_dice"
_ROOM = (errno.ENOSPC, errno.EDQUOT)
_AROUND = 2**20  # bytes of a checkpoint beside its tensors, at most about so many


class Checkpoints:
    """The checkpoints of one run. A checkpoint that is listed is complete: Orbax writes beside and renames."""

    def __init__(self, folder: Path, read_only: bool = False) -> None:
        """Open the folder of checkpoints, made if it is missing (unless `read_only`)."""
        keep = preservation_policy.AnyPreservationPolicy(
            [
                preservation_policy.LatestN(2),
                preservation_policy.BestN(
                    get_metric_fn=lambda m: m[SCORE], n=1, keep_checkpoints_without_metrics=False
                ),
            ]
        )
        options = ocp.CheckpointManagerOptions(
            preservation_policy=keep,
            best_fn=lambda metrics: metrics[SCORE],
            create=not read_only,
            read_only=read_only,
            # What a killed process left half written.
            cleanup_tmp_directories=not read_only,
        )
        self.folder = folder.absolute()
        handlers: dict[str, ocp.CheckpointHandler] = {
            "state": ocp.StandardCheckpointHandler(),
            "data": ocp.JsonCheckpointHandler(),
            "checks": ocp.JsonCheckpointHandler(),
        }
        self._manager = ocp.CheckpointManager(self.folder, options=options, item_handlers=handlers)

    @property
    def latest(self) -> int | None:
        """Step of the newest checkpoint."""
        return self._manager.latest_step()

    @property
    def best(self) -> int | None:
        """Step of the checkpoint with the best score, or the newest where none was scored."""
        best = self._manager.best_step()
        return self.latest if best is None else best

    def networks(self, step: int) -> int:
        """Number of networks whose states a checkpoint holds.

        Raises:
            DataError: it cannot be read.
        """
        with self._with_remedy(step), self._readable(step):
            return self._manager.item_metadata(step)["state"]["step"].shape[0]

    def save(self, step: int, state: Any, iterator: grain.DatasetIterator, score: float | None) -> None:
        """Save in the background; the state may be donated right after, since it is copied first.

        Raises:
            DataError: it cannot be saved, or what was saved in the background could not be.
        """
        # The iterator's position is the same on every process, however many there are.
        position = iterator.get_state()
        checks = {"state": _checksums(state), "data": position}
        # A disk that is full, or a user's share of it, is met here and not amid threads that save.
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(state)) + _AROUND
        with self._writable():
            distributed.first(lambda: _find_room(self.folder, size))
            items = ocp.args.Composite(
                state=ocp.args.StandardSave(state), data=ocp.args.JsonSave(position), checks=ocp.args.JsonSave(checks)
            )
            self._manager.save(step, args=items, metrics=None if score is None else {SCORE: score})

    def resume(self, blank: Any, iterator: grain.DatasetIterator) -> tuple[int, Any] | None:
        """Return step and state of the newest checkpoint that is sound, or None where there is no checkpoint at all.

        The iterator is moved there. Newer ones, which are damaged, are put aside with a warning each.

        Raises:
            DataError: none is sound; the newest one's damage. All stay where they are.
        """
        damaged: list[tuple[int, DataError]] = []
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                state = distributed.together(partial(self._restore, step, blank, iterator))
            except DataError as error:
                damaged.append((step, error))
                continue
            for bad, reason in damaged:
                logger.warning("%s; it is put aside as %s, going on from step %d", reason, _aside(bad), step)
                distributed.first(partial((self.folder / str(bad)).rename, self.folder / _aside(bad)))
            if damaged:
                self._manager.reload()
            return step, state
        if damaged:
            raise DataError(f"{damaged[0][1]}, and there is no sound one before it; remove {self.folder} to begin anew")
        return None

    def restore(self, step: int, blank: Any, iterator: grain.DatasetIterator | None = None) -> Any:
        """Return the state of `step`; the iterator is moved there too.

        Args:
            step: one of those saved.
            blank: a tree of the state's shapes and types: of jax.ShapeDtypeStruct with the sharding that is wanted,
                whatever the number of devices it was saved from, or of NumPy arrays for NumPy arrays.
            iterator: of the training, if that is to go on.

        Raises:
            DataError: the checkpoint does not fit the network, is damaged or cannot be read.
        """
        with self._with_remedy(step):
            return self._restore(step, blank, iterator)

    def _restore(self, step: int, blank: Any, iterator: grain.DatasetIterator | None) -> Any:
        """As `restore`, but errors say only what is wrong."""
        items = ocp.args.Composite(
            state=ocp.args.StandardRestore(blank), data=ocp.args.JsonRestore(), checks=ocp.args.JsonRestore()
        )
        with self._readable(step):
            restored = self._manager.restore(step, args=items)
            expected = restored["checks"]["state"]
            wrong = [name for name, found in _checksums(restored["state"]).items() if expected[name] != found]
            if not wrong and restored["data"] != restored["checks"]["data"]:
                wrong = ["the position in the data"]
        if wrong:
            raise DataError(f"{self.folder / str(step)}: is damaged ({wrong[0]} is not what was saved)")
        if iterator is not None:
            iterator.set_state(restored["data"])
        return restored["state"]

    def wait(self) -> None:
        """Wait until what is being saved is safe.

        Raises:
            DataError: it could not be saved.
        """
        with self._writable():
            self._manager.wait_until_finished()

    def __enter__(self) -> Self:
        """Nothing is to be done."""
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Let what is being saved become safe, whatever stops the training, before anything else is done."""
        # What has stopped it may be that nothing can be saved.
        with suppress(DataError) if error is not None else nullcontext():
            self.wait()

    def close(self) -> None:
        """Wait, and save no more; errors are as of `wait`."""
        with self._writable():
            self._manager.close()

    @contextmanager
    def _readable(self, step: int) -> Iterator[None]:
        try:
            yield
        except Preempted:
            raise
        except Exception as error:  # Orbax raises bare ones, too
            raise DataError(f"{self.folder / str(step)}: is damaged ({_line(error)})") from error

    @contextmanager
    def _with_remedy(self, step: int) -> Iterator[None]:
        """Add to errors of reading a checkpoint what to do."""
        try:
            yield
        except DataError as error:
            others = [other for other in self._manager.all_steps() if other != step]
            instead = f"remove it to use that of step {max(others)}" if others else "train the run again"
            raise DataError(f"{error}; copy it anew, or {instead}") from error

    @contextmanager
    def _writable(self) -> Iterator[None]:
        try:
            yield
        except (ValueError, RuntimeError, OSError) as error:
            raise DataError(
                f"{self.folder}: a checkpoint cannot be saved ({_line(error)}); make room or see to the disk, and give "
                "the same command again, which goes on from the one before"
            ) from error


def _aside(step: int) -> str:
    return f"damaged-{step}"


def _line(error: Exception) -> str:
    """The reason, out of messages that tell every path on the way to it."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, LookupError | TypeError | AttributeError):  # Orbax looks for what is not there
        return "a part is missing"
    lines = str(error).splitlines() or [type(error).__name__]
    # tensorstore names every file on the way to it, and then what the system said.
    told = next((os.strerror(code) for code in _ROOM if os.strerror(code) in lines[0]), None)
    return told or textwrap.shorten(lines[0], 200)


def _checksums(state: Any) -> dict[str, int]:
    """CRC-32 of each tensor, by its name; of several processes all must ask."""
    if not all(_whole_here(leaf) for leaf in jax.tree.leaves(state)):
        state = multihost_utils.process_allgather(state, tiled=True)
    named = jax.tree_util.tree_leaves_with_path(jax.device_get(state))
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): zlib.crc32(np.ascontiguousarray(leaf).data)
        for path, leaf in named
    }


def _whole_here(leaf: Any) -> bool:
    return not isinstance(leaf, jax.Array) or leaf.is_fully_addressable or leaf.is_fully_replicated


def _find_room(folder: Path, size: int) -> None:
    """Take so many bytes of the disk and give them back; OSError where they are not there."""
    if not hasattr(os, "posix_fallocate"):
        return
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            if error.errno in _ROOM:  # other file systems may not know how
                raise
