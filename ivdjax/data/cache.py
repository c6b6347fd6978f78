"""One normalised array a case, made once, and read in parts; a fingerprint says what it was made of.

The cache has a folder a case and in it one a fingerprint, which holds `image.npy` (Z,H,W,C) float16, `label.npy`
(Z,H,W) uint8 and `case.json`. The last is written last and has the checksums of both, so what is half made or damaged
is made anew. Runs whose settings or scans differ may share a cache: they have different folders there.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError  # by NumPy, of a header that is no Python literal

import numpy as np

from ivdjax import files
from ivdjax.config import Data
from ivdjax.data import dataset
from ivdjax.data.dataset import Case
from ivdjax.data.stored import Stored, checksum
from ivdjax.errors import DataError

_FORMAT = 2  # of the cache; raised when what is stored changes


@dataclass(frozen=True)
class CachedCase:
    """A case as the pipeline sees it."""

    name: str
    image_ZxHxWxC: np.ndarray | Stored
    label_ZxHxW: np.ndarray | Stored
    spacing_mm: tuple[float, float, float]
    digest: str = ""
    """SHA-256 of the bytes of its scans and its mask."""


def normalise(image_ZxHxWxC: np.ndarray, clip_percentiles: tuple[float, float]) -> np.ndarray:
    """Clip each channel of a volume to its percentiles, then give it zero mean and unit variance; float32."""
    low_C, high_C = np.percentile(image_ZxHxWxC, clip_percentiles, axis=(0, 1, 2))
    clipped_ZxHxWxC = np.clip(image_ZxHxWxC, low_C, high_C)
    mean_C = clipped_ZxHxWxC.mean((0, 1, 2), dtype=np.float64)
    deviation_C = np.maximum(clipped_ZxHxWxC.std((0, 1, 2), dtype=np.float64), 1e-6)
    return ((clipped_ZxHxWxC - mean_C) / deviation_C).astype(np.float32)


def build(cases: Sequence[Case], data: Data, folder: Path) -> Iterator[CachedCase]:
    """Yield each case from the cache, made first where it is missing or stale, in the order given.

    Raises:
        DataError: a case cannot be read or has no label.
    """
    files.writable(folder)
    with ThreadPoolExecutor(max(1, data.threads)) as pool:
        yield from pool.map(lambda case: _cached(case, data, folder), cases)


def _cached(case: Case, data: Data, folder: Path) -> CachedCase:
    digest = digest_of(case)
    made_by = repr((_FORMAT, data.clip_percentiles, data.label_grid, digest))
    home = folder / case.name / hashlib.sha256(made_by.encode()).hexdigest()[:16]
    found = _open(case.name, home, digest)
    if found is not None:
        return found
    image_ZxHxWxC, label_ZxHxW, grid = dataset.load(case, label_grid=data.label_grid)
    if not label_ZxHxW.any():
        raise DataError(f"{case.label}: the label is empty; label the case or take it out")
    home.mkdir(parents=True, exist_ok=True)
    (home / "case.json").unlink(missing_ok=True)
    image = normalise(image_ZxHxWxC, data.clip_percentiles).astype(np.float16)
    label = np.asarray(label_ZxHxW > 0, np.uint8)
    stored = Stored.write(home / "image.npy", image), Stored.write(home / "label.npy", label)
    sums = [checksum(image), checksum(label)]
    files.write_json(home / "case.json", {"spacing_mm": grid.spacing_mm, "crc32": sums})
    return CachedCase(case.name, *stored, grid.spacing_mm, digest)


def _open(name: str, home: Path, digest: str) -> CachedCase | None:
    """What is in a case's folder; None where it is not there whole."""
    stamp = home / "case.json"
    if not stamp.exists():
        return None
    try:
        told = files.read_json(stamp)
        image, label = Stored(home / "image.npy"), Stored(home / "label.npy")
        if told["crc32"] != [checksum(image), checksum(label)]:
            return None
        z_mm, h_mm, w_mm = (float(mm) for mm in told["spacing_mm"])
        return CachedCase(name, image, label, (z_mm, h_mm, w_mm), digest)
    except (DataError, OSError, EOFError, ValueError, KeyError, TypeError, OverflowError, RecursionError, TokenError):
        return None


def digest_of(case: Case) -> str:
    """SHA-256 of every byte of a case's images and its label map.

    Raises:
        DataError: it has no label map, or a file cannot be read.
    """
    digest = hashlib.sha256()
    for part in _contents([*case.images, dataset.label_path(case)]):
        digest.update(part)
    return digest.hexdigest()


def _contents(paths: Iterable[Path]) -> Iterator[bytes]:
    for path in paths:
        try:
            if path.exists() and not path.is_file():  # a pipe would be waited for
                raise DataError(f"{path}: is no plain file; put the image in its place")
            with path.open("rb") as file:
                yield hashlib.file_digest(file, "sha256").digest()
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror}); check it with `ivdjax check`") from error
