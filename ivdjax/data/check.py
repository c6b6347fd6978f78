"""Everything that is wrong with a folder of cases, found in one run.

One broken file never hides the next: each problem is a line of its own that names the file, what is wrong and what to
do. Nothing is changed on disk.
"""

import math
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cc3d
import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ivdjax.data import dataset, dixon, nifti
from ivdjax.errors import DataError

# Voxel edges outside this range in mm say that the header's unit is not mm.
PLAUSIBLE_MM = (0.05, 20.0)

# A real 3 T dual-echo scan departs from in = W + F by 0.065 of W + F and from opp = |W - F| by 0.13; past twice that,
# channels may have changed places (in-phase with opposed on the phantom: 0.17 and 0.16).
SOUND_RESIDUALS = (0.15, 0.3)

LEVELS = 23  # of discs that a spine has, C2/C3 to L5/S1

# Two cases at a time: enough to unzip one while measuring another, and a bound on memory.
THREADS = 2


@dataclass
class Row:
    """One case: grid on canonical axes (Z,H,W), axis codes as stored, and what was measured; None where unknown.

    `label_cm3` is the labelled volume, `pieces` the number of its connected components; `in_phase` and `opposed` are
    the residuals of `dixon.residuals`, as fractions of W + F.
    """

    case: str
    shape: tuple[int, int, int] | None = None
    spacing_mm: tuple[float, float, float] | None = None
    orientation: str | None = None
    channels: tuple[str, ...] = ()
    label_cm3: float | None = None
    pieces: int | None = None
    in_phase: float | None = None
    opposed: float | None = None


@dataclass
class Report:
    """A row a case; `problems` make the folder unusable as it is, `notes` do not. Both are single lines."""

    root: Path
    channels: tuple[str, ...]
    rows: list[Row] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """The report as plain JSON values; volumes in cm3, spacing in mm in (Z,H,W) order."""
        return {
            "root": str(self.root),
            "channels": list(self.channels),
            "cases": [asdict(row) for row in self.rows],
            "problems": self.problems,
            "notes": self.notes,
        }


def check(root: str | Path, channels: Sequence[str] = dataset.DIXON) -> Report:
    """Read every case of a folder in full and list all that is wrong with it.

    Raises:
      DataError: `root` is missing or not a folder.
      UsageError: no channels, or one twice.
    """
    found = dataset.survey(root, channels)
    report = Report(found.root, found.channels)
    if not found.images:
        report.problems.append(dataset.no_cases(found))
        return report
    with ThreadPoolExecutor(THREADS) as threads:
        for part in threads.map(lambda name: _check_case(found, name), found.names()):
            report.rows += part.rows
            report.problems += part.problems
            report.notes += part.notes
    _check_others(found, report)
    if not found.labels:
        report.notes.append("no case has a label map: usable for prediction, not for training")
    return report


def print_report(report: Report, console: Console) -> None:
    """Print a table of the cases, then the notes and the problems, a line each; plain where it is not a terminal."""
    if report.rows:
        table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
        for heading in ("case", "grid", "voxel mm", "axes", "channels"):
            table.add_column(heading, no_wrap=True)
        for heading in ("cm3", "pieces", "in", "opp"):
            table.add_column(heading, justify="right", no_wrap=True)
        for row in report.rows:
            table.add_row(*(Text(cell) for cell in _cells(row)))
        if not console.is_terminal:  # a file has no width to cut a table to
            table.width = console.measure(table, options=console.options.update(max_width=1000)).maximum
        console.print(table, crop=False)
    for note in report.notes:
        console.print(f"note: {note}", style="dim", soft_wrap=True, markup=False, highlight=False)
    for problem in report.problems:
        console.print(problem, style="red", soft_wrap=True, markup=False, highlight=False)
    verdict = f"{_count(len(report.rows), 'case')}, {_count(len(report.problems), 'problem')}"
    console.print(verdict, soft_wrap=True, markup=False, highlight=False)


def _check_case(found: dataset.Survey, name: str) -> Report:
    images, labels = found.images.get(name, {}), found.labels.get(name, [])
    there = tuple(channel for channel in found.channels if channel in images)
    row = Row(name, channels=there)
    report = Report(found.root, found.channels, [row], found.faults(name))
    grid, arrays = None, {}
    for channel in there:
        path = images[channel][0]
        try:
            own = nifti.read_grid(path)
            if grid is None:
                grid, reference = own, path
                _describe(row, grid, path, report)
            array = nifti.read(path).array
        except DataError as error:
            report.problems.append(str(error))
            continue
        if array.min() == array.max():
            report.problems.append(f"{path}: every voxel is {array.flat[0]:g}; export the image again")
        if fault := dataset.difference(own, grid):
            report.problems.append(f"{path}: {fault} than {reference.name}; bring the channels to one grid first")
        elif channel in dataset.DIXON:
            arrays[channel] = array
    _check_dixon(row, arrays, report)
    for path in labels[:1]:
        _check_label(row, path, grid, report)
    if found.labels and not labels:
        folder = images[there[0]][0].parent
        report.problems.append(f"{folder}: case {name} has no label map although others do; add {name}_Labels.nii.gz")
    return report


def _describe(row: Row, grid: nifti.Grid, path: Path, report: Report) -> None:
    row.shape, row.spacing_mm, row.orientation = grid.shape, grid.spacing_mm, "".join(grid.orientation)
    if not grid.located:
        report.notes.append(f"{path}: neither sform nor qform; its axes are taken to be {row.orientation} as stored")
    try:
        plausible(grid.spacing_mm, path)
    except DataError as error:
        report.problems.append(str(error))


def plausible(spacing_mm: tuple[float, float, float], path: Path) -> None:
    """See that voxels are of a size that a scanner makes.

    Raises:
      DataError: they are not.
    """
    low, high = PLAUSIBLE_MM
    if min(spacing_mm) < low or max(spacing_mm) > high:
        edges = " x ".join(f"{edge:g}" for edge in spacing_mm)
        raise DataError(f"{path}: voxels of {edges} mm are implausible; rewrite its header in mm")


def _check_dixon(row: Row, arrays: dict[str, np.ndarray], report: Report) -> None:
    if not {"fat", "wat"} <= arrays.keys() or not {"inn", "opp"} & arrays.keys():
        return
    values = [None if math.isnan(r) else round(float(r), 4) for r in dixon.residuals(**arrays)]
    row.in_phase, row.opposed = values
    laws = ("in-phase from W + F", "opposed from |W - F|")
    for law, value, sound in zip(laws, values, SOUND_RESIDUALS, strict=True):
        if value is not None and value > sound:
            report.notes.append(f"case {row.case}: {law} departs by {value:.0%}; are its channels mixed up?")


def _check_label(row: Row, path: Path, grid: nifti.Grid | None, report: Report) -> None:
    try:
        own = nifti.read_grid(path)
        label = nifti.read_label(path)
        if grid is not None and (fault := dataset.difference(own, grid)):
            report.problems.append(f"{path}: {fault} than its images; {_two_readings(label, own, grid)}")
    except DataError as error:
        report.problems.append(str(error))
        return
    values = np.flatnonzero(_per_plane(label.array).sum(axis=0))
    if not np.isin(values, (0, 1)).all() and not _numbered(label.array):
        shown = ", ".join(str(v) for v in values[:8]) + (" ..." if len(values) > 8 else "")
        report.problems.append(
            f"{path}: label values {shown}; a disc must be 1, or its number from the lowest upwards, and all else 0"
        )
    voxel_mm3 = math.prod(label.spacing_mm)
    row.label_cm3 = round(np.count_nonzero(label.array) * voxel_mm3 / 1000, 2)
    if not label.array.any():
        row.pieces = 0
        report.problems.append(f"{path}: the label is empty; label the case or take it out")
        return
    pieces = cc3d.connected_components(label.array > 0, connectivity=26)
    statistics = cc3d.statistics(pieces)
    volumes_mm3 = statistics["voxel_counts"][1:] * voxel_mm3
    row.pieces = len(volumes_mm3)
    limit_mm3 = min(dataset.SPECK_MM3, dataset.SPECK_SHARE * float(volumes_mm3.max()))
    # A disc that the volume's border cuts may leave a sliver.
    inner = [
        all(side.start > 0 and side.stop < n for side, n in zip(sides, pieces.shape, strict=True))
        for sides in statistics["bounding_boxes"][1:]
    ]
    specks = np.flatnonzero((volumes_mm3 < limit_mm3) & inner)
    if len(specks):
        where = label.affine @ np.append(statistics["centroids"][1:][specks[0]], 1)
        at = ", ".join(f"{x:.0f}" for x in where[:3])
        report.problems.append(
            f"{path}: {_count(len(specks), 'stray speck')} below {limit_mm3:.0f} mm3, the first at scanner "
            f"({at}) mm; erase or join them"
        )


def _numbered(label_ZxHxW: np.ndarray) -> bool:
    """Whether each value is one disc, but for crumbs, and lies above that of the next smaller value."""
    per_HxV = _per_plane(label_ZxHxW)
    values = np.flatnonzero(per_HxV[:, 1:].sum(axis=0)) + 1
    if values.max(initial=0) > LEVELS:
        return False
    # All values at once: a piece's voxels are of one value.
    piece_ZxHxW = cc3d.connected_components(label_ZxHxW, connectivity=26)
    sizes = cc3d.statistics(piece_ZxHxW)["voxel_counts"]
    value_of = np.zeros(len(sizes), np.uint8)
    value_of[piece_ZxHxW] = label_ZxHxW
    heights = []
    for value in values:
        if 2 * sizes[value_of == value].max() <= per_HxV[:, value].sum():
            return False
        heights.append(np.average(np.arange(len(per_HxV)), weights=per_HxV[:, value]))
    return bool((np.diff(heights) < 0).all())


def _per_plane(label_ZxHxW: np.ndarray) -> np.ndarray:
    """Number of voxels of each value 0..255 in each plane across H; a plane at a time, since counting takes memory."""
    return np.array([np.bincount(plane.reshape(-1), minlength=256) for plane in label_ZxHxW.swapaxes(0, 1)])


def _two_readings(label: nifti.Volume, own: nifti.Grid, grid: nifti.Grid) -> str:
    """What the label is by its voxel indices and by its header, and how far the two agree."""
    placed = nifti.place_by_header(label, grid.affine, grid.shape) > 0
    advice = "look at both, then pass --data.label-grid voxels or header"
    if own.disk_shape != grid.disk_shape:
        kept = np.count_nonzero(placed) * math.prod(grid.spacing_mm)
        whole = np.count_nonzero(label.array) * math.prod(label.spacing_mm)
        share = kept / whole if whole else 0.0
        return f"{share:.0%} of it lies on them by its header; if that is right pass --data.label-grid header"
    indexed = nifti.read_label(label.path, on=grid).array > 0
    both = np.count_nonzero(indexed) + np.count_nonzero(placed)
    dice = 2 * np.count_nonzero(indexed & placed) / both if both else 1.0
    return f"placed by its voxels and by its header it overlaps itself with Dice {dice:.3f}; {advice}"


def _check_others(found: dataset.Survey, report: Report) -> None:
    """List the volumes that belong to no case, and note what else the cases hold."""
    passed: Counter[str] = Counter()
    for name, kind, path in found.others:
        if found.covers(name, kind, path):
            passed[kind] += 1
        else:
            report.problems.append(
                f"{path}: belongs to no case; name it NAME_<channel>.nii[.gz] as the others, or move it away"
            )
    if passed:
        kinds = ", ".join(f"{kind} ({_count(n, 'file')})" for kind, n in sorted(passed.items()))
        report.notes.append(f"passed over: {kinds}")


def _cells(row: Row) -> list[str]:
    def number(value: float | None, digits: int) -> str:
        return "-" if value is None else f"{value:.{digits}f}"

    return [
        row.case,
        "-" if row.shape is None else "x".join(str(n) for n in row.shape),
        "-" if row.spacing_mm is None else "x".join(f"{edge:.2f}" for edge in row.spacing_mm),
        row.orientation or "-",
        " ".join(row.channels) or "-",
        number(row.label_cm3, 1),
        number(row.pieces, 0),
        number(row.in_phase, 3),
        number(row.opposed, 3),
    ]


def _count(n: int, what: str) -> str:
    return f"{n} {what}" + ("" if n == 1 else "s")
