"""What a fuzzed NIfTI file meets: everything that reads a user's volumes. Each returns whether it was taken.

A target raises where what it was given back is not what it may be; `DataError` and `UsageError` are how files are
refused, and all else is a failure.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np

from ivdjax.data import check, dataset, nifti, nifti_header
from ivdjax.evaluation import evaluate, measure_masks
from tests.trust import fuzz_volumes

SMALL = 2**22  # voxels of what is read twice, to compare

Target = Callable[[Path, Path], bool]
"""Takes the file to read and a folder to write to, which is empty and stays so where the file is refused."""


def sound_files(folder: Path) -> None:
    """Write the sound image and mask that fuzzed files are paired with."""
    affine = np.diag([-2.0, 1.25, 1.25, 1.0])[:, [0, 2, 1, 3]]
    label = np.zeros(fuzz_volumes.SHAPE, np.uint8)
    label[1:5, 3:8, 4:14] = label[1:5, 13:18, 4:14] = 1
    image = (20 + 60 * label.astype(int)).astype(np.int16)
    image[0] += np.arange(image[0].size).reshape(image[0].shape).astype(np.int16)
    for name, array in (("image", image), ("label", label)):
        nib.save(nib.Nifti1Image(array, affine), folder / f"{name}.nii.gz")


def read(path: Path, out: Path) -> bool:
    volume, grid = nifti.read(path), nifti.read_grid(path)
    assert volume.array.shape == grid.shape
    assert volume.array.dtype == np.float32
    assert np.isfinite(volume.array).all()
    assert np.isfinite(volume.affine).all()
    assert len(volume.spacing_mm) == 3
    assert min(volume.spacing_mm) > 0
    return True


def read_grid(path: Path, out: Path) -> bool:
    grid = nifti.read_grid(path)
    assert 1 <= np.prod(grid.shape, dtype=float) <= nifti_header.MAX_VOXELS
    assert np.isfinite(grid.affine).all()
    return True


def read_label(path: Path, out: Path) -> bool:
    volume = nifti.read_label(path)
    assert volume.array.dtype == np.uint8
    assert volume.array.ndim == 3
    return True


def write_mask(path: Path, out: Path) -> bool:
    """A mask on the file's grid comes back as it was."""
    grid = nifti.read_grid(path)
    mask = np.zeros(grid.shape, np.uint8)
    mask[grid.shape[0] // 2] = 3
    nifti.write_mask(mask, path, out / "mask.nii.gz")
    written, again = nifti.read_label(out / "mask.nii.gz"), nifti.read_grid(out / "mask.nii.gz")
    assert np.array_equal(written.array, mask)
    assert np.array_equal(again.disk_affine, grid.disk_affine)
    return True


def copy(path: Path, out: Path) -> bool:
    """As `convert` does it: what can be read whole is copied."""
    nifti.read(path)
    nifti.copy(path, out / "copy.nii.gz", placed_as=path if path.name.endswith(".gz") else None)
    if np.prod(nifti.read_grid(path).shape) < SMALL:
        assert np.array_equal(nifti.read(out / "copy.nii.gz").array, nifti.read(path).array)
    return True


def check_image(path: Path, out: Path) -> bool:
    return _check(path.parent, path.name, "label.nii.gz")


def check_label(path: Path, out: Path) -> bool:
    return _check(path.parent, "image.nii.gz", path.name)


def load_channel(path: Path, out: Path) -> bool:
    """As the cache does with a case whose second channel the file is."""
    images = (path.parent / "image.nii.gz", path)
    image_ZxHxWxC, _, _, _ = dataset.load(dataset.Case("01", images, None, "01"))
    assert np.isfinite(image_ZxHxWxC).all()
    return True


def label_by_header(path: Path, out: Path) -> bool:
    return _load_label(path, "header")


def label_by_voxels(path: Path, out: Path) -> bool:
    return _load_label(path, "voxels")


def _load_label(path: Path, label_grid: str) -> bool:
    grid = nifti.read_grid(path.parent / "image.nii.gz")
    assert dataset.load_label(path, grid, label_grid).shape == grid.shape
    return True


def measure(path: Path, out: Path) -> bool:
    rows = measure_masks.measure_masks(path, out / "discs.csv")
    assert rows
    return True


def predicted(path: Path, out: Path) -> bool:
    return _evaluate(path, path.parent / "label.nii.gz", out)


def reference(path: Path, out: Path) -> bool:
    return _evaluate(path.parent / "label.nii.gz", path, out)


def _evaluate(prediction: Path, mask: Path, out: Path) -> bool:
    summary = evaluate.evaluate(prediction, mask, out)
    assert all(np.isfinite(estimate.mean) for estimate in summary.estimates.values())
    return True


def _check(folder: Path, image: str, label: str) -> bool:
    """`check` of a tree that holds one case; it may find fault, but must say so in a line that names a file."""
    root = folder / "tree"
    root.mkdir()
    try:
        for name, kind in ((image, "t2"), (label, "Labels")):
            suffix = ".nii.gz" if name.endswith(".nii.gz") else ".nii"
            (root / f"01_{kind}{suffix}").hardlink_to(folder / name)
        report = check.check(root, ("t2",))
    finally:
        for path in root.iterdir():
            path.unlink()
        root.rmdir()
    lines: Sequence[str] = [*report.problems, *report.notes]
    assert all(line == " ".join(line.split()) and len(line) < 1000 for line in lines), lines
    assert all("01" in line for line in report.problems), report.problems
    report.to_json()
    return not report.problems


TARGETS: dict[str, Target] = {
    function.__name__: function
    for function in (
        read,
        read_grid,
        read_label,
        write_mask,
        copy,
        check_image,
        check_label,
        load_channel,
        label_by_header,
        label_by_voxels,
        measure,
        predicted,
        reference,
    )
}
