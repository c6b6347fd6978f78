"""Layouts, alignment of a case's files, and whose scans the cases are."""

import itertools
import logging
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from ivdjax.data import dataset, grouping
from ivdjax.errors import DataError, UsageError

SHAPE = (4, 6, 5)
AFFINE = np.array([[1.98, 0.1, 0.05, -3], [0.2, -0.05, -1.24, 20], [0.1, -1.24, 0.1, 30], [0, 0, 0, 1.0]])


def save(path: Path, array, affine=AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.Nifti1Image(array, affine).to_filename(path)
    return path


def image(seed=0):
    return np.random.default_rng(seed).integers(0, 900, SHAPE).astype(np.int16)


def label():
    mask = np.zeros(SHAPE, np.uint8)
    mask[1:3, 2:4, 1:4] = 1
    return mask


def touch(root: Path, *names: str) -> Path:
    """Discovery goes by names alone, so empty files do."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def numbered(pattern: str, numbers=("01", "02")) -> list[str]:
    return [pattern.format(n=n, c=c) for n in numbers for c in dataset.DIXON]


LAYOUTS = {
    "a folder a case": (numbered("{n}/{n}_{c}"), ["01/01_Labels", "02/02_Labels"]),
    "dataset and label": (numbered("dataset/{n}_{c}"), ["label/01_Labels", "label/02_Labels"]),
    "train and labels": (numbered("train/{n}/{n}_{c}"), ["train/labels/01_Labels", "train/labels/02_Labels"]),
    "flat": (numbered("{n}_{c}"), ["01_Labels", "02_Labels"]),
    "unnamed files": (numbered("{n}/{c}"), ["01/Labels", "02/Labels"]),
    "deep": (numbered("a/b/c/{n}/{n}_{c}"), ["a/b/c/d/01_label", "a/b/c/d/02_label"]),
    "other capitals": ([name.upper() for name in numbered("{n}/{n}_{c}")], ["01/01_LABELS", "02/02_labels"]),
}


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_cases(tmp_path, layout, ending):
    images, labels = LAYOUTS[layout]
    touch(tmp_path, *(name + ending for name in images + labels))
    cases = dataset.discover(tmp_path)
    assert [case.name for case in cases] == ["01", "02"]
    for i, case in enumerate(cases):
        assert case.images == tuple(tmp_path / (name + ending) for name in images[4 * i : 4 * i + 4])
        assert case.label == tmp_path / (labels[i] + ending)


def test_the_container_and_a_single_case_folder(tmp_path):
    container = touch(tmp_path / "input", *(f"{c}.nii.gz" for c in dataset.DIXON))
    (case,) = dataset.discover(container)
    assert (case.name, case.label) == ("input", None)
    assert [path.name for path in case.images] == ["fat.nii.gz", "inn.nii.gz", "opp.nii.gz", "wat.nii.gz"]
    one = touch(tmp_path / "07", *numbered("{n}_{c}.nii", ["07"]), "07_Labels.nii")
    (case,) = dataset.discover(one)
    assert (case.name, case.label) == ("07", one / "07_Labels.nii")


def test_channels_may_be_any_and_keep_the_order_asked_for(tmp_path):
    touch(tmp_path, *numbered("{n}/{n}_{c}.nii.gz"), "01/01_t2_tse.nii.gz", "02/02_t2_tse.nii.gz", "01/01_Anatomy.nii")
    assert [p.name for p in dataset.discover(tmp_path, ("wat", "fat"))[0].images] == ["01_wat.nii.gz", "01_fat.nii.gz"]
    assert [c.name for c in dataset.discover(tmp_path, ("t2_tse",))] == ["01", "02"]
    assert dataset.discover(tmp_path, ("T2_TSE",))[1].images == (tmp_path / "02/02_t2_tse.nii.gz",)
    for wrong in ((), ("fat", "fat"), ("fat", "FAT")):
        with pytest.raises(UsageError, match="name one or more, each once"):
            dataset.discover(tmp_path, wrong)


def test_natural_order_hidden_files_depth_and_links(tmp_path):
    root = touch(tmp_path / "root", *(f"p{n}/p{n}_t2.nii" for n in (10, 9, 1)))
    touch(root, "p1/._p1_t2.nii", ".trash/p2_t2.nii", "a/b/c/d/e/p3_t2.nii")
    touch(tmp_path / "elsewhere", "p4_t2.nii")
    (root / "link").symlink_to(tmp_path / "elsewhere")
    (root / "loop").symlink_to(root)
    assert [case.name for case in dataset.discover(root, ("t2",))] == ["p1", "p9", "p10"]


def test_what_keeps_a_folder_from_being_used(tmp_path):
    def refusal(root, channels=dataset.DIXON):
        with pytest.raises(DataError) as error:
            dataset.discover(root, channels)
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "no such folder" in refusal(tmp_path / "absent")
    assert "not a folder" in refusal(touch(tmp_path, "file.nii") / "file.nii")
    assert "no other image" in refusal(touch(tmp_path / "empty", "readme.txt"))
    missing = touch(tmp_path / "missing", *numbered("{n}/{n}_{c}.nii"))
    (missing / "02/02_opp.nii").unlink()
    assert f"{missing / '02'}: case 02 misses opp" in refusal(missing)
    (missing / "01/01_fat.nii").unlink()
    assert "case 01 misses fat; " in refusal(missing)
    assert "1 more like it" in refusal(missing)
    twice = touch(tmp_path / "twice", *numbered("{n}/{n}_{c}.nii"), "01/01_fat.nii.gz")
    assert "01_fat.nii.gz: case 01 has its fat twice (also 01_fat.nii)" in refusal(twice)
    labels = touch(tmp_path / "labels", *numbered("{n}/{n}_{c}.nii"), "label/01_Labels.nii", "01/01_label.nii")
    assert "has its label twice" in refusal(labels)
    orphan = touch(tmp_path / "orphan", "01_t2.nii", "02_Labels.nii")
    assert "02_Labels.nii: a label without any image of case 02" in refusal(orphan, ("t2",))


def test_the_channels_seen_are_suggested_but_masks_are_not(tmp_path):
    for n in ("01", "02"):
        save(tmp_path / n / f"{n}_t2.nii", image())
        save(tmp_path / n / f"{n}_Anatomy.nii", label())
        save(tmp_path / n / f"{n}_Labels.nii", label())
    with pytest.raises(DataError, match=r"found channels t2: pass --data\.channels t2$"):
        dataset.discover(tmp_path)
    save(tmp_path / "one" / "T1.nii.gz", image())
    with pytest.raises(DataError, match=r"pass --data\.channels T1$"):
        dataset.discover(tmp_path / "one")


def case_of(tmp_path, *affines, mask=None, mask_affine=AFFINE) -> dataset.Case:
    for i, affine in enumerate(affines):
        save(tmp_path / f"01_c{i}.nii", image(i), affine)
    save(tmp_path / "01_Labels.nii", label() if mask is None else mask, mask_affine)
    (case,) = dataset.discover(tmp_path, [f"c{i}" for i in range(len(affines))])
    return case


def test_load_stacks_the_channels_on_canonical_axes(tmp_path):
    turned = nib.Nifti1Image(image(1), AFFINE).as_reoriented(np.array([[2, 1], [0, -1], [1, 1]]))
    case = case_of(tmp_path, AFFINE, AFFINE)
    turned.to_filename(case.images[1])  # stored otherwise, lying in the same place
    image_ZxHxWxC, label_ZxHxW, grid = dataset.load(case)
    assert (image_ZxHxWxC.dtype, label_ZxHxW.dtype) == (np.float32, np.uint8)
    np.testing.assert_array_equal(image_ZxHxWxC, np.stack([image(0), image(1)], -1))
    np.testing.assert_array_equal(label_ZxHxW, label())
    np.testing.assert_allclose(grid.spacing_mm, np.linalg.norm(AFFINE[:3, :3], axis=0), atol=1e-5)
    np.testing.assert_allclose(grid.affine, AFFINE, atol=1e-5)
    case.label.unlink()
    (unlabelled,) = dataset.discover(tmp_path, ("c0", "c1"))
    np.testing.assert_array_equal(dataset.load_images(unlabelled)[0], image_ZxHxWxC)
    with pytest.raises(DataError, match="case 01 has no label"):
        dataset.load(unlabelled)


@pytest.mark.parametrize("sign", list(itertools.product((-1, 1), repeat=2)))
def test_rounding_of_headers_passes(tmp_path, sign):
    rounded = AFFINE.copy()
    rounded[:3] += 1e-3 * sign[0]
    rounded[1] -= 2e-3 * (sign[1] > 0) * sign[0]
    dataset.load(case_of(tmp_path, AFFINE, rounded, mask_affine=rounded))


def test_channels_that_lie_elsewhere_are_refused(tmp_path):
    moved = AFFINE.copy()
    moved[2, 3] += 3.5
    with pytest.raises(DataError, match=r"01_c1\.nii: lies elsewhere .*3\.5 mm at the corners.* than 01_c0\.nii"):
        dataset.load(case_of(tmp_path, AFFINE, moved))
    save(tmp_path / "01_c1.nii", image()[:, :, 1:])
    with pytest.raises(DataError, match=r"01_c1\.nii: has another shape \(4 x 6 x 4 against 4 x 6 x 5 voxels\)"):
        dataset.load(dataset.discover(tmp_path, ("c0", "c1"))[0])


def test_a_label_that_lies_elsewhere_waits_for_a_decision(tmp_path, caplog):
    shifted = AFFINE.copy()
    shifted[:3, 3] += AFFINE[:3, 1] * 2  # its header puts it two voxels further along H
    case = case_of(tmp_path, AFFINE, mask_affine=shifted)
    with pytest.raises(DataError, match=r"01_Labels\.nii: .*2\.5 mm at the corners.*--data\.label-grid"):
        dataset.load(case)
    with pytest.raises(UsageError, match="choose refuse, voxels or header"):
        dataset.load(case, label_grid="guess")
    with caplog.at_level(logging.WARNING, "ivdjax"):
        np.testing.assert_array_equal(dataset.load(case, label_grid="voxels")[1], label())
        placed = dataset.load(case, label_grid="header")[1]
    np.testing.assert_array_equal(placed[:, 2:], label()[:, :-2])
    assert [("header is ignored" in m, "resampled" in m) for m in caplog.messages] == [(True, False), (False, True)]
    caplog.clear()
    dataset.load(case_of(tmp_path, AFFINE), label_grid="header")
    assert not caplog.messages


def test_voxel_indices_are_those_on_disk_whatever_axes_the_label_claims(tmp_path):
    turned = nib.Nifti1Image(image(), AFFINE).as_reoriented(np.array([[2, 1], [0, 1], [1, -1]]))
    turned.to_filename(tmp_path / "01_c.nii")
    stored = nib.Nifti1Image(label(), AFFINE).as_reoriented(np.array([[2, 1], [0, 1], [1, -1]]))
    save(tmp_path / "01_Labels.nii", np.asarray(stored.dataobj), np.eye(4))  # a header that forgot everything
    (case,) = dataset.discover(tmp_path, ("c",))
    with pytest.raises(DataError, match=r"--data\.label-grid"):
        dataset.load(case)
    np.testing.assert_array_equal(dataset.load(case, label_grid="voxels")[1], label())


def cases_named(*names) -> list[dataset.Case]:
    return [dataset.Case(name, (), None, name) for name in names]


def groups(cases) -> list[list[str]]:
    return [[c.name for c in same] for _, same in itertools.groupby(cases, key=lambda c: c.subject)]


def test_pairs_go_by_number_not_by_place():
    names = [f"{n:02d}" for n in range(1, 17)]
    assert groups(grouping.assign_subjects(cases_named(*names), "pairs")) == [names[i : i + 2] for i in range(0, 16, 2)]
    assert groups(grouping.assign_subjects(cases_named("01", "02", "04", "05", "06"), "pairs")) == [
        ["01", "02"],
        ["04"],
        ["05", "06"],
    ]
    assert groups(grouping.assign_subjects(cases_named("s0", "s1", "s2", "t1", "t2"), "pairs")) == [
        ["s0", "s1"],
        ["s2"],
        ["t1", "t2"],
    ]
    with pytest.raises(UsageError, match="case input has no number"):
        grouping.assign_subjects(cases_named("01", "input"), "pairs")


def test_single_and_table(tmp_path):
    cases = cases_named("01", "02", "03")
    assert [c.subject for c in grouping.assign_subjects(cases, "single")] == ["01", "02", "03"]
    table = tmp_path / "subjects.csv"
    table.write_text("\ufeffcase,subject\r\n03, a\r\n01,a\r\n02,b\r\n04,c\r\n", encoding="utf-8")
    assert [c.subject for c in grouping.assign_subjects(cases, "table", table)] == ["a", "b", "a"]
    for rows, says in {
        "case,subject\n01,a\n02,b\n": "no row for case 03",
        "case,subject\n01,a\n01,b\n": "line 3 names case 01 again",
        "case;subject\n01;a\n": "line 2 lacks a case",
        "case,subject\n01,\n": "line 2 lacks a case or a subject",
    }.items():
        table.write_text(rows)
        with pytest.raises(DataError, match=says):
            grouping.assign_subjects(cases, "table", table)
    with pytest.raises(DataError, match="cannot be read"):
        grouping.assign_subjects(cases, "table", tmp_path / "absent.csv")
    with pytest.raises(UsageError, match="subject-table"):
        grouping.assign_subjects(cases, "table")
    with pytest.raises(UsageError, match="choose pairs, single or table"):
        grouping.assign_subjects(cases, "twins")
