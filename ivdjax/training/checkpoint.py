"""Orbax checkpoints: state and data iterator together, atomically; the newest and the best are kept."""

import json
from pathlib import Path
from typing import Any

import grain
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
        handlers = {"state": ocp.StandardCheckpointHandler(), "data": ocp.JsonCheckpointHandler()}
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
        """Number of networks whose states a checkpoint holds."""
        return self._manager.item_metadata(step)["state"]["step"].shape[0]

    def save(self, step: int, state: Any, iterator: grain.DatasetIterator, score: float | None) -> None:
        """Save in the background; the state may be donated right after, since it is copied first."""
        # The iterator's position is the same on every process, however many there are.
        position = ocp.args.JsonSave(iterator.get_state())
        items = ocp.args.Composite(state=ocp.args.StandardSave(state), data=position)
        self._manager.save(step, args=items, metrics=None if score is None else {SCORE: score})

    def restore(self, step: int, blank: Any, iterator: grain.DatasetIterator | None = None) -> Any:
        """Return the state of `step`; the iterator is moved there too.

        Args:
            step: one of those saved.
            blank: a tree of the state's shapes and types: of jax.ShapeDtypeStruct with the sharding that is wanted,
                whatever the number of devices it was saved from, or of NumPy arrays for NumPy arrays.
            iterator: of the training, if that is to go on.

        Raises:
            DataError: the checkpoint does not fit the network or cannot be read.
        """
        items = {"state": ocp.args.StandardRestore(blank)}
        if iterator is not None:
            items["data"] = ocp.args.JsonRestore()
        try:
            restored = self._manager.restore(step, args=ocp.args.Composite(**items))
        except (ValueError, KeyError, OSError, json.JSONDecodeError) as error:
            reason = str(error).splitlines()[0]
            raise DataError(
                f"{self.folder / str(step)}: cannot be restored ({reason}); delete it to go on from an older one"
            ) from error
        if iterator is not None:
            iterator.set_state(restored["data"])
        return restored["state"]

    def wait(self) -> None:
        """Wait until what is being saved is safe."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Wait, and save no more."""
        self.wait()
        self._manager.close()
