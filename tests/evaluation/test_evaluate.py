"""From trees of masks to scores.csv and scores.json: layouts, what is missing or wrong, means and intervals."""

import csv
import json
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest

from ivdjax.errors import DataError, UsageError
from ivdjax.evaluation.challenge import CaseScores, DiscScore
from ivdjax.evaluation.discs import Scheme
from ivdjax.evaluation.evaluate import assign_subjects, evaluate, summarise, to_json

HEADER = "case,disc,found,dice,asd_mm,center_mm,hd95_mm,nsd_1mm,reference_mm3,predicted_mm3"
SHAPE = (12, 64, 48)
DIAGONAL_MM = float(np.linalg.norm(np.multiply(SHAPE, (2.0, 1.25, 1.25))))


def affine(origin_mm=(0.0, 0.0, 0.0)):
    """Axes right, inferior, posterior, turned by 10 degrees as a scanner's oblique grid is."""
    c, s = np.cos(np.pi / 18), np.sin(np.pi / 18)
    turn = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    axes = turn @ np.array([[2.0, 0, 0], [0, 0, -1.25], [0, -1.25, 0]])
    return np.block([[axes, np.reshape(origin_mm, (3, 1))], [np.zeros((1, 3)), 1.0]])


def spine(discs=(0, 1, 2)):
    mask = np.zeros(SHAPE, np.uint8)
    for k in discs:
        mask[2:10, 50 - 20 * k : 56 - 20 * k, 10:30] = 1
    return mask


def save(path, mask, grid=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.Nifti1Image(mask, affine() if grid is None else grid).to_filename(path)
    return path


@pytest.fixture
def references(tmp_path):
    """Two cases in the layout of the challenge, images and all."""
    for case in ("01", "02"):
        save(tmp_path / f"references/{case}/{case}_fat.nii", np.ones(SHAPE, np.int16))
        save(tmp_path / f"references/{case}/{case}_Labels.nii", spine())
    return tmp_path / "references"


@pytest.fixture
def predictions(tmp_path):
    """A perfect one, and one without the lowest disc."""
    save(tmp_path / "predictions/01.nii.gz", spine())
    save(tmp_path / "predictions/02.nii.gz", spine([1, 2]))
    return tmp_path / "predictions"


def rows(out):
    with (out / "scores.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_scores_of_a_tree(tmp_path, predictions, references):
    ticks = []
    summary = evaluate(predictions, references, tmp_path / "out", progress=lambda *tick: ticks.append(tick))
    assert (tmp_path / "out/scores.csv").read_text().splitlines()[0] == HEADER
    table = rows(tmp_path / "out")
    assert [(row["case"], row["disc"], row["found"]) for row in table] == [
        ("01", "1", "1"), ("01", "2", "1"), ("01", "3", "1"), ("02", "1", "0"), ("02", "2", "1"), ("02", "3", "1"),
    ]  # fmt: skip
    assert [float(row["dice"]) for row in table] == [1, 1, 1, 0, 1, 1]
    assert float(table[3]["asd_mm"]) == float(table[3]["center_mm"]) == pytest.approx(DIAGONAL_MM, abs=1e-5)
    assert float(table[0]["reference_mm3"]) == pytest.approx(8 * 6 * 20 * 2 * 1.25 * 1.25)
    scores = json.loads((tmp_path / "out/scores.json").read_text())
    assert scores["dice"]["mean"] == pytest.approx((1 + 2 / 3) / 2)
    assert scores["dice"]["std"] == pytest.approx(np.std([1, 2 / 3], ddof=1))
    assert (scores["dice"]["low"], scores["dice"]["high"]) == pytest.approx((2 / 3, 1))
    assert scores["asd_mm"]["mean"] == pytest.approx(DIAGONAL_MM / 6)
    assert scores["center_mm"]["mean"] == pytest.approx(DIAGONAL_MM / 6)
    assert scores["volume_dice"]["mean"] == pytest.approx((1 + 4 / 5) / 2)
    assert (scores["discs"], scores["discs_found"], scores["false_discs"]) == (6, 5, 0)
    assert scores["found_discs_only"]["dice"] == 1.0
    assert [case["discs_found"] for case in scores["cases"]] == [3, 2]
    assert scores["warnings"] == []
    assert (summary.discs, summary.discs_found, summary.false_discs, summary.warnings) == (6, 5, 0, ())
    assert ticks == [(1, 2), (2, 2)]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["scores.csv", "scores.json"]


@pytest.mark.parametrize("name", ["{}.nii", "{}_Labels.nii.gz", "deep/er/{}.nii.gz"])
def test_names_of_predictions(tmp_path, references, name):
    for case in ("01", "02"):
        save(tmp_path / "other" / name.format(case), spine())
    assert evaluate(tmp_path / "other", references, tmp_path / "out").estimates["dice"].mean == 1.0


def test_flat_folders_and_single_files(tmp_path, predictions):
    for case in ("01", "02"):
        save(tmp_path / f"flat/{case}.nii.gz", spine())
    folders = evaluate(predictions, tmp_path / "flat", tmp_path / "out")
    assert [case.case for case in folders.cases] == ["01", "02"]
    files = evaluate(predictions / "02.nii.gz", tmp_path / "flat/01.nii.gz", tmp_path / "out")
    assert [(case.case, sum(d.found for d in case.discs)) for case in files.cases] == [("01", 2)]
    one = evaluate(predictions / "02.nii.gz", tmp_path / "flat", tmp_path / "out")
    assert [case.case for case in one.cases] == ["02"]


def test_a_missing_and_an_empty_prediction_score_the_penalty_and_are_told(tmp_path, predictions, references):
    save(references / "03/03_Labels.nii", spine())
    save(predictions / "02.nii.gz", np.zeros(SHAPE, np.uint8))
    summary = evaluate(predictions, references, tmp_path / "out")
    table = rows(tmp_path / "out")
    assert len(table) == 9
    for row in table[3:]:
        assert (row["found"], float(row["dice"])) == ("0", 0.0)
        assert float(row["asd_mm"]) == pytest.approx(DIAGONAL_MM, abs=1e-5)
    empty, missing = summary.warnings
    assert "02.nii.gz: empty" in empty
    assert "03: no prediction for" in missing
    assert json.loads((tmp_path / "out/scores.json").read_text())["warnings"] == [empty, missing]


def test_a_prediction_too_many_is_told(tmp_path, predictions, references):
    save(predictions / "99.nii.gz", spine())
    summary = evaluate(predictions, references, tmp_path / "out")
    assert len(summary.cases) == 2
    assert summary.warnings[0].endswith("for want of a reference: 99")


def test_axes_may_be_stored_otherwise(tmp_path, references):
    for case in ("01", "02"):
        image = nib.as_closest_canonical(nib.Nifti1Image(spine(), affine()))
        (tmp_path / "turned").mkdir(exist_ok=True)
        image.to_filename(tmp_path / f"turned/{case}.nii.gz")
    assert nib.aff2axcodes(image.affine) != ("R", "I", "P")
    assert evaluate(tmp_path / "turned", references, tmp_path / "out").estimates["dice"].mean == 1.0


@pytest.mark.parametrize(
    ("mask", "grid", "fault"),
    [
        (np.zeros((12, 64, 50), np.uint8), affine(), "another shape"),
        (spine(), affine((0, 0, 10.8)), "10.8 mm"),
    ],
)
def test_another_grid_is_one_line_that_names_both_files(tmp_path, predictions, references, mask, grid, fault):
    save(predictions / "02.nii.gz", mask, grid)
    with pytest.raises(DataError) as caught:
        evaluate(predictions, references, tmp_path / "out")
    line = str(caught.value)
    assert fault in line
    assert str(predictions / "02.nii.gz") in line
    assert str(references / "02/02_Labels.nii") in line
    assert "\n" not in line
    assert not (tmp_path / "out").exists()


def test_a_reference_whose_header_is_wrong_can_be_scored_by_its_voxels(tmp_path, predictions, references):
    save(references / "01/01_Labels.nii", spine(), affine((0, 0, 10.8)))
    summary = evaluate(predictions, references, tmp_path / "out", label_grid="voxels")
    assert summary.cases[0].volume_dice == 1.0
    summary = evaluate(predictions, references, tmp_path / "out", label_grid="header")
    assert summary.cases[0].volume_dice < 0.5


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda p, r: save(r / "02/02_Labels.nii", np.zeros(SHAPE, np.uint8)), "no disc"),
        (lambda p, r: save(p / "02_Labels.nii.gz", spine()), "twice"),
        (lambda p, r: [file.unlink() for file in p.iterdir()], "no masks"),
        (lambda p, r: [file.rename(p / f"x{file.name}") for file in p.iterdir()], "none of its masks"),
        (lambda p, r: (p / "02.nii.gz").write_bytes(b"no"), "02.nii.gz"),
        (lambda p, r: save(p / "02.nii.gz", spine().astype(np.float32) / 2), "integers"),
        (lambda p, r: save(p / "02.nii.gz", spine() * np.arange(201, 249, dtype=np.uint8)), "number the discs alike"),
        (lambda p, r: [file.unlink() for file in r.rglob("*_Labels.nii")], "no masks"),
    ],
)
def test_what_cannot_be_scored_is_one_line(tmp_path, predictions, references, break_it, words):
    break_it(predictions, references)
    with pytest.raises(DataError, match=words) as caught:
        evaluate(predictions, references, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_paths_that_do_not_exist(tmp_path, predictions):
    with pytest.raises(DataError, match="nowhere"):
        evaluate(predictions, tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(DataError, match="nowhere"):
        evaluate(tmp_path / "nowhere", predictions, tmp_path / "out")
    with pytest.raises(DataError, match=r"01\.nii\.gz: is a file where a folder is needed"):
        evaluate(predictions, predictions, predictions / "01.nii.gz")


def numbered(values):
    """The spine's discs with these values, the lowest first; and a vertebra, which every scheme numbers otherwise."""
    mask = sum(spine([k]) * np.uint8(value) for k, value in enumerate(values))
    mask[2:10, 40:46, 10:30] = 5
    return mask


def test_label_values_mean_what_the_schemes_named_say(tmp_path, references):
    for case in ("01", "02"):
        save(references / f"{case}/{case}_Labels.nii", numbered([11, 12, 13]))
        save(tmp_path / f"spider/{case}.nii.gz", numbered([201, 202, 203]))
        save(tmp_path / f"total/{case}.nii.gz", numbered([202, 203, 204]))

    def dice(tool, scheme):
        summary = evaluate(
            tmp_path / tool,
            references,
            tmp_path / "out",
            prediction_scheme=scheme,
            reference_scheme=Scheme.MRSPINESEG,
        )
        assert summary.discs == 6
        assert summary.estimates["volume_dice"].mean == pytest.approx(1.0)
        return [round(disc.dice, 3) for disc in summary.cases[0].discs]

    assert dice("spider", Scheme.SPIDER) == dice("total", Scheme.TOTALSPINESEG) == [1, 1, 1]
    schemes = json.loads((tmp_path / "out/scores.json").read_text())["label_schemes"]
    assert schemes == {"prediction": "totalspineseg", "reference": "mrspineseg"}
    # Under the wrong name every disc lies a level off: values do not tell, and are not asked.
    assert dice("total", Scheme.SPIDER) == [0, 0, 0]


def test_a_numbered_prediction_meets_a_binary_reference(tmp_path, predictions, references):
    for case in ("01", "02"):
        save(predictions / f"{case}.nii.gz", numbered([201, 202, 203]))
    summary = evaluate(predictions, references, tmp_path / "out", prediction_scheme=Scheme.SPIDER)
    assert summary.estimates["dice"].mean == 1.0
    scores = json.loads((tmp_path / "out/scores.json").read_text())
    assert scores["label_schemes"] == {"prediction": "spider", "reference": "as-is"}


def test_a_map_without_the_schemes_discs_is_refused_and_an_empty_one_is_missed(tmp_path, predictions, references):
    save(predictions / "01.nii.gz", numbered([201, 202, 203]))
    save(predictions / "02.nii.gz", np.zeros(SHAPE, np.uint8))
    summary = evaluate(predictions, references, tmp_path / "out", prediction_scheme=Scheme.SPIDER)
    assert [case.volume_dice for case in summary.cases] == [1, 0]
    assert "02.nii.gz: empty" in summary.warnings[0]
    for options, file in (
        ({"prediction_scheme": Scheme.MRSPINESEG}, predictions / "01.nii.gz"),
        ({"reference_scheme": Scheme.SPIDER}, references / "01/01_Labels.nii"),
    ):
        with pytest.raises(DataError, match="none of the discs of") as caught:
            evaluate(predictions, references, tmp_path / "other", **options)
        assert str(file) in str(caught.value)
        assert not (tmp_path / "other").exists()


def test_a_missing_prediction_is_missed_at_the_levels_of_the_scheme(tmp_path, predictions, references):
    (predictions / "02.nii.gz").unlink()
    save(references / "02/02_Labels.nii", numbered([201, 202, 203]))
    save(references / "01/01_Labels.nii", numbered([201, 202, 203]))
    summary = evaluate(predictions, references, tmp_path / "out", reference_scheme=Scheme.SPIDER)
    assert [sum(disc.found for disc in case.discs) for case in summary.cases] == [3, 0]
    assert len(summary.cases[1].discs) == 3


def test_subjects_by_a_rule(tmp_path, predictions, references):
    assert assign_subjects(predictions, references, "pairs") == {"01": "01+02", "02": "01+02"}
    assert assign_subjects(predictions, references, "single") == {"01": "01", "02": "02"}
    (tmp_path / "table.csv").write_text("case,subject\n01,a\n02,b\n03,b\n")
    subjects = assign_subjects(predictions, references, "table", tmp_path / "table.csv")
    assert subjects == {"01": "a", "02": "b"}
    evaluate(predictions, references, tmp_path / "out", subjects=subjects)
    scores = json.loads((tmp_path / "out/scores.json").read_text())
    assert scores["interval"]["resampled"] == "subjects"
    assert [case["subject"] for case in scores["cases"]] == ["a", "b"]
    (tmp_path / "table.csv").write_text("case,subject\n01,a\n")
    with pytest.raises(DataError, match="no row for case 02"):
        assign_subjects(predictions, references, "table", tmp_path / "table.csv")


def case_scores(case, dice):
    disc = DiscScore(case, 1, True, dice, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
    return CaseScores(case, (disc,), dice, 0)


def test_intervals_resample_subjects_where_they_are_known(tmp_path, predictions, references):
    scores = [case_scores(f"{i:02d}", d) for i, d in enumerate([0.8, 0.8, 0.9, 0.9, 0.85, 0.85, 0.7, 0.7], start=1)]
    subjects = {case.case: f"s{(int(case.case) - 1) // 2}" for case in scores}
    by_case, by_subject = summarise(scores), summarise(scores, subjects)
    one, two = by_case.estimates["dice"], by_subject.estimates["dice"]
    assert one.mean == two.mean == pytest.approx(0.8125)
    assert one.low < 0.8125 < one.high
    # Twins bring nothing new: four subjects are less sure than eight cases.
    assert two.high - two.low > 1.2 * (one.high - one.low)
    assert to_json(by_subject)["interval"]["resampled"] == "subjects"
    assert to_json(by_subject)["cases"][2]["subject"] == "s1"
    with pytest.raises(UsageError, match="02"):
        evaluate(predictions, references, tmp_path / "out", subjects={"01": "a"})


def test_discs_are_pooled_by_their_place_with_intervals_over_subjects():
    def case(name, *dices):
        found = [DiscScore(name, i, d > 0, d, 10.0 * i, 1.0, 1.0, 1.0, 1.0, 1.0) for i, d in enumerate(dices, start=1)]
        return CaseScores(name, tuple(found), 0.5, 0)

    scores = [case("01", 0.8, 0.6), case("02", 0.9, 0.0), case("03", 0.7)]
    lowest, next_up = to_json(summarise(scores, {"01": "a", "02": "a", "03": "b"}))["per_disc"]
    assert [(d["disc"], d["discs"], d["discs_found"]) for d in (lowest, next_up)] == [(1, 3, 3), (2, 2, 1)]
    assert (lowest["dice"]["mean"], lowest["asd_mm"]["mean"]) == pytest.approx((0.8, 10.0))
    # Of two subjects a resample holds one alone now and then, so the interval runs from the one's mean to the other's.
    assert (lowest["dice"]["low"], lowest["dice"]["high"]) == pytest.approx((0.7, 0.85))
    # A missed disc counts, and one subject alone has no interval.
    assert next_up["dice"] == {"mean": 0.3, "std": pytest.approx(0.424264), "low": None, "high": None}
    assert next_up["asd_mm"]["mean"] == 20.0


def test_one_case_says_nothing_of_the_spread():
    estimate = summarise([case_scores("01", 0.9)]).estimates["dice"]
    assert (estimate.mean, estimate.std, estimate.low, estimate.high) == (0.9, None, None, None)


def test_scoring_does_not_load_jax():
    code = "import ivdjax.evaluation.evaluate, sys; print('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_labels_numbered_otherwise_are_told(tmp_path):
    upwards = sum((spine([k]) * (k + 1) for k in range(3)), np.zeros(SHAPE, np.uint8))
    reference = save(tmp_path / "01_Labels.nii.gz", upwards)
    downwards = np.where(upwards > 0, 4 - upwards, 0).astype(np.uint8)
    summary = evaluate(save(tmp_path / "tool" / "01.nii.gz", downwards), reference, tmp_path / "out")
    assert summary.estimates["volume_dice"].mean == 1.0
    assert len(summary.warnings) == 1
    assert "numbered alike?" in summary.warnings[0]
    assert evaluate(reference, reference, tmp_path / "out").warnings == ()
