"""From a raw folder of nnU-Net (version 2) to a tree of ours, and back with our folds.

`Dataset123_NAME/` holds `dataset.json` (channel_names, labels, numTraining, file_ending), `imagesTr/CASE_0000.nii.gz`
and so on a channel, `labelsTr/CASE.nii.gz` and `imagesTs`. nnU-Net wants labels numbered 1, 2, 3 ... without a gap, and
the volumes of a case on one grid to about 1e-5, where header rounding may be 1e-3: the volumes then get the header of
the first. (F. Isensee et al., nnU-Net, Nature Methods 2021;18:203.)
"""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ivdjax import files
from ivdjax.config import Data
from ivdjax.data import dataset, grouping, nifti, paths, splits
from ivdjax.data.dataset import Case
from ivdjax.errors import DataError, UsageError
from ivdjax.evaluation import discs
from ivdjax.exchange import itk

# What nnU-Net does to a channel follows from its name; any name but these gets zero mean and unit variance.
_NORMALISED_OTHERWISE = ("ct", "nonorm", "zscore", "rescale_to_0_1", "rgb_to_0_1")
# ITK, by which nnU-Net reads unless told otherwise, refuses axes that lean towards each other by a cosine of 1e-4.
_SKEW = 5e-5
_FOLDERS = {"train": ("imagesTr", "labelsTr"), "test": ("imagesTs", "labelsTs")}


@dataclass(frozen=True)
class _Raw:
    """What `dataset.json` says."""

    channels: tuple[str, ...]
    labels: dict[str, int]  # but for the background
    ending: str


def to_tree(
    source: Path,
    out: Path,
    *,
    part: str = "train",
    channels: Sequence[str] = (),
    disc_names: Sequence[str] = (),
    label_grid: str = "refuse",
    progress: Callable[[int, int], None] | None = None,
) -> list[str]:
    """Write the cases of a raw folder as OUT/CASE/CASE_<channel>.nii.gz, with their discs as CASE_Labels.nii.gz.

    Images are copied, zipped if they are not. Masks are written on the grids of their images.

    Args:
      source: the folder Dataset123_NAME.
      out: folder to make.
      part: "train", imagesTr with labelsTr, or "test", imagesTs, with labelsTs where that is there.
      channels: names for the channels, in nnU-Net's order; those in `dataset.json` by default.
      disc_names: labels that are discs, the lowest first, which become 1, 2 ...; a single one becomes 1. By default
        the only label there is, or disc_1, disc_2 ...
      label_grid: for a mask that lies elsewhere than its image, as `data.dataset.load`.
      progress: called after each case with the number of cases done and of all.

    Returns:
      What was done, a line each.

    Raises:
      DataError: a file is missing or cannot be used.
      UsageError: `out` is no new folder, names do not fit `dataset.json`, or SimpleITK is needed and not installed.
    """
    raw = _describe(source, tuple(channels))
    images = _images(source / _FOLDERS[part][0], raw)
    labels = _labels(source / _FOLDERS[part][1], images, raw, needed=part == "train")
    number, told = _numbers(raw.labels, disc_names) if labels else (None, [])
    with files.making(out) as partial:
        for done, (name, sources) in enumerate(images.items(), start=1):
            (partial / name).mkdir()
            made = [partial / name / f"{name}_{channel}.nii.gz" for channel in raw.channels]
            for path, image in zip(sources, made, strict=True):
                _copy_image(path, image)
                if fault := dataset.difference(nifti.read_grid(image), nifti.read_grid(made[0])):
                    raise DataError(f"{path}: {fault} than {sources[0].name}; bring the channels to one grid first")
            if labels and number is not None:
                grid = nifti.read_grid(made[0])
                label_ZxHxW = dataset.load_label(labels[name], grid, label_grid, _reader(raw.ending))
                if unknown := sorted(set(np.unique(label_ZxHxW)) - {0, *raw.labels.values()}):
                    raise DataError(f"{labels[name]}: dataset.json names no label {unknown[0]}; add it there")
                nifti.write_mask(number[label_ZxHxW], made[0], partial / name / f"{name}_Labels.nii.gz")
            if progress:
                progress(done, len(images))
        found = [(case.name, case.label is not None) for case in dataset.discover(partial, raw.channels)]
        if sorted(found) != sorted((name, bool(labels)) for name in images):
            raise UsageError(
                f"{source}: its names of cases and channels ({', '.join(raw.channels)}) cannot be told apart in a "
                "tree; choose others with --channels"
            )
    unlabelled = "" if labels else ", without labels"
    return [f"{out}: {len(images)} cases with {', '.join(raw.channels)}{unlabelled}", *told]


def from_tree(
    data: Data, out: Path, *, binary: bool = False, progress: Callable[[int, int], None] | None = None
) -> list[str]:
    """Write a tree as a raw folder, with its folds as `splits_final.json`.

    A case keeps its name. Images are copied, zipped if they are not; masks are written on the grids of their images.
    Cases without a mask go to `imagesTs`.

    Args:
      data: the tree, its channels and how it is split; `hold_out` makes a single fold.
      out: folder to make, named Dataset123_NAME.
      binary: make one label, `disc`, of discs that the masks number.
      progress: called after each case with the number of cases done and of all.

    Returns:
      What was done, a line each.

    Raises:
      DataError: a file cannot be used, no case has a mask, or the values of a mask are no discs.
      UsageError: `out` is no new folder or is not named as nnU-Net wants it, or as `data.splits.members`.
    """
    if not re.fullmatch(r"Dataset(?!000)\d{3}_\w[\w-]*", out.name):
        raise UsageError(f"{out}: nnU-Net wants a folder named Dataset123_NAME, with a number from 001; name it so")
    if data.root is None:
        raise UsageError("convert to-nnunet: name the tree of cases")
    every = dataset.discover(data.root, data.channels)
    every = grouping.assign_subjects(every, data.subjects, data.subject_table)
    cases = [case for case in every if case.label is not None]
    if not cases:
        raise DataError(f"{data.root}: no case has a label map for nnU-Net to learn from; add NAME_Labels.nii.gz")
    folds = splits.members(cases, data, every_fold=not data.hold_out, seeds=[0])
    top, skewed = 0, False
    mended: Counter[str] = Counter()
    with files.making(out) as partial:
        for folder in ("imagesTr", "labelsTr", "imagesTs"):
            (partial / folder).mkdir()
        for done, case in enumerate(every, start=1):
            made = partial / ("imagesTs" if case.label is None else "imagesTr") / case.name
            mended["images"] += _copy_case(case, made)
            skewed = skewed or _skew(nifti.read_grid(case.images[0])) > _SKEW
            if case.label is not None:
                first = made.with_name(f"{case.name}_0000.nii.gz")
                label_ZxHxW, rounded = _label(case, nifti.read_grid(first), data.label_grid, binary)
                mended["masks"] += rounded
                top = max(top, int(label_ZxHxW.max()))
                nifti.write_mask(label_ZxHxW, first, partial / "labelsTr" / f"{case.name}.nii.gz")
            if progress:
                progress(done, len(every))
        files.write_json(partial / "dataset.json", _description(out.name, data.channels, top, len(cases), skewed))
        held_out = [
            {"train": [cases[i].name for i in fold.learn], "val": [cases[i].name for i in fold.held_out]}
            for fold in folds
        ]
        files.write_text(partial / "splits_final.json", json.dumps(held_out, indent=2) + "\n")
    without, several = len(every) - len(cases), "s" if len(folds) > 1 else ""
    told = [f"{out}: {len(cases)} cases to learn from, {without} without labels, {len(folds)} fold{several}"]
    return told + _notices(mended, skewed)


def _notices(mended: Counter, skewed: bool) -> list[str]:
    """A line for all that nnU-Net finds otherwise than it was."""
    lines = [
        f"{count} {what} got the header of their case's first image, from which theirs differed by rounding"
        for what, count in mended.items()
        if count
    ]
    if skewed:
        lines.append("some axes are not quite at right angles: dataset.json has nnU-Net read by NibabelIO, not by ITK")
    return lines


def _description(name: str, channels: Sequence[str], top: int, cases: int, skewed: bool) -> dict[str, Any]:
    """What `dataset.json` says; `top` is the largest number of a disc."""
    named = ["disc"] if top <= 1 else [f"disc_{number}" for number in range(1, top + 1)]
    channels = [f"mr_{channel}" if channel.casefold() in _NORMALISED_OTHERWISE else channel for channel in channels]
    return {
        "channel_names": {str(i): channel for i, channel in enumerate(channels)},
        "labels": {"background": 0, **{label: value for value, label in enumerate(named, start=1)}},
        "numTraining": cases,
        "file_ending": ".nii.gz",
        "name": name,
        **({"overwrite_image_reader_writer": "NibabelIO"} if skewed else {}),
    }


def _skew(grid: nifti.Grid) -> float:
    """Largest cosine between two of a grid's axes."""
    axis_3x3 = grid.affine[:3, :3] / np.linalg.norm(grid.affine[:3, :3], axis=0)
    return float(np.abs(axis_3x3.T @ axis_3x3 - np.eye(3)).max())


def _describe(source: Path, channels: tuple[str, ...]) -> _Raw:
    path = source / "dataset.json"
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"{path}: cannot be read ({reason}); pass a raw folder of nnU-Net, Dataset123_NAME") from error
    if not isinstance(said, dict):
        raise DataError(f"{path}: is not a JSON object; pass a raw folder of nnU-Net, Dataset123_NAME")
    if "modality" in said:
        raise DataError(f"{path}: of nnU-Net version 1; convert it with nnUNetv2_convert_old_nnUNet_dataset first")
    try:
        named = [name for _, name in sorted(said["channel_names"].items(), key=lambda item: int(item[0]))]
        labels, ending = dict(said["labels"]), str(said["file_ending"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: lacks channel_names, labels or file_ending as nnU-Net writes them") from error
    if "dataset" in said:
        raise DataError(f"{path}: lists files of its own under `dataset`; copy them to imagesTr and labelsTr first")
    if odd := [name for name, value in labels.items() if type(value) is not int or not 0 <= value <= 255]:
        raise DataError(f"{path}: label {odd[0]} is not one value of 0..255 (a region?); give each its own")
    if ending not in (*nifti.SUFFIXES, *itk.SUFFIXES):
        raise DataError(f"{path}: files ending {ending} cannot be read; convert them to .nii.gz")
    if channels and len(channels) != len(named):
        raise UsageError(f"--channels {' '.join(channels)}: dataset.json has {len(named)} ({', '.join(named)})")
    channels = channels or tuple(re.sub(r"[^\w-]+", "-", str(name)).strip("-") for name in named)
    if odd := [channel for channel in channels if not re.fullmatch(r"\w[\w-]*", channel)]:
        raise UsageError(f"--channels {odd[0]!r}: is no name for a file; use letters, digits, - and _")
    if not all(channels) or len({channel.lower() for channel in channels}) != len(channels):
        raise UsageError(f"{path}: channels {', '.join(map(repr, named))} need different names; pass --channels")
    return _Raw(channels, {name: value for name, value in labels.items() if value}, ending)


def _images(folder: Path, raw: _Raw) -> dict[str, list[Path]]:
    """The images of each case, in natural order of the cases, channel by channel."""
    found: dict[str, dict[int, Path]] = defaultdict(dict)
    for path in folder.glob(f"[!.]*{raw.ending}"):
        match = re.fullmatch(r"(.+)_(\d{4})", path.name.removesuffix(raw.ending))
        if match is None or int(match[2]) >= len(raw.channels):
            raise DataError(
                f"{path}: not named CASE_0000 to CASE_{len(raw.channels) - 1:04d}; rename it or move it away"
            )
        paths.check_link(path, folder)
        paths.check_name(match[1], path)
        found[match[1]][int(match[2])] = path
    if not found:
        raise DataError(f"{folder}: no CASE_0000{raw.ending} in it; pass a raw folder of nnU-Net, Dataset123_NAME")
    for name, there in found.items():
        if missing := [f"{name}_{i:04d}{raw.ending}" for i in range(len(raw.channels)) if i not in there]:
            raise DataError(f"{folder}: case {name} lacks {', '.join(missing)}; add the file")
    return {name: [found[name][i] for i in range(len(raw.channels))] for name in sorted(found, key=dataset.natural)}


def _labels(folder: Path, images: dict[str, list[Path]], raw: _Raw, needed: bool) -> dict[str, Path]:
    if not needed and not folder.is_dir():
        return {}
    labels = {name: folder / f"{name}{raw.ending}" for name in images}
    for path in labels.values():
        paths.check_link(path, folder)
    if missing := [path for path in labels.values() if not path.is_file()]:
        raise DataError(f"{missing[0]}: no such file, though its images are there; add it")
    return labels


def _numbers(labels: dict[str, int], disc_names: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """The value that a mask of ours has for each of theirs, and what is lost by it."""
    ours = all(re.fullmatch(r"disc_\d+", name) for name in labels)
    chosen = list(disc_names) or (sorted(labels, key=labels.__getitem__) if len(labels) == 1 or ours else [])
    if not chosen or (unknown := [name for name in chosen if name not in labels]):
        asked = f"has no label {unknown[0]}" if chosen else "has several labels"
        raise UsageError(
            f"dataset.json {asked}; name those that are discs, the lowest first: --discs, from {', '.join(labels)}"
        )
    number = np.zeros(256, np.uint8)
    for value, name in enumerate(chosen, start=1):
        number[labels[name]] = value
    dropped = [name for name in labels if name not in chosen]
    return number, [f"background now: {', '.join(dropped)}"] if dropped else []


def _copy_image(path: Path, out: Path) -> None:
    if path.name.endswith(nifti.SUFFIXES):
        nifti.read(path)  # refuses what cannot be read whole
        nifti.copy(path, out)
    else:
        itk.to_nifti(path, out)


def _copy_case(case: Case, out: Path) -> int:
    """Copy a case's images to OUT_0000.nii.gz and so on; returns how many of them needed the header of the first."""
    first, mended = nifti.read_grid(case.images[0]), 0
    for channel, path in enumerate(case.images):
        grid = nifti.read_grid(path)
        fault = dataset.difference(grid, first)
        if not fault and grid.orientation != first.orientation:
            fault = f"is stored along other axes ({' '.join(grid.orientation)} against {' '.join(first.orientation)})"
        if fault:
            raise DataError(f"{path}: {fault} than {case.images[0].name}; bring the channels to one grid first")
        nifti.read(path)  # refuses what cannot be read whole
        rounded = not np.array_equal(grid.disk_affine, first.disk_affine)
        nifti.copy(
            path, out.with_name(f"{out.name}_{channel:04d}.nii.gz"), placed_as=case.images[0] if rounded else None
        )
        mended += rounded
    return mended


def _label(case: Case, grid: nifti.Grid, label_grid: str, binary: bool) -> tuple[np.ndarray, bool]:
    """A case's discs, numbered as the mask numbers them, and whether its header differs by rounding."""
    path = dataset.label_path(case)
    label_ZxHxW = dataset.load_label(path, grid, label_grid)
    own = nifti.read_grid(path)
    rounded = not dataset.difference(own, grid) and not np.array_equal(own.affine, grid.affine)
    if binary:
        return (label_ZxHxW > 0).astype(np.uint8), rounded
    if (top := int(label_ZxHxW.max())) > discs.LEVELS:
        raise DataError(
            f"{case.label}: value {top} where discs are numbered from 1; pass --binary, or number them by "
            "`ivdjax measure --scheme NAME --labels FOLDER`"
        )
    return label_ZxHxW, rounded


def _reader(ending: str) -> Any:
    return nifti if ending in nifti.SUFFIXES else itk
