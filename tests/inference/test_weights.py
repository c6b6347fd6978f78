"""The file of weights, and the weights in the package."""

import itertools
import json

import nibabel as nib
import numpy as np
import pytest

from ivdjax import trained as finished
from ivdjax.data import dataset
from ivdjax.errors import DataError
from ivdjax.inference import weights

PARAMS = {"block": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3) / 7, "scale": np.float32([0.5])}}


def test_what_is_written_is_read_back_in_sixteen_bits(tmp_path):
    weights.write(tmp_path / "w.safetensors", PARAMS)
    back = weights.read(tmp_path / "w.safetensors")
    np.testing.assert_array_equal(back["block"]["kernel"], PARAMS["block"]["kernel"].astype(np.float16))
    np.testing.assert_array_equal(back["block"]["scale"], [0.5])
    assert back["block"]["kernel"].dtype == np.float32


def test_the_file_is_laid_out_as_safetensors(tmp_path):
    weights.write(tmp_path / "w.safetensors", PARAMS)
    content = (tmp_path / "w.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    assert length % 8 == 0
    header = json.loads(content[8 : 8 + length])
    assert header["block/kernel"] == {"dtype": "F16", "shape": [2, 3], "data_offsets": [0, 12]}
    assert header["block/scale"] == {"dtype": "F16", "shape": [1], "data_offsets": [12, 14]}
    assert len(content) == 8 + length + 14


def test_a_file_of_another_tool_in_32_bits_is_read_too(tmp_path):
    text = json.dumps(
        {"__metadata__": {"format": "np"}, "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
    ).encode()
    (tmp_path / "w.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + np.float32([1.5, -2]).tobytes())
    np.testing.assert_array_equal(weights.read(tmp_path / "w.safetensors")["a"], [1.5, -2])


@pytest.mark.parametrize("content", [b"", b"not weights at all", b"\x02\0\0\0\0\0\0\0[]"])
def test_what_is_no_file_of_weights_is_named(tmp_path, content):
    (tmp_path / "w.safetensors").write_bytes(content)
    with pytest.raises(DataError, match=r"w\.safetensors: is damaged"):
        weights.read(tmp_path / "w.safetensors")


def test_the_packaged_weights_are_small_whole_and_have_a_card():
    folder = weights.find("default")
    assert {path.name for path in folder.iterdir()} == {"CARD.md", "config.json", weights.FILE}
    assert sum(path.stat().st_size for path in folder.iterdir()) < 10e6
    trained = finished.load(folder)
    assert trained.experiment.name == "phantom_pretrain"
    assert trained.accept(("wat",)) == [3]


def test_the_packaged_weights_find_the_discs_of_a_real_person(real_data, tmp_path):
    (case,) = dataset.discover(real_data / "water" / "08", ("wat",))
    finished.load(weights.find("default")).predict(case, tmp_path / "mask.nii.gz", ("wat",))
    mask = np.asarray(nib.load(tmp_path / "mask.nii.gz").dataobj) > 0
    vertebrae = np.asarray(nib.load(real_data / "water" / "08" / "08_Vertebrae.nii.gz").dataobj)
    voxel_cm3 = np.prod(nib.load(case.images[0]).header.get_zooms()) / 1000
    assert 45 < mask.sum() * voxel_cm3 < 110
    assert (vertebrae[mask] > 0).mean() < 0.06
    # Between each two vertebrae, L1 to L5, there is some of it; axis 1 runs down.
    rows = [np.argwhere(vertebrae == level)[:, 1] for level in range(1, 6)]
    for upper, lower in itertools.pairwise(rows):
        between = mask[:, int(upper.mean()) : int(lower.mean())]
        assert between.sum() * voxel_cm3 > 3
