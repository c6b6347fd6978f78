"""Weights without a run: a folder of `config.json` (the experiment), `params.safetensors` and a card.

The format is safetensors (https://github.com/huggingface/safetensors): eight bytes for the length of a JSON header,
the header with type, shape and place of each array, then the arrays one after another. Nothing in it can run. Arrays
are stored in 16 bits, which moves a probability by less than what a voxel's noise does.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax import traverse_util

from ivdjax import files
from ivdjax.errors import DataError

FILE = "params.safetensors"
# Names a user may give in place of a folder.
PACKAGED = {"default": Path(__file__).parent / "default"}
MAX_BYTES = 2**30  # half a billion weights; the networks here have some millions
_HEADER_BYTES = 8
_DEEPEST = 32  # levels of modules within modules
_TYPES: dict[str, np.dtype] = {"F16": np.dtype("<f2"), "F32": np.dtype("<f4")}


def find(name: Path | str) -> Path:
    """The folder of a run or of weights; a name in PACKAGED stands for those that come with the package."""
    return PACKAGED.get(str(name), Path(name))


def write(path: Path, params: dict) -> None:
    """Write a tree of arrays, in 16 bits."""
    arrays = {
        name: np.asarray(array).astype("<f2") for name, array in traverse_util.flatten_dict(params, sep="/").items()
    }
    header, end = {}, 0
    for name, array in arrays.items():
        header[name] = {"dtype": "F16", "shape": list(array.shape), "data_offsets": [end, end + array.nbytes]}
        end += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % _HEADER_BYTES)
    with files.replacing(path) as partial, partial.open("wb") as file:
        file.write(len(text).to_bytes(_HEADER_BYTES, "little") + text)
        for array in arrays.values():
            file.write(array.tobytes())


def read(path: Path) -> dict:
    """Read a tree of arrays, in float32.

    Raises:
        DataError: the file is missing, cut off or of another format, or holds values that are not finite.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"{path}: has over {MAX_BYTES} bytes, too many for weights; restore it")
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); restore it") from error
    start = _HEADER_BYTES + int.from_bytes(content[:_HEADER_BYTES], "little")
    try:
        header = json.loads(content[_HEADER_BYTES:start])
        entries = {tuple(name.split("/")): entry for name, entry in header.items() if name != "__metadata__"}
        _check_layout(entries, len(content) - start)
        arrays = {name: _array(memoryview(content)[start:], **entry) for name, entry in entries.items()}
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise DataError(f"{path}: is damaged or no file of weights ({error}); restore it") from error
    return traverse_util.unflatten_dict(arrays)


def _check_layout(entries: Mapping[tuple[str, ...], Mapping[str, Any]], size: int) -> None:
    """See that no array lies within another's name, and that all together are no more than the file holds."""
    for name in entries:
        if len(name) > _DEEPEST or any(name[:i] in entries for i in range(1, len(name))):
            raise ValueError(f"no tree holds {'/'.join(name)[:80]}")
    if sum(entry["data_offsets"][1] - entry["data_offsets"][0] for entry in entries.values()) > size:
        raise ValueError("arrays overlap, or the file was cut off")


def _array(content: memoryview, dtype: str, shape: list[int], data_offsets: list[int]) -> np.ndarray:
    """An array of a file, of the place and size that the header gives."""
    first, last = data_offsets
    size = math.prod(shape) * _TYPES[dtype].itemsize
    if min([first, *shape]) < 0 or last - first != size or last > len(content):
        raise ValueError(f"no array of shape {shape} is at {first} to {last}")
    array = np.frombuffer(content[first:last], _TYPES[dtype]).reshape(shape).astype(np.float32)
    if not np.isfinite(array).all():
        raise ValueError("values that are not finite")
    return array
