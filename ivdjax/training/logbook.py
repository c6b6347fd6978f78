"""What a person sees of a run while it lasts and after: progress bar, JSON lines, TensorBoard, a tracker."""

import json
import socket
import time
from contextlib import nullcontext, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from tensorboardX import summary
from tensorboardX.proto import event_pb2
from tensorboardX.record_writer import RecordWriter

from ivdjax import files
from ivdjax.training.trackers import Tracking

_FLUSH_S = 15  # how old TensorBoard's events may become before they are in the file


class Logbook:
    """Writes `log.jsonl` and TensorBoard events into a run's folder, tells its tracker and shows a progress bar.

    Lines a killed run wrote after its last checkpoint are dropped when it resumes, since those steps are made again.
    On any process but the first nothing is written or shown.
    """

    def __init__(
        self, folder: Path, steps: int, start: int, batch_size: int, tracking: Tracking, active: bool = True
    ) -> None:
        """Open the book of a run of `steps` steps that goes on after step `start`."""
        self._active, self._steps, self._batch_size = active, steps, batch_size
        if not active:
            return
        self._tracking = tracking
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "log.jsonl"
        kept = [row for row in read(self._path) if row["step"] <= start]
        files.write_text(self._path, "".join(json.dumps(row) + "\n" for row in kept))
        self._file = self._path.open("a", encoding="utf-8")
        self._board = _Board(folder / "tensorboard", start + 1)
        # Time counts what training took, not the pauses between a run's pieces.
        self._began = time.monotonic() - max((row["time_s"] for row in kept), default=0.0)
        self._mark = (start, time.monotonic())
        self._bar = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]}  {task.fields[rate]} stacks/s "),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            # Where no one watches, the lines that `train` prints are all there is.
            disable=not Console(stderr=True).is_terminal,
        )
        self._task = self._bar.add_task("train", total=steps, completed=start, loss="-", rate="-")

    def __enter__(self) -> Self:
        """Show the bar."""
        if self._active:
            self._bar.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close everything; what was written stays."""
        if self._active:
            self._bar.stop()
            for book in (self._file, self._board):
                # Where a full disk has stopped the run, closing meets it once more.
                with suppress(OSError) if error is not None else nullcontext():
                    book.close()

    def advance(self, step: int) -> None:
        """Move the bar to `step`."""
        if self._active:
            self._bar.update(self._task, completed=step)

    def train(self, step: int, metrics: dict[str, float]) -> None:
        """Record the means of the training metrics since the last record."""
        if not self._active:
            return
        now = time.monotonic()
        rate = (step - self._mark[0]) * self._batch_size / max(now - self._mark[1], 1e-9)
        self._mark = (step, now)
        self._bar.update(self._task, completed=step, loss=f"{metrics['loss']:.3f}", rate=f"{rate:.1f}")
        self._write("train", step, {**metrics, "stacks_per_s": rate})
        if not self._bar.console.is_terminal:
            left = (self._steps - step) * self._batch_size / rate
            state = f"loss {metrics['loss']:.3f}  {rate:.1f} stacks/s  {left:.0f} s left"
            print(f"step {step}/{self._steps}  {state}", flush=True)

    def validation(self, step: int, metrics: dict[str, float]) -> None:
        """Record the score of the held-out cases."""
        if self._active:
            self._write("validation", step, metrics)
            self._bar.console.print(f"step {step}: volume Dice of the held-out cases {metrics['dice']:.3f}")
            self._mark = (step, time.monotonic())

    def _write(self, kind: str, step: int, metrics: dict[str, float]) -> None:
        row = {"kind": kind, "step": step, "time_s": time.monotonic() - self._began, **metrics}
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        for name, value in metrics.items():
            self._board.scalar(f"{kind}/{name}", value, step)
        self._tracking.log(step, {f"{kind}/{name}": value for name, value in metrics.items()})


class _Board:
    """TensorBoard events, written at once: a thread that wrote them could die of a full disk, and nobody would know."""

    def __init__(self, folder: Path, step: int) -> None:
        """Open a file of events from `step` on; those that other files have of it and after it are void."""
        folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads files in the order of their names, which the clock that names them need not keep.
        number = len(list(folder.glob("events.*")))
        name = f"events.{number:04d}.out.tfevents.{int(time.time())}.{socket.gethostname()}"
        self._writer, self._flushed = RecordWriter(str(folder / name)), time.monotonic()
        self._add(event_pb2.Event(step=step, file_version="brain.Event:2"))
        self._add(event_pb2.Event(step=step, session_log=event_pb2.SessionLog(status=event_pb2.SessionLog.START)))

    def scalar(self, name: str, value: float, step: int) -> None:
        """Write a number."""
        self._add(event_pb2.Event(step=step, summary=summary.scalar(name, value)))

    def close(self) -> None:
        """Write no more."""
        self._writer.close()

    def _add(self, event: event_pb2.Event) -> None:
        event.wall_time = time.time()
        self._writer.write(event.SerializeToString())
        if time.monotonic() - self._flushed > _FLUSH_S:
            self._writer.flush()
            self._flushed = time.monotonic()


def read(path: Path) -> list[dict]:
    """Rows of a log; a last line that a killed process left unfinished is passed over, as is all that follows it."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_bytes().splitlines():
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            break
        if not isinstance(row, dict) or not all(isinstance(row.get(key), int | float) for key in ("step", "time_s")):
            break
        rows.append(row)
    return rows
