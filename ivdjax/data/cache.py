"""One normalised, memory-mapped array a case, made once; a fingerprint says when it is stale.

A case's folder in the cache holds `image.npy` (Z,H,W,C) float16, `label.npy` (Z,H,W) uint8 and `case.json`. The last
is written last, so a folder without it, or with another fingerprint in it, is made anew.
"""

import hashlib
import json
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
from ivdjax.errors import DataError

_FORMAT = 1  # of the cache; raised when what is stored changes


@dataclass(frozen=True)
class CachedCase:
    """A case as the pipeline sees it; the arrays are memory-mapped and opened read-only."""

    name: str
    image_ZxHxWxC: np.ndarray
    label_ZxHxW: np.ndarray
    spacing_mm: tuple[float, float, float]


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
    if case.label is None:
        raise DataError(f"{case.images[0].parent}: case {case.name} has no label to learn from or to score; add it")
    home, fingerprint = folder / case.name, _fingerprint(case, data)
    found = _opened(case.name, home, fingerprint)
    if found is None:
        image_ZxHxWxC, label_ZxHxW, spacing_mm, _ = dataset.load(case, label_grid=data.label_grid)
        if not label_ZxHxW.any():
            raise DataError(f"{case.label}: the label is empty; label the case or take it out")
        home.mkdir(parents=True, exist_ok=True)
        stamp = home / "case.json"
        stamp.unlink(missing_ok=True)
        _save(home / "image.npy", normalise(image_ZxHxWxC, data.clip_percentiles).astype(np.float16))
        _save(home / "label.npy", (label_ZxHxW > 0).astype(np.uint8))
        files.write_json(stamp, {"fingerprint": fingerprint, "spacing_mm": [float(s) for s in spacing_mm]})
        found = _opened(case.name, home, fingerprint)
    if found is None:
        raise DataError(f"{home}: cannot be read back; remove the folder and start again")
    return found


def _opened(name: str, home: Path, fingerprint: str) -> CachedCase | None:
    """What the cache has of a case; None where that is missing, stale or damaged."""
    try:
        stamp = json.loads((home / "case.json").read_bytes())
        if stamp["fingerprint"] != fingerprint:
            return None
        image_ZxHxWxC, label_ZxHxW = (
            np.load(home / f"{kind}.npy", mmap_mode="r", allow_pickle=False) for kind in ("image", "label")
        )
        z_mm, h_mm, w_mm = (float(mm) for mm in stamp["spacing_mm"])
    except (OSError, EOFError, ValueError, KeyError, TypeError, OverflowError, RecursionError, TokenError):
        return None
    sound = image_ZxHxWxC.dtype == np.float16 and label_ZxHxW.dtype == np.uint8
    if not sound or image_ZxHxWxC.ndim != 4 or image_ZxHxWxC.shape[:3] != label_ZxHxW.shape:
        return None
    return CachedCase(name, image_ZxHxWxC, label_ZxHxW, (z_mm, h_mm, w_mm))


def _save(path: Path, array: np.ndarray) -> None:
    with files.replacing(path) as partial, partial.open("wb") as file:
        np.save(file, array, allow_pickle=False)


def _fingerprint(case: Case, data: Data) -> str:
    """Hash of every byte and every setting that the cached arrays come from."""
    digest = hashlib.sha256(repr((_FORMAT, data.clip_percentiles, data.label_grid)).encode())
    for part in _contents([*case.images, case.label]):
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
