import atexit
import os
import shutil
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

# A program that a test compiles, the next test need not compile again, nor a process that a test starts. jax reads
# these when it is imported.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    _compiled = tempfile.mkdtemp(prefix="ivdjax-compiled-")
    atexit.register(shutil.rmtree, _compiled, ignore_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _compiled
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

from ivdjax.data.cache import CachedCase


@pytest.fixture(scope="session")
def real_data():
    """Folder of real MR images, named by IVDJAX_REAL_DATA; tests that need it skip without."""
    if "IVDJAX_REAL_DATA" not in os.environ:
        pytest.skip("IVDJAX_REAL_DATA does not name a folder of real images")
    return Path(os.environ["IVDJAX_REAL_DATA"])


def made_case(seed: int, shape=(5, 40, 36), channels=1) -> CachedCase:
    """A case of noise in which bright boxes are the discs; its slices differ in size from case to case."""
    rng = np.random.default_rng(seed)
    Z, H, W = shape
    label_ZxHxW = np.zeros((Z, H + seed % 3, W), np.uint8)
    for top in range(5, H - 5, 12):
        label_ZxHxW[1:-1, top : top + 5, 10:22] = 1
    image_ZxHxWxC = rng.normal(0, 0.5, (*label_ZxHxW.shape, channels)) + 2.0 * label_ZxHxW[..., None]
    return CachedCase(f"{seed:02d}", image_ZxHxWxC.astype(np.float16), label_ZxHxW, (2.0, 1.25, 1.25))


@pytest.fixture
def made_cases():
    return [made_case(seed) for seed in range(3)]


@pytest.fixture(scope="session")
def tree(tmp_path_factory):
    """Three subjects of noise with two bright boxes for discs, in one channel, `t2`."""
    root, rng = tmp_path_factory.mktemp("tree"), np.random.default_rng(0)
    affine = np.diag([2.0, -1.25, -1.25, 1.0])[[0, 2, 1, 3]]
    for name in ("01", "02", "03"):
        label = np.zeros((6, 32, 32), np.uint8)
        label[1:5, 4:12, 8:24] = label[1:5, 18:26, 8:24] = 1
        image = (100 + 300 * label.astype(int) + rng.normal(0, 50, label.shape)).clip(0).astype(np.int16)
        (root / name).mkdir()
        nib.save(nib.Nifti1Image(image, affine), root / name / f"{name}_t2.nii.gz")
        nib.save(nib.Nifti1Image(label, affine), root / name / f"{name}_Labels.nii.gz")
    return root
