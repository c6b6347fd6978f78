"""Weights without a run: a folder of `config.json` (the experiment), `params.safetensors` and a card.

In a file of safetensors (https://github.com/huggingface/safetensors) nothing can run. Arrays are stored in 16 bits,
which moves a probability by less than what a voxel's noise does.
"""

from collections.abc import Collection
from pathlib import Path

import numpy as np
from flax import traverse_util
from safetensors import SafetensorError
from safetensors import numpy as safetensors

from ivdjax import files
from ivdjax.errors import DataError

FILE = "params.safetensors"
# Names a user may give in place of a folder.
PACKAGED = {"default": Path(__file__).parent / "default"}
MAX_BYTES = 2**30  # half a billion weights; the networks here have some millions
_DEEPEST = 32  # levels of modules within modules


def find(name: Path | str) -> Path:
    """The folder of a run or of weights; a name in PACKAGED stands for those that come with the package."""
    return PACKAGED.get(str(name), Path(name))


def write(path: Path, params: dict) -> None:
    """Write a tree of arrays, in 16 bits."""
    named = traverse_util.flatten_dict(params, sep="/")
    arrays = {name: np.ascontiguousarray(array, np.float16) for name, array in named.items()}
    with files.replacing(path) as partial:
        partial.write_bytes(safetensors.save(arrays))


def read(path: Path) -> dict:
    """Read a tree of arrays, in float32.

    Raises:
        DataError: the file is missing, cut off or of another format, or holds values that are not finite.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"{path}: has over {MAX_BYTES} bytes, too many for weights; restore it")
        arrays = safetensors.load(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); restore it") from error
    except (SafetensorError, LookupError) as error:  # the second of a type that NumPy has not
        raise DataError(f"{path}: is damaged or no file of weights ({error}); restore it") from error
    named = {tuple(name.split("/")): array for name, array in arrays.items()}
    for name, array in named.items():
        if fault := _fault(name, array, named.keys()):
            raise DataError(f"{path}: is damaged or no file of weights ({fault}); restore it")
    return traverse_util.unflatten_dict({name: array.astype(np.float32) for name, array in named.items()})


def _fault(name: tuple[str, ...], array: np.ndarray, names: Collection[tuple[str, ...]]) -> str:
    """What keeps an array from being one of a network's; empty where nothing does."""
    if len(name) > _DEEPEST or any(name[:i] in names for i in range(1, len(name))):
        return f"no tree holds {'/'.join(name)[:80]}"
    if array.dtype not in (np.float16, np.float32):
        return f"{array.dtype} is no type of weights"
    return "" if np.isfinite(array).all() else "values that are not finite"
