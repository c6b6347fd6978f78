"""Orbax checkpoints: state and data iterator together, atomically; the newest and the best are kept."""

import json
from pathlib import Path
from typing import Any

import grain
import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from ivdjax.errors import DataError

# The score of the held-out cases that says which checkpoint is the best.
SCORE = "volume_dice"


class Checkpoints:
    """The checkpoints of one run. A checkpoint that is listed is complete: Orbax writes beside and renames."""

    def __init__(self, folder: Path, read_only: bool = False) -> None:
        """Open the folder of checkpoints, made if it is missing (unless `read_only`)."""
        keep = preservation_policy.AnyPreservationPolicy(
            [
                preservation_policy.LatestN(1),
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
        self._manager = ocp.CheckpointManager(self.folder, options=options)

    @property
    def latest(self) -> int | None:
        """Step of the newest checkpoint."""
        return self._manager.latest_step()

    @property
    def best(self) -> int | None:
        """Step of the checkpoint with the best score, or the newest where none was scored."""
        best = self._manager.best_step()
        return self.latest if best is None else best

    def save(self, step: int, state: Any, iterator: grain.DatasetIterator, score: float | None) -> None:
        """Save in the background; the state may be donated right after, since it is copied first."""
        items = ocp.args.Composite(state=ocp.args.StandardSave(state), data=grain.checkpoint.CheckpointSave(iterator))
        self._manager.save(step, args=items, metrics=None if score is None else {SCORE: score})

    def restore(self, step: int, like: Any, iterator: grain.DatasetIterator | None = None) -> Any:
        """Return the state of `step`, with the shapes and shardings of `like`; the iterator is moved there too.

        Raises:
            DataError: the checkpoint does not fit the network or cannot be read.
        """
        items = {"state": ocp.args.StandardRestore(jax.tree.map(ocp.utils.to_shape_dtype_struct, like))}
        if iterator is not None:
            items["data"] = grain.checkpoint.CheckpointRestore(iterator)
        try:
            return self._manager.restore(step, args=ocp.args.Composite(**items))["state"]
        except (ValueError, KeyError, OSError, json.JSONDecodeError) as error:
            reason = str(error).splitlines()[0]
            raise DataError(
                f"{self.folder / str(step)}: cannot be restored ({reason}); delete it to go on from an older one"
            ) from error

    def close(self) -> None:
        """Wait until what is being saved is safe."""
        self._manager.wait_until_finished()
        self._manager.close()
