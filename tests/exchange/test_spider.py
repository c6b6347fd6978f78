"""SPIDER's layout to a tree: world coordinates of voxels, discs by number, one line for what cannot be used."""

import sys

import nibabel as nib
import numpy as np
import pytest

from ivdjax.data.check import check
from ivdjax.errors import DataError, UsageError
from ivdjax.evaluation import discs, evaluate
from ivdjax.exchange import itk, spider

# Axes that run backwards, leftwards and downwards, turned by 17 and 8 degrees, in ITK's (left, posterior, superior).
TURNS = np.radians([17, 8])
X = np.array([[1, 0, 0], [0, np.cos(TURNS[0]), -np.sin(TURNS[0])], [0, np.sin(TURNS[0]), np.cos(TURNS[0])]])
Y = np.array([[np.cos(TURNS[1]), 0, np.sin(TURNS[1])], [0, 1, 0], [-np.sin(TURNS[1]), 0, np.cos(TURNS[1])]])
DIRECTION = X @ Y @ np.array([[0, 1, 0], [1, 0, 0], [0, 0, -1]])
SPACING, ORIGIN = (0.56, 3.3, 0.7), (-31.25, -87.5, 112.75)
SHAPE = (20, 6, 28)  # as stored: along DIRECTION's columns


def image(array):
    """An array of ITK's index order (i, j, k), placed obliquely."""
    sitk = pytest.importorskip("SimpleITK")
    made = sitk.GetImageFromArray(np.ascontiguousarray(array.transpose()))
    made.SetSpacing(SPACING)
    made.SetOrigin(ORIGIN)
    made.SetDirection(DIRECTION.ravel().tolist())
    return made


@pytest.fixture
def source(tmp_path):
    """Two patients with a T2 and a T1 scan; in the masks two discs, a vertebra between them and the canal."""
    sitk = pytest.importorskip("SimpleITK")
    rng = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (tmp_path / "spider" / folder).mkdir(parents=True)
    mask = np.zeros(SHAPE, np.uint16)
    mask[4:16, 1:5, 20:25], mask[4:16, 1:5, 12:19], mask[4:16, 1:5, 6:11] = 201, 1, 202
    mask[17:19, 2:4] = 100
    for name in ("2_t2", "10_t2", "2_t1"):
        voxels = rng.integers(-5, 900, SHAPE).astype(np.int16)
        sitk.WriteImage(image(voxels), str(tmp_path / "spider" / "images" / f"{name}.mha"), True)
        sitk.WriteImage(image(mask), str(tmp_path / "spider" / "masks" / f"{name}.mha"), True)
    return tmp_path / "spider"


def test_a_voxel_stays_where_it_was_in_the_patient(source, tmp_path):
    sitk = pytest.importorskip("SimpleITK")
    seen = []
    assert spider.to_tree(source, tmp_path / "tree", progress=lambda done, of: seen.append((done, of))) == 2
    assert seen == [(1, 2), (2, 2)]
    for name in ("2", "10"):
        before = sitk.ReadImage(str(source / "images" / f"{name}_t2.mha"))
        after = nib.load(tmp_path / "tree" / name / f"{name}_t2.nii.gz")
        assert after.get_data_dtype() == np.int16
        assert {int(after.header[f"{form}_code"]) for form in ("sform", "qform")} == {1}
        for index in ((0, 0, 0), (19, 0, 27), (3, 5, 11), (19, 5, 27)):
            left, posterior, superior = before.TransformIndexToPhysicalPoint(index)
            np.testing.assert_allclose((after.affine @ (*index, 1))[:3], (-left, -posterior, superior), atol=1e-4)
            np.testing.assert_allclose(
                (after.header.get_qform() @ (*index, 1))[:3], (-left, -posterior, superior), atol=1e-4
            )
            assert after.dataobj[index] == before[index]
        np.testing.assert_array_equal(np.asarray(after.dataobj), sitk.GetArrayFromImage(before).transpose())


def test_discs_are_numbered_from_l5_s1_and_all_else_is_background(source, tmp_path):
    spider.to_tree(source, tmp_path / "tree")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["spider", "tree"]
    label = np.asarray(nib.load(tmp_path / "tree" / "10" / "10_Labels.nii.gz").dataobj)
    assert np.unique(label).tolist() == [0, 1, 2]
    assert (label[4:16, 1:5, 20:25] == 1).all()
    assert (label[4:16, 1:5, 6:11] == 2).all()
    assert np.count_nonzero(label) == 12 * 4 * 10
    report = check(tmp_path / "tree", ("t2",))
    assert (report.problems, len(report.rows)) == ([], 2)
    # The same masks in SPIDER's own numbers score as the same discs.
    (tmp_path / "masks").mkdir()
    for name in ("2", "10"):
        itk.to_nifti(source / "masks" / f"{name}_t2.mha", tmp_path / "masks" / f"{name}.nii.gz")
    summary = evaluate.evaluate(
        tmp_path / "masks", tmp_path / "tree", tmp_path / "scores", prediction_scheme=discs.Scheme.SPIDER
    )
    assert (summary.discs_found, summary.estimates["dice"].mean) == (4, 1.0)


def break_nothing(source):
    pass


def drop_mask(source):
    (source / "masks" / "10_t2.mha").unlink()


def truncate(source):
    path = source / "images" / "10_t2.mha"
    path.write_bytes(path.read_bytes()[:-500])


def move_mask(source):
    sitk = pytest.importorskip("SimpleITK")
    path = str(source / "masks" / "10_t2.mha")
    moved = sitk.ReadImage(path)
    moved.SetOrigin(np.add(ORIGIN, 5.0).tolist())
    sitk.WriteImage(moved, path)


def only_bones(source):
    sitk = pytest.importorskip("SimpleITK")
    sitk.WriteImage(image(np.full(SHAPE, 3, np.uint8)), str(source / "masks" / "10_t2.mha"))


def colours(source):
    sitk = pytest.importorskip("SimpleITK")
    sitk.WriteImage(sitk.Image([4, 4, 4], sitk.sitkVectorUInt8, 3), str(source / "images" / "10_t2.mha"))


@pytest.mark.parametrize(
    ("spoil", "channel", "error", "words"),
    [
        (break_nothing, "dwi", DataError, "pass --channel with one of t1, t2"),
        (drop_mask, "t2", DataError, "masks/10_t2.mha: no such file"),
        (truncate, "t2", DataError, "images/10_t2.mha: SimpleITK cannot read it"),
        (move_mask, "t2", DataError, "masks/10_t2.mha: lies elsewhere .*label-grid voxels"),
        (only_bones, "t2", DataError, "10_t2.mha: holds none of the discs of spider"),
        (colours, "t2", DataError, "10_t2.mha: 3-D with 3 value"),
    ],
)
def test_what_cannot_be_used_is_one_line_and_leaves_nothing(source, tmp_path, spoil, channel, error, words):
    spoil(source)
    with pytest.raises(error, match=words) as stop:
        spider.to_tree(source, tmp_path / "tree", channel)
    assert "\n" not in str(stop.value)
    assert [path.name for path in tmp_path.iterdir()] == ["spider"]


def test_a_moved_mask_is_taken_by_its_voxels_where_that_is_asked_for(source, tmp_path):
    spider.to_tree(source, tmp_path / "whole")
    move_mask(source)
    spider.to_tree(source, tmp_path / "tree", label_grid="voxels")
    names = [path.relative_to(tmp_path / "whole") for path in (tmp_path / "whole").rglob("*.gz")]
    assert len(names) == 4
    for name in names:
        assert (tmp_path / "tree" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_without_simpleitk_one_line_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    (tmp_path / "spider" / "images").mkdir(parents=True)
    (tmp_path / "spider" / "images" / "1_t2.mha").touch()
    with pytest.raises(UsageError, match="pip install SimpleITK"):
        spider.to_tree(tmp_path / "spider", tmp_path / "tree")
    assert not (tmp_path / "tree").exists()
