"""What a person sees of a run while it lasts and after: progress bar, JSON lines, TensorBoard, a tracker."""

import json
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from tensorboardX import SummaryWriter

from ivdjax import files
from ivdjax.training.trackers import Tracking


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
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=start + 1, max_queue=100)
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
            self._file.close()
            self._board.close()

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
            self._board.add_scalar(f"{kind}/{name}", value, step)
        self._tracking.log(step, {f"{kind}/{name}": value for name, value in metrics.items()})


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
