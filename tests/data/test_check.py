"""One tree with one of each problem: all are listed, and nothing else is."""

import gzip
import io
import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from rich.console import Console

from ivdjax.data import dataset
from ivdjax.data.check import check, print_report
from ivdjax.errors import DataError

SHAPE = (8, 20, 16)
AFFINE = np.array([[1.98, 0.1, 0.05, -3], [0.2, -0.05, -1.24, 20], [0.1, -1.24, 0.1, 30], [0, 0, 0, 1.0]])
VOXEL_MM3 = abs(np.linalg.det(AFFINE[:3, :3]))


def save(path: Path, array, affine=AFFINE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.Nifti1Image(array, affine).to_filename(path)


def channels(seed: int) -> dict[str, np.ndarray]:
    """Dixon volumes that obey in = W + F and opp = |W - F| exactly."""
    rng = np.random.default_rng(seed)
    wat, fat = rng.integers(50, 400, (2, *SHAPE))
    volumes = {"fat": fat, "inn": wat + fat, "opp": abs(wat - fat), "wat": wat}
    return {name: volume.astype(np.int16) for name, volume in volumes.items()}


def discs() -> np.ndarray:
    label = np.zeros(SHAPE, np.uint8)
    label[1:7, 2:6, 3:13] = 1
    label[1:7, 9:13, 3:13] = 1
    return label


def tree(root: Path, names) -> Path:
    for seed, name in enumerate(names):
        for channel, volume in channels(seed).items():
            save(root / name / f"{name}_{channel}.nii.gz", volume)
        save(root / name / f"{name}_Labels.nii.gz", discs())
    return root


def printed(report, **console) -> str:
    out = io.StringIO()
    print_report(report, Console(file=out, **console))
    return out.getvalue()


def test_a_clean_tree_is_clean(tmp_path):
    report = check(tree(tmp_path, ["01", "02"]))
    assert (report.problems, report.notes) == ([], [])
    row = report.rows[1]
    assert (row.case, row.shape, row.orientation, row.channels) == ("02", SHAPE, "RIP", dataset.DIXON)
    assert (row.in_phase, row.opposed, row.pieces) == (0, 0, 2)
    assert row.label_cm3 == pytest.approx(discs().sum() * VOXEL_MM3 / 1000, abs=0.01)
    assert "2 cases, 0 problems" in printed(report)
    assert json.loads(json.dumps(report.to_json(), allow_nan=False))["cases"][0]["label_cm3"] == row.label_cm3


def test_a_tree_without_labels_is_noted_but_usable(tmp_path):
    tree(tmp_path, ["01", "02"])
    for path in tmp_path.glob("*/*Labels*"):
        path.unlink()
    report = check(tmp_path, ("wat",))
    assert report.problems == []
    assert any("no case has a label map" in note for note in report.notes)
    assert "passed over: fat (2 files), inn (2 files), opp (2 files)" in report.notes
    assert report.rows[0].in_phase is None


def test_one_of_each_problem_and_all_are_listed(tmp_path):
    names = [f"{n:02d}" for n in range(1, 24)]
    tree(tmp_path, names)
    expected = []

    def broken(name: str, says: str) -> Path:
        """The file to break, and what must be said about it."""
        path = tmp_path / name[:2] / name
        expected.append((path, says))
        return path

    def rewrite(name: str, says: str, array, affine=AFFINE) -> None:
        save(broken(name, says), array, affine)

    moved = AFFINE.copy()
    moved[:3, 3] += (0, 6, 0)
    specked, doubled = discs(), discs() * 2
    specked[7 - 1, 17, 14] = specked[3, 16, 2] = 1
    nan, infinite = channels(0)["fat"].astype(np.float32), channels(0)["opp"].astype(np.float32)
    nan[3, 3, 3], infinite[2, 2, 2] = np.nan, np.inf

    (tmp_path / "02/02_opp.nii.gz").unlink()
    expected.append((tmp_path / "02", "case 02 misses opp"))
    (tmp_path / "03/03_Labels.nii.gz").unlink()
    expected.append((tmp_path / "03", "case 03 has no label map"))
    path = broken("04_fat.nii.gz", "truncated or damaged gzip")
    path.write_bytes(path.read_bytes()[:900])
    broken("05_inn.nii.gz", "zero length").write_bytes(b"")
    broken("06_wat.nii.gz", "not a NIfTI file").write_bytes(gzip.compress(b"PATIENT" * 99))
    broken("07_wat.nii.gz", "not sound gzip data").write_bytes(b"PATIENT" * 99)
    rewrite("08_fat.nii.gz", "4-D (8 x 20 x 16 x 2)", np.zeros((*SHAPE, 2), np.int16))
    rewrite("09_fat.nii.gz", "NaN or infinite voxels: 1", nan)
    rewrite("10_opp.nii.gz", "NaN or infinite voxels: 1", infinite)
    rewrite("11_inn.nii.gz", "every voxel is 7", np.full(SHAPE, 7, np.int16))
    rewrite("12_Labels.nii.gz", "label values 0, 2", doubled)
    rewrite("13_Labels.nii.gz", "not integers", discs() * np.float32(0.5))
    rewrite("14_Labels.nii.gz", "the label is empty", discs() * 0)
    rewrite("15_Labels.nii.gz", "2 stray specks", specked)
    rewrite("16_Labels.nii.gz", "up to 6.0 mm at the corners", discs(), moved)
    rewrite("17_wat.nii.gz", "up to 6.0 mm at the corners", channels(3)["wat"], moved)
    rewrite("18_opp.nii.gz", "another shape (8 x 19 x 16 against 8 x 20 x 16 voxels)", channels(3)["opp"][:, 1:])
    rewrite("19_Labels.nii.gz", "another shape", discs()[:, :, 1:])
    broken("20_Labels.nii.gz", "zero length").write_bytes(b"")
    save(broken("21_fat.nii", "case 21 has its fat twice").with_suffix(".nii.gz"), channels(0)["fat"])
    save(tmp_path / "21/21_fat.nii", channels(0)["fat"])
    expected[-1] = (tmp_path / "21/21_fat.nii.gz", "case 21 has its fat twice")
    for channel in dataset.DIXON:
        (tmp_path / f"22/22_{channel}.nii.gz").unlink()
    broken("22_Labels.nii.gz", "a label without any image of case 22")
    save(tmp_path / "scout.nii", channels(0)["fat"])
    expected.append((tmp_path / "scout.nii", "belongs to no case"))
    save(tmp_path / "99_t1.nii", channels(0)["fat"])
    expected.append((tmp_path / "99_t1.nii", "belongs to no case"))
    tiny = channels(22)
    for channel, volume in tiny.items():
        save(tmp_path / f"23/23_{channel}.nii.gz", volume, np.diag([1e-3, 1e-3, 1e-3, 1]) @ AFFINE)
    save(tmp_path / "23/23_Labels.nii.gz", discs(), np.diag([1e-3, 1e-3, 1e-3, 1]) @ AFFINE)
    expected.append((tmp_path / "23/23_fat.nii.gz", "mm are implausible"))

    report = check(tmp_path)
    for path, says in expected:
        assert sum(p.startswith(f"{path}: ") and says in p for p in report.problems) == 1, (path, says)
    assert len(report.problems) == len(expected), report.problems
    assert [row.case for row in report.rows] == names
    text = printed(report)
    for problem in report.problems:
        assert problem in text.splitlines()
    assert f"23 cases, {len(expected)} problems" in text
    json.dumps(report.to_json(), allow_nan=False)


def test_both_readings_of_a_moved_label_are_compared(tmp_path):
    tree(tmp_path, ["01"])
    shifted = AFFINE.copy()
    shifted[:3, 3] += AFFINE[:3, 1] * 2  # half a disc's height along H
    save(tmp_path / "01/01_Labels.nii.gz", discs(), shifted)
    (problem,) = check(tmp_path).problems
    assert "overlaps itself with Dice 0.500" in problem
    assert "--data.label-grid voxels or header" in problem
    save(tmp_path / "01/01_Labels.nii.gz", discs()[:, :8], AFFINE)  # cropped, with an honest header
    (problem,) = check(tmp_path).problems
    assert "another shape" in problem
    assert "100% of it lies on them by its header" in problem


def test_a_sliver_at_the_border_is_no_speck(tmp_path):
    tree(tmp_path, ["01"])
    label = discs()
    label[3, 0, 5:8] = label[0, 17, 2] = 1
    save(tmp_path / "01/01_Labels.nii.gz", label)
    report = check(tmp_path)
    assert (report.problems, report.rows[0].pieces) == ([], 4)


def test_specks_are_found_even_where_they_outnumber_the_discs(tmp_path):
    tree(tmp_path, ["01"])
    label = discs()
    label[1:7:2, 17, 2:15:3] = 1
    save(tmp_path / "01/01_Labels.nii.gz", label)
    (problem,) = check(tmp_path).problems
    assert "15 stray specks" in problem


@pytest.mark.skipif("IVDJAX_REAL_DATA" not in os.environ, reason="IVDJAX_REAL_DATA names no folder of real images")
@pytest.mark.parametrize(("folder", "channel"), [("t2", "t2"), ("water", "wat")])
def test_real_images_have_no_problems(folder, channel):
    report = check(Path(os.environ["IVDJAX_REAL_DATA"], folder), (channel,))
    assert len(report.rows) >= 10
    assert report.problems == []


def test_channels_that_break_the_dixon_laws_are_noted(tmp_path):
    tree(tmp_path, ["01"])
    volumes = channels(0)
    save(tmp_path / "01/01_inn.nii.gz", volumes["opp"])
    save(tmp_path / "01/01_opp.nii.gz", volumes["inn"])
    report = check(tmp_path)
    assert report.problems == []
    assert report.notes
    assert all(note.startswith("case 01: ") and "mixed up" in note for note in report.notes)


def test_a_header_that_does_not_locate_its_voxels_is_noted(tmp_path):
    for n in ("01", "02"):
        save(tmp_path / f"{n}_t2.nii", channels(0)["inn"], None if n == "01" else AFFINE)
    report = check(tmp_path, ("t2",))
    assert report.problems == []
    assert any("01_t2.nii: neither sform nor qform" in note for note in report.notes)


def test_no_case_at_all(tmp_path):
    save(tmp_path / "01/01_t2.nii", channels(0)["inn"])
    report = check(tmp_path)
    assert "pass --data.channels t2" in report.problems[0]
    assert "0 cases, 1 problem" in printed(report).splitlines()[-1]
    with pytest.raises(DataError, match="no such folder"):
        check(tmp_path / "absent")


def test_the_table_is_whole_where_there_is_no_terminal_and_fits_80_columns_where_there_is(tmp_path):
    report = check(tree(tmp_path, ["01"]))
    report.rows[0].case = "a-long-name-of-a-case-" * 5
    report.rows[0].shape = (36, 256, 256)
    plain = printed(report, width=40)
    assert report.rows[0].case in plain
    assert plain.isascii()
    assert "\x1b" not in plain
    report.rows[0].case, report.rows[0].label_cm3 = "01", 140.07
    terminal = printed(report, width=80, force_terminal=True, color_system=None)
    for cell in ("36x256x256", "1.99x1.25x1.25", "fat inn opp wat", "140.1", "0.000"):
        assert cell in terminal


def test_numbered_discs_are_taken_and_other_values_are_not(tmp_path):
    tree(tmp_path, ["01"])
    numbered = discs()
    numbered[:, :8] *= 2  # the upper one
    save(tmp_path / "01/01_Labels.nii.gz", numbered)
    assert check(tmp_path).problems == []
    downwards = np.where(numbered > 0, 3 - numbered, 0).astype(np.uint8)
    bones = discs()
    bones[1:7, 7:8, 3:13] = 2  # every disc is 1, what lies between them 2
    for wrong in (downwards, bones, numbered * 100):
        save(tmp_path / "01/01_Labels.nii.gz", wrong)
        (problem,) = check(tmp_path).problems
        assert "a disc must be 1, or its number from the lowest upwards" in problem
