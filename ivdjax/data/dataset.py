"""Which cases a folder holds, in which layout, whose scans they are, and one case as arrays.

A case is recognised by the names of its files alone: `NAME_<channel>.nii[.gz]` with `NAME_Labels.nii[.gz]`, or
`<channel>.nii[.gz]` in a folder that then names the case. Which folders they lie in does not matter, which covers
`01/01_fat.nii`, `dataset/` beside `label/`, `train/01/` beside `train/labels/`, one flat folder, a single case's
folder, and the challenge container's `/input/fat.nii.gz`.
"""

import logging
import os
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from ivdjax import files
from ivdjax.data import nifti, paths
from ivdjax.errors import DataError, UsageError

DIXON = ("fat", "inn", "opp", "wat")
LABELS = ("Labels", "labels", "Label", "label")
LAYOUTS = "NAME/NAME_<channel>.nii[.gz], dataset/ beside label/, train/NAME beside train/labels/, <channel>.nii[.gz]"
MAX_DEPTH = 4

# Two headers of one grid may differ by rounding: this much in an affine's entries, or this share of the smallest
# voxel edge at the farthest corner. Anything more moves an 8 mm disc's boundary.
ROUNDING = 1.5e-3
SLACK_VOXELS = 0.25

# A speck is a piece of a mask below both: 100 mm3, where the smallest of 184 discs in 24 annotated slabs has 800,
# and a twentieth of the largest piece or disc, so that small subjects and toy anatomies scale down.
SPECK_MM3 = 100.0
SPECK_SHARE = 1 / 20

logger = logging.getLogger("ivdjax")


# In a tree of phantoms; says how they were drawn.
PHANTOM_MARK = "phantom.json"


def is_phantom(root: Path) -> bool:
    """Whether a folder's cases were drawn by a program, and no person was scanned."""
    try:
        return (root / PHANTOM_MARK).is_file()
    except OSError:  # settings may name what cannot be a folder
        return False


class Reader(Protocol):
    """What reads volumes of a format; the module `nifti` is one."""

    def read_grid(self, path: Path) -> nifti.Grid:
        """Where the voxels lie."""

    def read_label(self, path: Path, *, on: nifti.Grid | None = None) -> nifti.Volume:
        """The voxels, uint8, on canonical axes."""


@dataclass(frozen=True)
class Case:
    """One scan: its images in the order of the channels asked for, its label map if any, and whose it is."""

    name: str
    images: tuple[Path, ...]
    label: Path | None
    subject: str


@dataclass(frozen=True)
class Survey:
    """What a folder holds, by file names alone: for each case the files of each channel and its label maps.

    `others` are the remaining volumes, as (case they would belong to, what they show, path).
    """

    root: Path
    channels: tuple[str, ...]
    images: dict[str, dict[str, list[Path]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))
    labels: dict[str, list[Path]] = field(default_factory=lambda: defaultdict(list))
    others: list[tuple[str, str, Path]] = field(default_factory=list)

    def names(self) -> list[str]:
        """Every case of which an image or a label map is there, in natural order (2 before 10)."""
        return sorted({*self.images, *self.labels}, key=natural)

    def faults(self, name: str) -> list[str]:
        """What its file names alone say is wrong with a case, a line each."""
        images, labels = self.images.get(name, {}), self.labels.get(name, [])
        faults = [
            f"{files[1]}: case {name} has its {kind} twice (also {files[0].name}); remove one"
            for kind, files in [*images.items(), ("label", labels)]
            if len(files) > 1
        ]
        missing = [channel for channel in self.channels if channel not in images]
        if not images:
            faults.append(f"{labels[0]}: a label without any image of case {name} ({', '.join(missing)}); add them")
        elif missing:
            there = [channel for channel in self.channels if channel in images]
            folder = images[there[0]][0].parent
            faults.append(
                f"{folder}: case {name} misses {', '.join(missing)}; add the file, or pass --data.channels "
                f"{' '.join(there)} to go without"
            )
        return faults

    def covers(self, name: str, kind: str, path: Path) -> bool:
        """Whether one of `others` is simply more of a case's files, named in the way of its images."""
        images = self.images.get(name, {})
        bare = _stem(path) == kind
        return any(bare == (_stem(files[0]).lower() == channel.lower()) for channel, files in images.items())


def survey(root: str | Path, channels: Sequence[str] = DIXON) -> Survey:
    """Walk a folder, four levels deep, and sort its volumes by what their names say.

    Hidden files are passed over and linked folders are not entered (but see `data.paths`). Channel names are matched
    exactly first, then whatever their case.

    Raises:
      DataError: `root` is missing, not a folder, or a folder in it may not be read; a file is a link out of it or has
        no plain name.
      UsageError: no channels, or one twice.
    """
    root, channels = Path(root), tuple(channels)
    if not all(channels) or len({c.lower() for c in channels}) != max(1, len(channels)):
        raise UsageError(f"--data.channels {' '.join(channels) or 'without names'}: name one or more, each once")
    if not root.is_dir():
        what = "not a folder" if root.exists() else f"no such folder{files.near(root)}"
        raise DataError(f"{root}: {what}; pass the folder of the cases")
    found = Survey(root, channels)
    for path in _volumes(root):
        name, kind = _parse(path, root, channels)
        paths.check_link(path, root)
        for word in (_stem(path), name):
            paths.check_name(word, path)
        if kind in channels:
            found.images[name][kind].append(path)
        elif kind in LABELS:
            found.labels[name].append(path)
        else:
            found.others.append((name, kind, path))
    return found


def discover(root: str | Path, channels: Sequence[str] = DIXON) -> list[Case]:
    """Find the cases of a folder, sorted by name in natural order; each is its own subject until assigned.

    Raises:
      DataError: as `survey`; or there is no case, or a case misses a channel or has one twice.
      UsageError: as `survey`.
    """
    found = survey(root, channels)
    if not found.images:
        raise DataError(no_cases(found))
    names = found.names()
    faults = [fault for name in names for fault in found.faults(name)]
    if faults:
        more = f" (and {len(faults) - 1} more like it: `ivdjax check` lists all)" if len(faults) > 1 else ""
        raise DataError(faults[0] + more)
    return [case(found, name) for name in names]


def case(found: Survey, name: str) -> Case:
    """The case `name` of a survey, which must have one file a channel."""
    images = tuple(found.images[name][channel][0] for channel in found.channels)
    return Case(name, images, next(iter(found.labels.get(name, [])), None), name)


def no_cases(found: Survey) -> str:
    """The line that says what was looked for in a folder without cases, and which channels are there instead."""
    looked = f"{found.root}: no case with {', '.join(found.channels)} (layouts looked for: {LAYOUTS})"
    if not found.others and (scan := _dicom(found.root)):
        scan = scan.relative_to(found.root)
        return f"{found.root}: holds DICOM files ({scan}), no NIfTI; convert them first, as dcm2niix does"
    if not found.others:
        return f"{looked}; no other image was found either: pass the folder of the cases"
    seen = channels_seen(found)
    return f"{looked}; found channels {', '.join(seen)}: pass --data.channels {' '.join(seen)}"


def load_images(case: Case) -> tuple[np.ndarray, nifti.Grid]:
    """Read a case's images, image_ZxHxWxC float32, and the grid of the first, on whose canonical axes they are.

    Raises:
      DataError: a file cannot be used (see `nifti.read`), or lies on another grid than the first image.
    """
    grid = nifti.read_grid(case.images[0])
    for path in case.images[1:]:
        if fault := difference(nifti.read_grid(path), grid):
            raise DataError(f"{path}: {fault} than {case.images[0].name}; bring the channels to one grid first")
    image_ZxHxWxC = np.empty((*grid.shape, len(case.images)), np.float32)
    for c, path in enumerate(case.images):
        image_ZxHxWxC[..., c] = nifti.read(path).array
        if (low := image_ZxHxWxC[..., c].min()) == image_ZxHxWxC[..., c].max():
            raise DataError(f"{path}: every voxel is {low:g}; export the image again")
    return image_ZxHxWxC, grid


def load(case: Case, *, label_grid: str = "refuse") -> tuple[np.ndarray, np.ndarray, nifti.Grid]:
    """Read a case with its label map: (image_ZxHxWxC float32, label_ZxHxW uint8, grid of both).

    Args:
      case: what to read.
      label_grid: for a label map whose header places it elsewhere than the images: "refuse" it, trust its "voxels"
        and ignore its header, or resample it by its "header" to the nearest voxel. Nothing else is ever resampled.

    Raises:
      DataError: as `load_images`; or the case has no label map, or one that cannot be used.
      UsageError: `label_grid` is none of the three.
    """
    path = label_path(case)
    image_ZxHxWxC, grid = load_images(case)
    return image_ZxHxWxC, load_label(path, grid, label_grid), grid


def label_path(case: Case) -> Path:
    """The label map of a case that needs one.

    Raises:
      DataError: it has none.
    """
    if case.label is None:
        raise DataError(
            f"{case.images[0].parent}: case {case.name} has no label to learn from or to score; add "
            f"{case.name}_Labels.nii.gz, here or in any folder of --data.root"
        )
    return case.label


def load_label(path: Path, grid: nifti.Grid, label_grid: str = "refuse", reader: Reader = nifti) -> np.ndarray:
    """Read a label map (Z,H,W), uint8, onto its images' grid; arguments and errors as `load`."""
    if label_grid not in ("refuse", "voxels", "header"):
        raise UsageError(f"--data.label-grid {label_grid}: choose refuse, voxels or header")
    fault = difference(reader.read_grid(path), grid)
    if not fault:
        return reader.read_label(path).array
    if label_grid == "refuse":
        look = "see what `ivdjax check` says of both readings, then " if reader is nifti else ""
        raise DataError(
            f"{path}: {fault} than its images; {look}pass --data.label-grid voxels (ignore its header) or header "
            "(resample by it)"
        )
    if label_grid == "voxels":
        logger.warning("%s: %s than its images; its header is ignored (--data.label-grid voxels)", path, fault)
        return reader.read_label(path, on=grid).array
    logger.warning("%s: %s than its images; resampled by its header (--data.label-grid header)", path, fault)
    return nifti.place_by_header(reader.read_label(path), grid.affine, grid.shape)


def difference(grid: nifti.Grid, reference: nifti.Grid) -> str:
    """How a grid differs from a reference, to be read before "than ..."; empty where they agree up to rounding."""
    if grid.shape != reference.shape:
        return f"has another shape ({nifti.by(grid.shape)} against {nifti.by(reference.shape)} voxels)"
    moved_mm = nifti.corner_displacement_mm(grid.affine, reference.affine, reference.shape)
    rounded = np.allclose(grid.affine, reference.affine, rtol=0, atol=ROUNDING)
    if rounded or moved_mm <= SLACK_VOXELS * min(reference.spacing_mm):
        return ""
    return f"lies elsewhere by its header (up to {moved_mm:.1f} mm at the corners)"


def _volumes(root: Path) -> list[Path]:
    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename}: cannot be listed: {error.strerror}") from error

    found = []
    for folder, inner, inside in os.walk(root, onerror=refuse, followlinks=paths.follow()):
        deep = len(Path(folder).relative_to(root).parts) >= MAX_DEPTH
        named = [] if deep else sorted(name for name in inner if not name.startswith("."))
        inner[:] = [name for name in named if _entered(Path(folder, name), root)]
        found += [Path(folder, f) for f in sorted(inside) if f.endswith(nifti.SUFFIXES) and not f.startswith(".")]
    return found


def _entered(folder: Path, root: Path) -> bool:
    """Whether a folder is walked into: a linked one only where it lies outside and links are followed."""
    if not folder.is_symlink():
        return True
    out = paths.leads_out(folder, root)
    if out and not paths.follow():
        paths.pass_over(folder)
    return out and paths.follow()


def _parse(path: Path, root: Path, channels: tuple[str, ...]) -> tuple[str, str]:
    """The case a file belongs to and what it shows: a channel asked for, one of LABELS, or a word of its own."""
    stem = _stem(path)
    # The longest first, so that of the channels "tse" and "t2_tse" the second takes 01_t2_tse.
    known = sorted([*channels, *LABELS], key=len, reverse=True)
    for fold in (str, str.lower):
        for kind in known:
            if fold(stem) == fold(kind):
                return _folder_name(path, root), kind
            if fold(stem).endswith(fold(f"_{kind}")) and len(stem) > len(kind) + 1:
                return stem[: -len(kind) - 1], kind
    name, _, kind = stem.rpartition("_")
    return name or _folder_name(path, root), kind


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".nii")


def _folder_name(path: Path, root: Path) -> str:
    return (path.parent.name if path.parent != root else root.resolve().name) or "input"


def _dicom(root: Path) -> Path | None:
    """The first file of a folder, if it is DICOM (PS3.10: 128 bytes of anything, then DICM)."""
    for folder, _, inside in os.walk(root):
        for name in sorted(inside):
            path = Path(folder, name)
            if path.is_file() and not name.startswith("."):
                try:
                    with path.open("rb") as file:
                        return path if file.read(132)[128:] == b"DICM" else None
                except OSError:
                    return None  # this only words a suggestion
    return None


def channels_seen(found: Survey) -> list[str]:
    """The kinds among a survey's other volumes that look like images; 8-bit ones are masks, unless all are."""
    first = {kind: path for _, kind, path in reversed(found.others)}
    images = []
    for kind, path in sorted(first.items()):
        try:
            if nifti.read_grid(path).dtype != np.uint8:
                images.append(kind)
        except DataError:
            continue  # this only words a suggestion; the file is reported where it is asked for
    return images or sorted(first)


def natural(name: str) -> tuple[list[tuple[int, str]], str]:
    """Key to sort names by, 2 before 10."""
    parts = re.findall(r"\d+|\D+", name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts], name
