"""From masks of discs to `discs.csv`: a row a disc with its level, its measures and its signals.

The columns are case, level, name, the fields of `measure.Measures`, the mean and the standard deviation over the disc's
voxels of each image of the case (`water_mean` and `water_sd` for the channel wat, and so on), and note. Where there are
fat and water, so is the fat fraction, F / (W + F) of each voxel that has signal; from images of two-point Dixon it is
weighted by T1, and is no proton density fat fraction. note holds what speaks against the names of that case's discs.
"""

import csv
import dataclasses
import io
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ivdjax import files
from ivdjax.data import check, dataset, masks, nifti
from ivdjax.errors import DataError, UsageError
from ivdjax.evaluation import discs
from ivdjax.evaluation.discs import Column, Scheme
from ivdjax.evaluation.landmarks import disc_picture
from ivdjax.evaluation.measure import Measures, measure_disc

logger = logging.getLogger("ivdjax")

MEASURES = tuple(field.name for field in dataclasses.fields(Measures) if field.name != "landmarks")

_SIGNALS = {"fat": "fat", "inn": "in_phase", "opp": "opposed_phase", "wat": "water"}


@dataclass(frozen=True)
class Disc:
    """One disc of a mask."""

    case: str
    """Name of the case."""
    level: int
    """1 is L5/S1, upwards."""
    measures: Measures | None
    """None where the disc is too small to be measured."""
    signals: Mapping[str, float]
    """By column: mean and standard deviation of each image in the disc."""
    note: str
    """What speaks against the names of the case's discs, or against this one's measures."""


@dataclass(frozen=True)
class Outputs:
    """What to write beside the table; None leaves it out."""

    labels: Path | None = None
    """Folder for a label map a case, `<case>.nii.gz`, on the mask's own grid."""
    labels_scheme: Scheme = Scheme.IVDJAX
    """What its values are."""
    pictures: Path | None = None
    """Folder for a picture a disc, `<case>_L4-L5.png`, in the last of the channels."""


def measure_masks(
    path: Path,
    out: Path,
    *,
    images: Path | None = None,
    channels: Sequence[str] = dataset.DIXON,
    scheme: Scheme | None = None,
    expected: int | None = discs.IVDM3SEG_DISCS,
    outputs: Outputs | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Disc]:
    """Measure every disc of one or more masks, and write the table.

    Args:
      path: a mask, a folder of masks, or a tree of cases, as `data.masks.find` takes them.
      out: the table, a `.csv` file to make or replace.
      images: folder of the case's images, or of many cases' by name; None measures shapes alone.
      channels: the images to take, each on the grid of the mask.
      scheme: what the mask's values mean. None names the discs by counting upwards from the lowest.
      expected: discs that a whole mask has; another number is noted. None expects none.
      outputs: label maps and pictures to write, too.
      progress: called after each case with the number of cases done and of all.

    Returns:
      The discs, case by case, upwards.

    Raises:
      DataError: a file cannot be read or written, no mask holds a disc, or an image lies on another grid.
      UsageError: pictures are asked for without images.
    """
    outputs = outputs if outputs is not None else Outputs()
    if outputs.pictures is not None and images is None:
        raise UsageError("pictures are drawn on images: pass the folder of the case's images, too (--case)")
    if expected is not None and expected < 0:
        raise UsageError(f"--expected {expected}: may be 0 or more")
    path, out = Path(path), Path(out)
    files.named(out, ".csv", "the table")
    for folder in (outputs.labels, outputs.pictures):
        if folder is not None:
            files.writable(folder)
    found = masks.find(path)
    for mask in found.values():
        check.plausible(nifti.read_grid(mask).spacing_mm, mask)
    if outputs.labels is not None and any(files.same(outputs.labels, mask.parent) for mask in found.values()):
        raise UsageError(f"{outputs.labels}: holds the masks; name another folder for their labels")
    cases = _cases(Path(images), channels, list(found)) if images is not None else {}
    rows: list[Disc] = []
    for done, (name, mask) in enumerate(found.items(), start=1):
        case_rows = _measure_case(name, mask, cases.get(name), channels, (scheme, expected), outputs)
        if not case_rows:
            logger.warning("%s: empty, no disc to measure", mask)
        rows += case_rows
        if progress is not None:
            progress(done, len(found))
    if not rows:
        raise DataError(f"{path}: no disc in any mask; nothing to measure")
    files.write_text(out, to_csv(rows))
    return rows


def to_csv(rows: Sequence[Disc]) -> str:
    """The text of `discs.csv`, numbers to six digits; what could not be measured is empty."""
    signals = list(dict.fromkeys(column for row in rows for column in row.signals))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["case", "level", "name", *MEASURES, *signals, "note"])
    for row in rows:
        values = [getattr(row.measures, name) if row.measures is not None else None for name in MEASURES]
        values += [row.signals.get(column) for column in signals]
        writer.writerow([row.case, row.level, discs.level_name(row.level), *map(_cell, values), row.note])
    return text.getvalue()


def _cell(value: float | bool | None) -> int | str:
    if value is None:
        return ""
    return int(value) if isinstance(value, bool) else f"{value:.6g}"


def _cases(images: Path, channels: Sequence[str], names: Sequence[str]) -> dict[str, dataset.Case]:
    """The images of each mask's case; a single mask goes with a single case whatever it is called."""
    cases = {case.name: dataclasses.replace(case, label=None) for case in dataset.discover(images, channels)}
    if len(names) == len(cases) == 1:
        return {names[0]: next(iter(cases.values()))}
    if absent := [name for name in names if name not in cases]:
        raise DataError(f"{images}: has no images of case {', '.join(absent)}; pass the folder that has them")
    return cases


def _measure_case(
    name: str,
    path: Path,
    case: dataset.Case | None,
    channels: Sequence[str],
    naming: tuple[Scheme | None, int | None],
    outputs: Outputs,
) -> list[Disc]:
    mask = nifti.read_label(path)
    if not mask.array.any():
        return []
    column = _column(mask, *naming)
    image_ZxHxWxC = None
    if case is not None:
        if fault := dataset.difference(nifti.read_grid(case.images[0]), nifti.read_grid(path)):
            raise DataError(f"{case.images[0]}: {fault} than {path}; measure a mask on its own images' grid")
        image_ZxHxWxC, _ = dataset.load_images(case)
    note, rows = "; ".join(column.warnings), []
    for level in column.levels:
        disc_ZxHxW = column.level_ZxHxW == level
        signals = {} if image_ZxHxWxC is None else _signals(image_ZxHxWxC[disc_ZxHxW], channels)
        try:
            measures, own = measure_disc(disc_ZxHxW, mask.affine), note
        except ValueError as error:
            measures, own = None, "; ".join(filter(None, [note, f"not measured: {error}"]))
        rows.append(Disc(name, level, measures, signals, own))
        if outputs.pictures is not None and image_ZxHxWxC is not None and measures is not None:
            png = disc_picture(image_ZxHxWxC[..., -1], mask.affine, disc_ZxHxW, measures)
            _write(outputs.pictures / f"{name}_{discs.level_name(level).replace('/', '-')}.png", png)
    if outputs.labels is not None:
        try:
            labels_ZxHxW = discs.to_scheme(column.level_ZxHxW, outputs.labels_scheme)
        except ValueError as error:
            raise DataError(f"{path}: {error}") from error
        nifti.write_mask(labels_ZxHxW, path, outputs.labels / f"{name}.nii.gz")
    return rows


def _column(mask: nifti.Volume, scheme: Scheme | None, expected: int | None) -> Column:
    """The discs of a mask by level: by its values' scheme, or counted from the lowest upwards."""
    try:
        if scheme is None:
            return discs.name(discs.instances(mask.array, mask.spacing_mm), mask.spacing_mm, expected)
        level_ZxHxW = discs.from_scheme(mask.array, scheme)
    except ValueError as error:
        raise DataError(f"{mask.path}: {error}") from error
    levels = tuple(int(level) for level in np.unique(level_ZxHxW) if level)
    return Column(level_ZxHxW, levels, discs.count_warnings(len(levels), expected))


def _signals(voxel_VxC: np.ndarray, channels: Sequence[str]) -> dict[str, float]:
    """Mean and standard deviation of each channel, and of the fat fraction where fat and water are there."""
    values = {_SIGNALS.get(channel, channel): voxel_VxC[:, c] for c, channel in enumerate(channels)}
    if "fat" in values and "water" in values:
        sum_V = values["fat"] + values["water"]
        values["fat_fraction"] = values["fat"][sum_V > 0] / sum_V[sum_V > 0]
    return {
        f"{name}_{what}": float(of(values_V, dtype=np.float64)) if len(values_V) else float("nan")
        for name, values_V in values.items()
        for what, of in (("mean", np.mean), ("sd", np.std))
    }


def _write(path: Path, content: bytes) -> None:
    with files.replacing(path) as partial:
        partial.write_bytes(content)
