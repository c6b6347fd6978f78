"""From mask files to `discs.csv`: names, measures, signals, label maps, pictures, and what is refused."""

import csv
import io

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from ivdjax.data import nifti
from ivdjax.errors import DataError, UsageError
from ivdjax.evaluation.discs import Scheme
from ivdjax.evaluation.measure_masks import Outputs, measure_masks
from tests.evaluation.analytic import affine, rotation, wedge

SHAPE = (30, 96, 64)
GRID = affine(SHAPE)
HEIGHTS_MM = (10.0, 12.5, 7.5)  # whole voxels: the upper two lie along the grid


def write(path, array, grid=GRID):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, grid), path)
    return path


def discs():
    """Three discs: 1 the lowest, which falls forwards."""
    labels = np.zeros(SHAPE, np.uint8)
    for k, height in enumerate(HEIGHTS_MM):
        turn = rotation((-30, 0, 0)) if k == 0 else np.eye(3)
        labels[wedge(height, 30, 40, 0, turn, GRID, (0, 0, 35 * (k - 1)), SHAPE)] = k + 1
    return labels


@pytest.fixture
def tree(tmp_path):
    """Two cases with their four images: in disc k water is 100 k and fat 25 k."""
    labels = discs()
    for case in ("01", "02"):
        folder = tmp_path / "tree" / case
        write(folder / f"{case}_Labels.nii.gz", (labels > 0).astype(np.uint8))
        for channel, value in (("fat", 25), ("inn", 125), ("opp", 75), ("wat", 100)):
            write(folder / f"{case}_{channel}.nii.gz", labels.astype(np.int16) * value)
    return tmp_path / "tree"


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_tree_with_images(tree, tmp_path):
    found = measure_masks(tree, tmp_path / "discs.csv", images=tree, expected=3)
    table = rows(tmp_path / "discs.csv")
    assert len(found) == len(table) == 6
    assert [(row["case"], row["level"], row["name"]) for row in table[:3]] == [
        ("01", "1", "L5/S1"),
        ("01", "2", "L4/L5"),
        ("01", "3", "L3/L4"),
    ]
    for row, k in zip(table, (1, 2, 3, 1, 2, 3), strict=True):
        assert float(row["water_mean"]) == pytest.approx(100 * k)
        assert float(row["fat_mean"]) == pytest.approx(25 * k)
        assert float(row["water_sd"]) == pytest.approx(0, abs=1e-3)
        assert float(row["fat_fraction_mean"]) == pytest.approx(0.2)
        assert float(row["in_phase_mean"]) == pytest.approx(125 * k)
        assert float(row["height_middle_mm"]) == pytest.approx(HEIGHTS_MM[k - 1], abs=0.5)
        assert float(row["center_z_mm"]) == pytest.approx(35 * (k - 2), abs=0.7)
        assert (row["cut_off"], row["note"]) == ("0", "")


def test_the_spread_is_that_of_the_voxels(tmp_path):
    labels = discs()
    image = np.random.default_rng(0).normal(100, 15, SHAPE).astype(np.float32)
    write(tmp_path / "01" / "01_wat.nii.gz", image)
    mask = write(tmp_path / "01_Labels.nii.gz", (labels > 0).astype(np.uint8))
    measure_masks(mask, tmp_path / "d.csv", images=tmp_path / "01", channels=("wat",))
    for row, k in zip(rows(tmp_path / "d.csv"), (1, 2, 3), strict=True):
        # Canonical axes are those of the file here but for their order and direction: the voxels are the same.
        inside = image[labels == k]
        assert float(row["water_mean"]) == pytest.approx(inside.mean(), abs=1e-3)
        assert float(row["water_sd"]) == pytest.approx(inside.std(), abs=1e-3)
        assert "fat_fraction_mean" not in row


def test_a_mask_alone_is_measured_and_its_odd_count_noted(tmp_path):
    mask = write(tmp_path / "case.nii.gz", (discs() > 0).astype(np.uint8))
    found = measure_masks(mask, tmp_path / "d.csv")
    assert {disc.note for disc in found} == {"3 discs where 7 are expected"}
    assert {row["note"] for row in rows(tmp_path / "d.csv")} == {"3 discs where 7 are expected"}
    assert "water_mean" not in rows(tmp_path / "d.csv")[0]


def test_label_maps_go_out_under_one_scheme_and_come_in_under_it(tree, tmp_path):
    measure_masks(tree, tmp_path / "a.csv", expected=3, outputs=Outputs(tmp_path / "labels", Scheme.SPIDER))
    written = nifti.read_label(tmp_path / "labels" / "01.nii.gz")
    source = nifti.read_label(tree / "01" / "01_Labels.nii.gz")
    assert np.array_equal(written.affine, source.affine)
    assert np.array_equal(np.unique(written.array), [0, 201, 202, 203])
    measure_masks(tmp_path / "labels", tmp_path / "b.csv", scheme=Scheme.SPIDER, expected=3)
    assert (tmp_path / "a.csv").read_text() == (tmp_path / "b.csv").read_text()
    # Under another tool's scheme the same values are the discs one level down, and the first is its canal.
    measure_masks(tmp_path / "labels", tmp_path / "c.csv", scheme=Scheme.TOTALSPINESEG, expected=None)
    assert [row["name"] for row in rows(tmp_path / "c.csv")[:2]] == ["L5/S1", "L4/L5"]
    assert len(rows(tmp_path / "c.csv")) == 4


def test_each_disc_gets_a_picture_with_what_was_measured(tree, tmp_path):
    measure_masks(
        tree / "01" / "01_Labels.nii.gz", tmp_path / "d.csv", images=tree / "01", outputs=Outputs(pictures=tmp_path)
    )
    names = sorted(path.name for path in tmp_path.glob("*.png"))
    assert names == ["01_L3-L4.png", "01_L4-L5.png", "01_L5-S1.png"]
    picture = np.asarray(Image.open(io.BytesIO((tmp_path / "01_L4-L5.png").read_bytes())).convert("RGB")).astype(int)
    yellow = (picture[..., 0] > 200) & (picture[..., 1] > 170) & (picture[..., 2] < 120)
    # Three height lines in the side view, in the left half of the picture, each as long as the disc is high.
    left = yellow[:, : picture.shape[1] // 2]
    assert np.count_nonzero(left.sum(axis=0) >= 9 * 8) >= 3


def test_a_disc_too_small_to_measure_keeps_its_row(tmp_path):
    labels = discs()
    labels[labels == 3] = 0
    labels[14, 20, 30:32] = 3
    mask = write(tmp_path / "case.nii.gz", labels)
    table = measure_masks(mask, tmp_path / "d.csv", scheme=Scheme.IVDJAX, expected=3)
    assert [disc.measures is None for disc in table] == [False, False, True]
    row = rows(tmp_path / "d.csv")[2]
    assert (row["name"], row["volume_mm3"]) == ("L3/L4", "")
    assert "not measured" in row["note"]


def test_what_cannot_be_measured_is_one_line_that_names_the_file(tree, tmp_path):
    empty = write(tmp_path / "empty.nii.gz", np.zeros(SHAPE, np.uint8))
    with pytest.raises(DataError, match=r"empty\.nii\.gz: no disc in any mask"):
        measure_masks(empty, tmp_path / "d.csv")
    mask = tree / "01" / "01_Labels.nii.gz"
    with pytest.raises(DataError, match="none of the discs of mrspineseg"):
        measure_masks(mask, tmp_path / "d.csv", scheme=Scheme.MRSPINESEG)
    with pytest.raises(UsageError, match="--case"):
        measure_masks(mask, tmp_path / "d.csv", outputs=Outputs(pictures=tmp_path))
    moved = GRID.copy()
    moved[:3, 3] += 7
    other = write(tmp_path / "moved" / "01_Labels.nii.gz", (discs() > 0).astype(np.uint8), moved)
    with pytest.raises(DataError, match="lies elsewhere by its header"):
        measure_masks(other, tmp_path / "d.csv", images=tree / "01")
    write(tmp_path / "two" / "08.nii.gz", (discs() > 0).astype(np.uint8))
    write(tmp_path / "two" / "09.nii.gz", (discs() > 0).astype(np.uint8))
    with pytest.raises(DataError, match="no images of case 08, 09"):
        measure_masks(tmp_path / "two", tmp_path / "d.csv", images=tree)
    assert not (tmp_path / "d.csv").exists()


def test_an_empty_mask_among_others_is_told_and_passed_over(tree, tmp_path, caplog):
    write(tree / "02" / "02_Labels.nii.gz", np.zeros(SHAPE, np.uint8))
    found = measure_masks(tree, tmp_path / "d.csv", expected=3)
    assert {disc.case for disc in found} == {"01"}
    assert len(rows(tmp_path / "d.csv")) == 3
    assert "02_Labels.nii.gz: empty" in caplog.text
