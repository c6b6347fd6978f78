"""Every way we know that an input can be wrong, each a change of a sound `world`."""

import gzip
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.trust.world import CASE, World, edit_json, rewrite

Change = Callable[[Path], None]


def images(change: Change, scanners: bool = True) -> Callable[[World], None]:
    """Spoil an image of each verb's input; without `scanners` only those in NIfTI."""
    return lambda world: _each(world.images, change, scanners)


def labels(change: Change, scanners: bool = True) -> Callable[[World], None]:
    """Spoil a label map of each verb's input."""
    return lambda world: _each(world.labels, change, scanners)


def masks(change: Change) -> Callable[[World], None]:
    """Spoil a predicted mask."""
    return lambda world: _each(world.masks, change, False)


def file(name: str, change: Change) -> Callable[[World], None]:
    """Spoil one file or folder, or all that a pattern names."""
    return lambda world: _each(sorted(world.root.glob(name)), change, True)


def json_file(name: str, change: Callable[[dict], None]) -> Callable[[World], None]:
    """Change what a JSON file holds."""
    return file(name, lambda path: edit_json(path, change))


def _each(paths: list[Path], change: Change, scanners: bool) -> None:
    assert paths, "nothing to spoil"
    for path in paths:
        if scanners or path.suffix != ".mha":
            change(path)


# Files.


def gone(path: Path) -> None:
    """No longer there."""
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def zero(path: Path) -> None:
    """There, and empty."""
    path.write_bytes(b"")


def folder(path: Path) -> None:
    """A folder where a file was."""
    gone(path)
    path.mkdir()


def plain_file(path: Path) -> None:
    """A file where a folder was."""
    gone(path)
    path.write_text("no folder")


def emptied(path: Path) -> None:
    """A folder with nothing in it."""
    gone(path)
    path.mkdir()


def broken_link(path: Path) -> None:
    """A link to nowhere."""
    gone(path)
    path.symlink_to("nowhere")


def loop_link(path: Path) -> None:
    """A link to itself."""
    gone(path)
    path.symlink_to(path.name)


def pipe(path: Path) -> None:
    """A pipe that nobody writes to: opening it would wait for ever."""
    gone(path)
    os.mkfifo(path)


def halved(path: Path) -> None:
    """The first half of it."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flipped(path: Path) -> None:
    """One bit in its middle is another."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)


def text(path: Path) -> None:
    """Words in place of what should be there."""
    path.write_text("These are words, and no more than that. " * 20)


def zipped_text(path: Path) -> None:
    """Words, zipped."""
    path.write_bytes(gzip.compress(b"These are words, and no more than that. " * 20))


def unzipped(path: Path) -> None:
    """Called .gz, and is not zipped."""
    path.write_bytes(gzip.decompress(path.read_bytes()))


def renamed(suffix: str) -> Change:
    """The same under another suffix."""
    return lambda path: path.rename(path.with_name(path.name.partition(".")[0] + suffix)) and None


def pair(path: Path) -> None:
    """A .hdr and .img pair, as Analyze and old SPM have it."""
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[344:348] = b"ni1\0"
    stem = path.name.partition(".")[0]
    path.with_name(f"{stem}.hdr").write_bytes(content[:348])
    path.with_name(f"{stem}.img").write_bytes(content[352:])
    path.unlink()


def pair_header(path: Path) -> None:
    """The header of a pair under the name of a whole file."""
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[344:348] = b"ni1\0"
    path.write_bytes(gzip.compress(content))


def dicom(path: Path) -> None:
    """A DICOM file under the name of a NIfTI file."""
    path.write_bytes(gzip.compress(bytes(128) + b"DICM" + bytes(1000)))


# Headers.


def header(change: Callable) -> Change:
    """Change the header of a NIfTI file."""

    def both(head, array):
        change(head)
        return array

    return lambda path: rewrite(path, both)


def four_d(path: Path) -> None:
    """Two volumes in one file."""

    def twice(head, array):
        head["dim"][:5] = (4, *array.shape, 2)
        return np.stack([array, array], -1)

    rewrite(path, twice)


def unplaced(head) -> None:
    """Neither sform nor qform."""
    head["sform_code"] = head["qform_code"] = 0


def singular(head) -> None:
    """Two axes that run the same way."""
    head["srow_y"] = head["srow_x"]


def nan_affine(head) -> None:
    """An affine that is no number."""
    head["srow_x"] = np.nan


def terabyte(head) -> None:
    """A promise of a terabyte."""
    head["dim"][:4] = (3, 8000, 8000, 8000)


def no_voxels(head) -> None:
    """A grid without voxels."""
    head["dim"][2] = 0


def metres(head) -> None:
    """Lengths in metres."""
    for row in ("srow_x", "srow_y", "srow_z"):
        head[row] = head[row] / 1000
    head["pixdim"][1:4] /= 1000


def moved(head) -> None:
    """A header that puts it elsewhere."""
    head["srow_x"][3] += 5


def dtype(code: int, bits: int) -> Change:
    """Voxels of another type, by NIfTI's code."""

    def change(head, array):
        head["datatype"], head["bitpix"] = code, bits
        return bytes(array.size * bits // 8)

    return lambda path: rewrite(path, change)


# Values.


def values(change: Callable[[np.ndarray], np.ndarray]) -> Change:
    """Other voxels, stored in the type that they then have."""

    def stored(head, array):
        array = change(array)
        head.set_data_dtype(array.dtype)
        head.set_data_shape(array.shape)
        return array

    return lambda path: rewrite(path, stored)


def with_one(value: float) -> Change:
    """One voxel of another value."""

    def change(array):
        array = array.astype(np.float32)
        array[2, 6, 12] = value
        return array

    return values(change)


def constant(value: float) -> Change:
    """All voxels alike."""
    return values(lambda array: np.full_like(array, value))


def cut(array: np.ndarray) -> np.ndarray:
    """One slice less."""
    return array[1:]


# Names.


def renamed_cases(name: str) -> Callable[[World], None]:
    """Another name for the spoilt case, wherever it stands."""

    def change(world: World) -> None:
        for place in ("tree", "masks", "Dataset001_Boxes", "spider"):
            for path in sorted((world.root / place).rglob("*"), reverse=True):
                stem = "1" if place == "spider" else CASE
                if path.name.startswith((f"{stem}_", f"{stem}.")) or path.name == stem:
                    path.rename(path.with_name(path.name.replace(stem, name, 1)))
        for table in ("subjects.csv", "folds.csv"):
            path = world.root / table
            if "\n" not in name:
                content = path.read_bytes().replace(CASE.encode(), os.fsencode(name), 1)
                path.write_bytes(content)

    return change


def twice(path: Path) -> None:
    """A second file for the same."""
    other = path.with_name(path.name.removesuffix(".gz"))
    if other == path:  # a scanner's
        return
    other.write_bytes(gzip.decompress(path.read_bytes()))


def twice_elsewhere(path: Path) -> None:
    """A second one in another folder."""
    (path.parent / "copy").mkdir()
    shutil.copyfile(path, path.parent / "copy" / path.name)


def other_channels(world: World) -> None:
    """Scans of another kind than the networks know."""
    for path in sorted((world.root / "tree").rglob("*.nii.gz")):
        path.rename(path.with_name(path.name.replace("_fat", "_t1").replace("_wat", "_t2")))


# Tables.


def table(content: str | bytes) -> Change:
    """A table that says something else."""
    return lambda path: path.write_bytes(content if isinstance(content, bytes) else content.encode()) and None


# JSON.


def without(*keys: str) -> Callable[[dict], None]:
    """A field less."""
    return lambda value: _inner(value, keys[:-1]).pop(keys[-1]) and None


def setting(new: object, *keys: str) -> Callable[[dict], None]:
    """A field with another value."""

    def change(value: dict) -> None:
        _inner(value, keys[:-1])[keys[-1]] = new

    return change


def _inner(value: dict, keys: tuple[str, ...]) -> dict:
    for key in keys:
        value = value[key]
    return value
