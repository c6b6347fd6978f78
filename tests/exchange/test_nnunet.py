"""nnU-Net's raw folders: there and back, on our folds.

The real check was run on what `ivdjax convert to-nnunet` wrote, with nnunetv2 2.8.1 and SimpleITK 2.5.7, as
`nnUNetv2_plan_and_preprocess -d 123 --verify_dataset_integrity` for a phantom of 4 cases (fat inn opp wat) and as
`verify_dataset_integrity(folder)` for it again, for 24 T2 slabs of SPIDER, for six of them with numbered discs (disc_1
to disc_9), and for the phantom with headers rounded to three decimals, in one channel and the masks or in all files.
Each time it ended with

    verify_dataset_integrity Done.
    If you didn't see any error messages then your dataset is most likely OK!

and no warning or error before it. Copies that kept the rounded headers of one channel and the masks did not pass:

    ITK ERROR: ITK only supports orthonormal direction cosines.  No orthonormal definition found!

Planning copied our splits_final.json into nnUNet_preprocessed by itself.
"""

import gzip
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from ivdjax.config import Data
from ivdjax.data.check import check
from ivdjax.errors import DataError, UsageError
from ivdjax.evaluation import evaluate
from ivdjax.exchange import nnunet

SHAPE = (5, 20, 16)
AFFINE = np.array([[1.98, 0.1, 0.05, -3], [0.2, -0.05, -1.24, 20], [0.1, -1.24, 0.1, 30], [0, 0, 0, 1.0]])
AFFINE[:3, :3] = np.linalg.qr(AFFINE[:3, :3])[0] * (2.0, 1.25, 1.25)
CHANNELS = ("fat", "wat")
NAME = "Dataset123_Small"


def save(path, array, affine=AFFINE):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.Nifti1Image(array, affine).to_filename(path)


@pytest.fixture
def tree(tmp_path):
    """Four scans of two subjects, some files not zipped, with two numbered discs; and one scan without a mask."""
    rng = np.random.default_rng(0)
    label = np.zeros(SHAPE, np.uint8)
    label[1:4, 11:16, 2:14], label[1:4, 3:8, 2:14] = 1, 2
    for number in range(1, 6):
        name = f"{number:02d}"
        for channel in CHANNELS:
            ending = "nii" if number == 2 else "nii.gz"
            voxels = rng.integers(0, 4000, SHAPE).astype(np.int16)
            save(tmp_path / "tree" / name / f"{name}_{channel}.{ending}", voxels)
        if number < 5:
            save(tmp_path / "tree" / name / f"{name}_Labels.nii.gz", label)
    return tmp_path / "tree"


def volumes(root: Path) -> dict[str, nib.Nifti1Image]:
    return {path.name.removesuffix(".gz").removesuffix(".nii"): nib.load(path) for path in root.rglob("*.nii*")}


def test_there_and_back_every_voxel_and_affine_is_the_same(tree, tmp_path):
    raw = tmp_path / "raw" / NAME
    told = nnunet.from_tree(Data(root=tree, channels=CHANNELS), raw)
    assert told == [f"{raw}: 4 cases to learn from, 1 without labels, 2 folds"]
    assert sorted(path.name for path in (raw / "imagesTs").iterdir()) == ["05_0000.nii.gz", "05_0001.nii.gz"]
    assert (raw / "imagesTr" / "01_0001.nii.gz").read_bytes() == (tree / "01" / "01_wat.nii.gz").read_bytes()
    unzipped = gzip.decompress((raw / "imagesTr" / "02_0000.nii.gz").read_bytes())
    assert unzipped == (tree / "02" / "02_fat.nii").read_bytes()

    told = nnunet.to_tree(raw, tmp_path / "back")
    assert told == [f"{tmp_path / 'back'}: 4 cases with fat, wat"]
    before, after = volumes(tree), volumes(tmp_path / "back")
    assert before.keys() - after.keys() == {"05_fat", "05_wat"}
    for name, volume in after.items():
        np.testing.assert_array_equal(volume.affine, before[name].affine)
        np.testing.assert_array_equal(np.asarray(volume.dataobj), np.asarray(before[name].dataobj))
        assert volume.get_data_dtype() == before[name].get_data_dtype()
    assert check(tmp_path / "back", CHANNELS).problems == []

    nnunet.to_tree(raw, tmp_path / "test", part="test", channels=("f", "w"))
    assert sorted(volumes(tmp_path / "test")) == ["05_f", "05_w"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back", "raw", "test", "tree"]


def test_the_description_and_the_folds_are_as_nnunet_reads_them(tree, tmp_path):
    data = Data(root=tree, channels=CHANNELS)
    nnunet.from_tree(data, tmp_path / NAME)
    assert json.loads((tmp_path / NAME / "dataset.json").read_text()) == {
        "channel_names": {"0": "fat", "1": "wat"},
        "labels": {"background": 0, "disc_1": 1, "disc_2": 2},
        "numTraining": 4,
        "file_ending": ".nii.gz",
        "name": NAME,
    }
    assert json.loads((tmp_path / NAME / "splits_final.json").read_text()) == [
        {"train": ["03", "04"], "val": ["01", "02"]},
        {"train": ["01", "02"], "val": ["03", "04"]},
    ]
    held = Data(root=tree, channels=CHANNELS, subjects="single", hold_out=("03",))
    nnunet.from_tree(held, tmp_path / "Dataset007_Binary", binary=True)
    assert json.loads((tmp_path / "Dataset007_Binary" / "splits_final.json").read_text()) == [
        {"train": ["01", "02", "04"], "val": ["03"]}
    ]
    assert json.loads((tmp_path / "Dataset007_Binary" / "dataset.json").read_text())["labels"] == {
        "background": 0,
        "disc": 1,
    }
    label = nib.load(tmp_path / "Dataset007_Binary" / "labelsTr" / "01.nii.gz")
    assert np.unique(np.asarray(label.dataobj)).tolist() == [0, 1]


def test_masks_named_as_nnunet_names_them_are_scored_against_the_tree(tree, tmp_path):
    nnunet.from_tree(Data(root=tree, channels=CHANNELS), tmp_path / NAME)
    summary = evaluate.evaluate(tmp_path / NAME / "labelsTr", tree, tmp_path / "scores")
    assert (summary.discs, summary.discs_found, summary.estimates["dice"].mean) == (8, 8, 1.0)


def test_headers_that_differ_by_rounding_become_the_first_images(tree, tmp_path):
    rounded = np.round(AFFINE, 3)
    assert not np.allclose(rounded, AFFINE, rtol=1e-5)
    for kind in ("wat", "Labels"):
        path = tree / "01" / f"01_{kind}.nii.gz"
        save(path, np.asarray(nib.load(path).dataobj), rounded)
    told = nnunet.from_tree(Data(root=tree, channels=CHANNELS), tmp_path / NAME)
    assert [line.split(" got")[0] for line in told[1:]] == ["1 images", "1 masks"]
    first = nib.load(tree / "01" / "01_fat.nii.gz")
    for made, source in (("imagesTr/01_0001", "01_wat"), ("labelsTr/01", "01_Labels")):
        made = nib.load(tmp_path / NAME / f"{made}.nii.gz")
        np.testing.assert_array_equal(made.affine, first.affine)
        assert made.header.get_zooms() == first.header.get_zooms()
        np.testing.assert_array_equal(made.dataobj, nib.load(tree / "01" / f"{source}.nii.gz").dataobj)
    assert "overwrite_image_reader_writer" not in json.loads((tmp_path / NAME / "dataset.json").read_text())


def test_axes_that_itk_refuses_are_left_to_nibabel(tree, tmp_path):
    for path in tree.rglob("*.nii*"):
        save(path, np.asarray(nib.load(path).dataobj), np.round(AFFINE, 3))
    nnunet.from_tree(Data(root=tree, channels=CHANNELS), tmp_path / NAME)
    said = json.loads((tmp_path / NAME / "dataset.json").read_text())
    assert said["overwrite_image_reader_writer"] == "NibabelIO"
    for path in (tmp_path / NAME).rglob("*.nii.gz"):
        np.testing.assert_array_equal(nib.load(path).affine, np.round(AFFINE, 3).astype(np.float32))


def test_a_channel_whose_name_nnunet_reads_a_meaning_into_is_renamed(tree, tmp_path):
    for path in list(tree.rglob("*_wat.*")):
        path.rename(path.with_name(path.name.replace("_wat", "_CT")))
    nnunet.from_tree(Data(root=tree, channels=("fat", "CT")), tmp_path / NAME)
    assert json.loads((tmp_path / NAME / "dataset.json").read_text())["channel_names"] == {"0": "fat", "1": "mr_CT"}


def written(tmp_path, labels, channel_names=None, ending=".nii.gz"):
    """A raw folder of one case with the values 1 (vertebrae) and 2, 3 (discs)."""
    mask = np.zeros(SHAPE, np.uint8)
    mask[1:4, 11:16, 2:14], mask[1:4, 8:11, 2:14], mask[1:4, 3:8, 2:14] = 3, 1, 2
    channel_names = channel_names or {"0": "T2 (TSE)"}
    said = {"channel_names": channel_names, "labels": labels, "numTraining": 1, "file_ending": ending}
    save(tmp_path / "raw" / "imagesTr" / "a_b_0000.nii.gz", np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE))
    save(tmp_path / "raw" / "labelsTr" / "a_b.nii.gz", mask)
    (tmp_path / "raw" / "dataset.json").write_text(json.dumps(said))
    return tmp_path / "raw"


BONES = {"background": 0, "bone": 1, "L4/5": 2, "L5/S1": 3}


def test_named_labels_become_numbered_discs(tmp_path):
    raw = written(tmp_path, BONES)
    told = nnunet.to_tree(raw, tmp_path / "tree", disc_names=("L5/S1", "L4/5"))
    assert told == [f"{tmp_path / 'tree'}: 1 cases with T2-TSE", "background now: bone"]
    label = np.asarray(nib.load(tmp_path / "tree" / "a_b" / "a_b_Labels.nii.gz").dataobj)
    assert [np.unique(label[1:4, rows, 2:14]).tolist() for rows in (slice(11, 16), slice(8, 11), slice(3, 8))] == [
        [1],
        [0],
        [2],
    ]
    nnunet.to_tree(raw, tmp_path / "one", disc_names=("L5/S1",), channels=("t2",))
    assert np.unique(nib.load(tmp_path / "one" / "a_b" / "a_b_Labels.nii.gz").dataobj).tolist() == [0, 1]
    assert (tmp_path / "one" / "a_b" / "a_b_t2.nii.gz").is_file()


def test_formats_of_itk_become_nifti(tmp_path):
    sitk = pytest.importorskip("SimpleITK")
    raw = written(tmp_path, BONES, ending=".nrrd")
    for path in raw.rglob("*.nii.gz"):
        sitk.WriteImage(sitk.ReadImage(str(path)), str(path).replace(".nii.gz", ".nrrd"))
    source = nib.load(raw / "imagesTr" / "a_b_0000.nii.gz")
    for path in raw.rglob("*.nii.gz"):
        path.unlink()
    nnunet.to_tree(raw, tmp_path / "tree", disc_names=("L5/S1", "L4/5"), channels=("t2",))
    made = nib.load(tmp_path / "tree" / "a_b" / "a_b_t2.nii.gz")
    np.testing.assert_allclose(made.affine, source.affine, atol=1e-5)
    np.testing.assert_array_equal(made.dataobj, np.arange(np.prod(SHAPE)).reshape(SHAPE))
    label = np.asarray(nib.load(tmp_path / "tree" / "a_b" / "a_b_Labels.nii.gz").dataobj)
    assert [np.count_nonzero(label == value) for value in (1, 2)] == [3 * 5 * 12] * 2


@pytest.mark.parametrize(
    ("labels", "options", "error", "words"),
    [
        (BONES, {}, UsageError, "several labels; .* --discs, from bone, L4/5, L5/S1"),
        (BONES, {"disc_names": ("L3/4",)}, UsageError, "no label L3/4"),
        (BONES, {"channels": ("a", "b")}, UsageError, "dataset.json has 1"),
        ({"background": 0, "disc": 2}, {}, DataError, "a_b.nii.gz: dataset.json names no label 1"),
        ({"background": 0, "disc": [1, 2]}, {}, DataError, "label disc is not one value"),
        ({"background": 0, "disc": 1}, {"channel_names": {"0": "a", "1": "A"}}, UsageError, "need different names"),
        ({"background": 0, "disc": 1}, {"channel_names": {"0": "a", "1": "b"}}, DataError, "lacks a_b_0001.nii.gz"),
        ({"background": 0, "disc": 1}, {"ending": ".png"}, DataError, "files ending .png"),
        ({"background": 0, "disc": 1}, {"part": "test"}, DataError, "imagesTs: no CASE_0000"),
    ],
)
def test_a_raw_folder_that_cannot_be_used_is_one_line_and_leaves_nothing(tmp_path, labels, options, error, words):
    describes = {name: options[name] for name in ("channel_names", "ending") if name in options}
    raw = written(tmp_path, labels, **describes)
    with pytest.raises(error, match=words) as stop:
        nnunet.to_tree(raw, tmp_path / "tree", **{name: options[name] for name in options.keys() - describes.keys()})
    assert "\n" not in str(stop.value)
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


def test_channels_of_a_raw_folder_that_lie_apart_are_refused(tmp_path):
    raw = written(tmp_path, {"background": 0, "disc": 1}, channel_names={"0": "a", "1": "b"})
    moved = AFFINE.copy()
    moved[:3, 3] += 3
    save(raw / "imagesTr" / "a_b_0001.nii.gz", np.zeros(SHAPE, np.int16), moved)
    with pytest.raises(DataError, match=r"a_b_0001.nii.gz: lies elsewhere .* than a_b_0000.nii.gz"):
        nnunet.to_tree(raw, tmp_path / "tree")


def test_folders_that_are_no_raw_folder_of_version_2_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"dataset.json: cannot be read .* Dataset123_NAME"):
        nnunet.to_tree(tmp_path, tmp_path / "tree")
    (tmp_path / "dataset.json").write_text('{"modality": {"0": "MR"}, "labels": {"0": "background"}}')
    with pytest.raises(DataError, match="of nnU-Net version 1"):
        nnunet.to_tree(tmp_path, tmp_path / "tree")


def cut_image(tree):
    path = tree / "03" / "03_wat.nii.gz"
    path.write_bytes(path.read_bytes()[:-400])


def move_channel(tree):
    moved = AFFINE.copy()
    moved[:3, 3] += 3
    save(tree / "03" / "03_wat.nii.gz", np.zeros(SHAPE, np.int16), moved)


def turn_channel(tree):
    """The same voxels at the same places, stored the other way round."""
    turned = nib.as_closest_canonical(nib.load(tree / "03" / "03_wat.nii.gz"))
    nib.save(turned, tree / "03" / "03_wat.nii.gz")


def move_label(tree):
    path, moved = tree / "03" / "03_Labels.nii.gz", AFFINE.copy()
    moved[:3, 3] += 3
    save(path, np.asarray(nib.load(path).dataobj), moved)


def number_otherwise(tree):
    path = tree / "03" / "03_Labels.nii.gz"
    save(path, np.asarray(nib.load(path).dataobj) + np.uint8(200))


def no_labels(tree):
    for path in tree.rglob("*_Labels*"):
        path.unlink()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (cut_image, "03_wat.nii.gz: truncated or damaged"),
        (move_channel, "03_wat.nii.gz: lies elsewhere"),
        (turn_channel, "03_wat.nii.gz: is stored along other axes"),
        (move_label, "03_Labels.nii.gz: lies elsewhere"),
        (number_otherwise, "03_Labels.nii.gz: value 202 .* --binary"),
        (no_labels, "no case has a label map"),
    ],
)
def test_a_tree_that_cannot_be_written_is_one_line_and_leaves_nothing(tree, tmp_path, spoil, words):
    spoil(tree)
    with pytest.raises(DataError, match=words) as stop:
        nnunet.from_tree(Data(root=tree, channels=CHANNELS), tmp_path / NAME)
    assert "\n" not in str(stop.value)
    assert [path.name for path in tmp_path.iterdir()] == ["tree"]


def test_a_moved_mask_is_taken_by_its_voxels_where_that_is_asked_for(tree, tmp_path):
    before = np.asarray(nib.load(tree / "03" / "03_Labels.nii.gz").dataobj)
    move_label(tree)
    nnunet.from_tree(Data(root=tree, channels=CHANNELS, label_grid="voxels"), tmp_path / NAME)
    made = nib.load(tmp_path / NAME / "labelsTr" / "03.nii.gz")
    np.testing.assert_array_equal(made.dataobj, before)
    np.testing.assert_array_equal(made.affine, nib.load(tree / "03" / "03_fat.nii.gz").affine)


def test_names_and_folders_that_nnunet_would_not_take_are_refused(tree, tmp_path):
    data = Data(root=tree, channels=CHANNELS)
    for name in ("Dataset1_Small", "Dataset000_Small", "Small", "Dataset123_"):
        with pytest.raises(UsageError, match="Dataset123_NAME"):
            nnunet.from_tree(data, tmp_path / name)
    (tmp_path / NAME).mkdir()
    (tmp_path / NAME / "file").touch()
    with pytest.raises(UsageError, match="not an empty folder"):
        nnunet.from_tree(data, tmp_path / NAME)
