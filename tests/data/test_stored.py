import numpy as np
import pytest

from ivdjax.data.stored import Stored, checksum
from ivdjax.errors import DataError


@pytest.mark.parametrize("shape", [(5, 12, 10, 2), (5, 12, 10)])
def test_parts_are_those_of_the_array(tmp_path, shape):
    array = np.random.default_rng(0).normal(size=shape).astype(np.float16)
    stored = Stored.write(tmp_path / "a.npy", array)
    assert (stored.shape, stored.dtype, stored.nbytes) == (array.shape, array.dtype, array.nbytes)
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), array)
    np.testing.assert_array_equal(stored, array)
    for part in (np.s_[1:4, 2:9, 3:5], np.s_[0:5, 0:12, 0:10], np.s_[4:5, 0:12, 1:2], np.s_[2:3, 11:12, 9:10]):
        np.testing.assert_array_equal(stored[part], array[part])
    assert checksum(stored) == checksum(array) != checksum(array + 1)


def test_a_file_that_is_cut_short_or_gone_while_it_is_read_is_an_error_that_names_it(tmp_path):
    path = tmp_path / "a.npy"
    stored = Stored.write(path, np.arange(4000.0).reshape(4, 100, 10))
    path.write_bytes(path.read_bytes()[:20_000])
    np.testing.assert_array_equal(stored[0:2, 0:100, 0:10], np.arange(2000.0).reshape(2, 100, 10))
    for read in (lambda: np.asarray(stored), lambda: stored[2:3, 90:100, 0:10]):
        with pytest.raises(DataError, match=r"a\.npy: cannot be read \(it has become shorter\)"):
            read()
    with pytest.raises(DataError, match=r"a\.npy: is not as it was written"):
        Stored(path)
    path.unlink()
    with pytest.raises(DataError, match=r"a\.npy: cannot be read \(No such file"):
        np.asarray(stored)


@pytest.mark.parametrize("content", [b"", b"no array", b"\x93NUMPY\x01\x00\x10\x00{'descr': "])
def test_what_is_no_array_is_refused(tmp_path, content):
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.npy: cannot be read"):
        Stored(tmp_path / "a.npy")
