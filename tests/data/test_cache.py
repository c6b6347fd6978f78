import dataclasses

import nibabel as nib
import numpy as np
import pytest

from ivdjax.config import Data
from ivdjax.data import cache, dataset
from ivdjax.errors import DataError

DATA = Data(channels=("t2",), subjects="single")


@pytest.fixture
def tree(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("01", "02"):
        folder = tmp_path / "tree" / name
        folder.mkdir(parents=True)
        label = np.zeros((4, 12, 10), np.uint8)
        label[1:3, 4:8, 3:7] = 1
        affine = np.diag([2.0, 1.25, 1.25, 1.0])
        nib.save(nib.Nifti1Image(rng.integers(0, 999, (4, 12, 10)).astype(np.int16), affine), folder / f"{name}_t2.nii")
        nib.save(nib.Nifti1Image(label, affine), folder / f"{name}_Labels.nii")
    return tmp_path / "tree"


def build(tree, folder, data=DATA):
    return list(cache.build(dataset.discover(tree, data.channels), data, folder))


def test_normalised_volumes_have_mean_zero_and_deviation_one():
    image = np.random.default_rng(0).gamma(2.0, 100.0, (4, 30, 30, 2)) * [1, 50]
    normal = cache.normalise(image, (0.5, 99.5))
    np.testing.assert_allclose(normal.mean((0, 1, 2)), 0, atol=1e-4)
    np.testing.assert_allclose(normal.std((0, 1, 2)), 1, atol=1e-4)


def test_clipping_takes_off_what_lies_beyond_the_percentiles():
    image = np.arange(1000.0).reshape(10, 10, 10, 1)
    spiked = image.copy()
    spiked[-1, -1, -1] = 1e9
    assert cache.normalise(spiked, (0.5, 99.0)).max() < 3


def test_what_was_made_is_used_again_and_what_is_stale_made_anew(tree, tmp_path):
    first = build(tree, tmp_path / "cache")
    (stamp,) = (tmp_path / "cache" / "01").glob("*/image.npy")
    made = stamp.stat().st_mtime_ns
    build(tree, tmp_path / "cache")
    assert stamp.stat().st_mtime_ns == made

    image = nib.load(tree / "01" / "01_t2.nii")
    changed = np.asarray(image.dataobj)[::-1].copy()
    nib.save(nib.Nifti1Image(changed, image.affine), tree / "01" / "01_t2.nii")
    again = build(tree, tmp_path / "cache")
    assert not np.array_equal(first[0].image_ZxHxWxC, again[0].image_ZxHxWxC)
    assert first[0].digest != again[0].digest
    assert first[1].digest == again[1].digest
    np.testing.assert_array_equal(first[1].image_ZxHxWxC, again[1].image_ZxHxWxC)

    other = dataclasses.replace(DATA, clip_percentiles=(10.0, 90.0))
    clipped = build(tree, tmp_path / "cache", other)[1]
    assert np.max(clipped.image_ZxHxWxC) < np.max(first[1].image_ZxHxWxC)  # which is still there for who uses it
    assert clipped.digest == first[1].digest  # of the scans alone


@pytest.mark.parametrize("name", ["image.npy", "label.npy", "case.json"])
@pytest.mark.parametrize("spoil", [lambda _: None, lambda b: b[:90], lambda b: b[:-9], lambda b: b[:-9] + b"\x7e" * 9])
def test_a_case_that_is_half_made_or_damaged_is_made_again(tree, tmp_path, name, spoil):
    whole = [np.asarray(part) for part in arrays(build(tree, tmp_path / "cache"))]
    (path,) = (tmp_path / "cache" / "01").glob(f"*/{name}")
    sound, left = path.read_bytes(), spoil(path.read_bytes())
    path.unlink() if left is None else path.write_bytes(left)
    for made, again in zip(whole, arrays(build(tree, tmp_path / "cache")), strict=True):
        np.testing.assert_array_equal(made, again)
    assert path.read_bytes() == sound


def arrays(cases):
    return [part for case in cases for part in (case.image_ZxHxWxC, case.label_ZxHxW)]


def test_a_case_without_a_label_is_refused(tree, tmp_path):
    (tree / "02" / "02_Labels.nii").unlink()
    with pytest.raises(DataError, match="02 has no label"):
        build(tree, tmp_path / "cache")
