"""Weights without a run: a folder of `config.json` (the experiment), `params.safetensors` and a card.

The format is safetensors (https://github.com/huggingface/safetensors): eight bytes for the length of a JSON header,
the header with type, shape and place of each array, then the arrays one after another. Nothing in it can run. Arrays
are stored in 16 bits, which moves a probability by less than what a voxel's noise does.
"""

import json
from pathlib import Path

import numpy as np
from flax import traverse_util

from ivdjax import files
from ivdjax.errors import DataError

FILE = "params.safetensors"
# Names a user may give in place of a folder.
PACKAGED = {"default": Path(__file__).parent / "default"}
_HEADER_BYTES = 8
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
        DataError: the file is missing, cut off or of another format.
    """
    try:
        content = path.read_bytes()
        start = _HEADER_BYTES + int.from_bytes(content[:_HEADER_BYTES], "little")
        header = json.loads(content[_HEADER_BYTES:start])
        arrays = {}
        for name, entry in header.items():
            if name != "__metadata__":
                first, last = entry["data_offsets"]
                flat = np.frombuffer(content[start + first : start + last], _TYPES[entry["dtype"]])
                arrays[name] = flat.reshape(entry["shape"]).astype(np.float32)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); restore it") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: is damaged or no file of weights ({error}); restore it") from error
    return traverse_util.unflatten_dict(arrays, sep="/")
