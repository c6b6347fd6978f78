"""The page that compares runs: only what all have in common, the right differences, and refusals in one line."""

import json
import re
import shutil

import numpy as np
import pytest

from ivdjax.errors import DataError, UsageError
from ivdjax.evaluation.compare import write_comparison
from ivdjax.evaluation.match import match
from ivdjax.evaluation.statistics import compare, holm
from tests.evaluation.pages import HOSTILE, Page, make_run, spine, write_scans

TALL, MISSING = spine(height=8), spine([1, 2])
CASES = [f"{k:02d}" for k in range(1, 9)]
SUBJECTS = {case: f"s{k // 2}" for k, case in enumerate(CASES)}


def two_runs(folder, *, subjects=SUBJECTS, first="a", second="b", **settings):
    """Two runs on the same eight cases, the second better in all but the last; each has a case of its own."""
    worse = dict.fromkeys(CASES, TALL) | {"08": spine()}
    better = dict.fromkeys(CASES, spine()) | {"08": TALL}
    extra = None if subjects is None else subjects | {"31": "x", "32": "y"}
    a = make_run(folder / first, worse | {"31": spine()}, subjects=extra, **settings)
    b = make_run(folder / second, better | {"32": spine()}, subjects=extra, seed=7, **settings)
    return [folder / first, folder / second], a[:-1], b[:-1]


def page_of(folders, out):
    assert write_comparison(folders, out) == out
    page = Page(out.read_text("utf-8"))
    assert page.open == []
    return page


def test_the_page_tells_what_differs_on_the_common_cases(tmp_path):
    folders, *_ = two_runs(tmp_path)
    page = page_of(folders, tmp_path / "out" / "comparison.html")
    # Two rows of 6 too many on a disc of 6 rows: Dice 12 / 14.
    dice = 12 / 14
    means = [(7 * dice + 1) / 8, (7 + dice) / 8]
    for words in (
        "a and b", "2 runs on the same 8 cases", "31, 32", f"{means[0]:.3f}", f"{means[1]:.3f}", "24 of 24",
        "over 4 subjects", f"+{means[1] - means[0]:.3f}", "Paired by subject, n = 4", "by Holm 0.750",
        "too few subjects", "Without slices", "seed 0 7", "L5/S1 8 8 / 8", "learned",
    ):  # fmt: skip
        assert (words in page.text) == (words != "learned"), words
    assert "data.root" not in page.text
    tested = [compare([1] * 7 + [dice], [dice] * 7 + [1], list(SUBJECTS.values()))]
    assert f"{tested[0].p:.3f}" in page.text
    assert page.tags.count("polyline") >= 2 * 8 + 3
    assert len(page.all("g", "better")) == len(page.all("g", "worse")) * 7 == 14
    body = (tmp_path / "out/comparison.html").read_text("utf-8")
    # The best of a column is bold; differences are those of the later run to the earlier one, gains green.
    assert f"<b>{means[1]:.3f}</b>" in body
    assert "b \u2212 a" in page.text
    assert f'<span class="gain">+{means[1] - means[0]:.3f}</span>' in body
    assert re.search(r'>ASD, mm</td><td><span class="gain">\u22120\.\d\d</span>', body)


def test_the_tests_are_those_of_statistics(tmp_path):
    rng = np.random.default_rng(1)
    runs = []
    for name in "abc":
        masks = {}
        for k in range(1, 9):
            masks[f"{k:02d}"] = spine(height=int(rng.integers(4, 10)))
        make_run(tmp_path / name, masks)
        runs.append(tmp_path / name)
    page = page_of(runs, tmp_path / "comparison.html")
    matched = match(runs)
    metrics = ["dice", "asd_mm", "center_mm", "hd95_mm", "nsd_1mm", "volume_dice"]
    scores = [{m: [c[m] for c in run.scores["cases"]] for m in metrics} for run in matched.runs]
    pairs = [(0, 1), (0, 2), (1, 2)]
    tested = [compare(scores[j][m], scores[i][m]) for i, j in pairs for m in metrics]
    adjusted = holm([test.p for test in tested])
    shown = [text.strip() for text in page.texts if text.strip()]
    start = shown.index("p by Holm") + 1
    values = [
        text for text in shown[start : start + 200] if text in {f"{p:.3f}" for p in (*adjusted, *(t.p for t in tested))}
    ]
    assert values[:36] == [f"{p:.3f}" for test, q in zip(tested, adjusted, strict=True) for p in (test.p, q)]
    assert "all 18 tests" in page.text
    assert "The scores name no subjects" in page.text
    assert "b \u2212 a" in page.text
    assert "c \u2212 b" in page.text


def test_the_slices_have_the_outlines_of_all_runs(tmp_path):
    folders, a, b = two_runs(tmp_path, root=str(tmp_path / "scans"))
    write_scans(tmp_path / "scans", folders[:1], a)
    shutil.copytree(tmp_path / "scans", tmp_path / "again")
    write_scans(tmp_path / "unused", folders[1:], b)
    page = page_of(folders, tmp_path / "comparison.html")
    assert "Without slices" not in page.text
    assert len(page.all("article", "viewer")) == 8
    assert [label["id"] for label in page.all("input") if label["type"] == "checkbox"] == [
        "reference",
        "run0",
        "run1",
        "levels",
    ]
    for kind in ("reference", "run0", "run1"):
        assert len(page.all("path", kind)) == 8 * 6
    assert len(page.all("image")) == 8
    (folders[1] / "predictions/03.nii.gz").unlink()
    assert "b/predictions/03.nii.gz" in page_of(folders, tmp_path / "comparison.html").text


def test_names_are_escaped(tmp_path):
    odd = HOSTILE.replace("/", "_")
    folders, *_ = two_runs(tmp_path, subjects=None, first=odd, second="b", name=HOSTILE)
    shutil.copytree(folders[1], tmp_path / "c")
    page = page_of([*folders, tmp_path / "c"], tmp_path / "comparison.html")
    assert page.tags.count("script") == 1
    assert page.handlers == []
    assert page.text.count(odd) >= 8


def test_runs_with_the_same_settings_say_so_and_names_tell_folders_apart(tmp_path):
    make_run(tmp_path / "x/run", {"01": spine(), "02": TALL})
    shutil.copytree(tmp_path / "x", tmp_path / "y")
    page = page_of([tmp_path / "x/run", tmp_path / "y/run"], tmp_path / "comparison.html")
    assert "x/run and y/run" in page.text
    assert "same settings" in page.text
    assert "+0.000" in page.text
    assert "1.000" in page.text


def test_runs_on_different_data_say_so_and_those_on_the_same_do_not(tmp_path):
    folders, *_ = two_runs(tmp_path)
    for told, hashes in ((False, "aa"), (True, "ab"), (True, "a")):
        for folder, letter in zip(folders, hashes, strict=False):
            data = {"sha256": 64 * letter, "cases": {}}
            (folder / "provenance.json").write_text(json.dumps({"data": data, "starts": []}))
        if len(hashes) < len(folders):
            (folders[1] / "provenance.json").unlink()
        text = page_of(folders, tmp_path / "comparison.html").text
        assert ("Different data." in text) == told
        second = 16 * "b" if hashes == "ab" else "not recorded"
        assert (f"a: {16 * 'a'} b: {second}" in text) == told


def test_one_common_case_is_compared_without_intervals(tmp_path):
    make_run(tmp_path / "a", {"01": spine()})
    make_run(tmp_path / "b", {"01": TALL})
    page = page_of([tmp_path / "a", tmp_path / "b"], tmp_path / "comparison.html")
    assert "on the same 1 case." in page.text
    assert "The smallest p that 1 case can give is 1.000" in page.text
    assert "nan" not in page.text.lower()


def edit_scores(folder, change):
    scores = json.loads((folder / "scores.json").read_text())
    for case in scores["cases"]:
        change(case)
    (folder / "scores.json").write_text(json.dumps(scores))


def edit_rows(folder, change):
    rows = (folder / "scores.csv").read_text().splitlines()
    change(rows)
    (folder / "scores.csv").write_text("\n".join(rows) + "\n")


def other_names(b):
    edit_scores(b, lambda case: case.update(case=f"other-{case['case']}"))


def no_hd95(b):
    edit_scores(b, lambda case: case.pop("hd95_mm"))


def other_subjects(b):
    edit_scores(b, lambda case: case.update(subject="s0"))


def another_volume(b):
    edit_rows(b, lambda rows: rows.__setitem__(1, rows[1].replace(",2700.0,", ",2701.5,")))


def one_disc_less(b):
    edit_rows(b, lambda rows: rows.pop(3))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda b: (b / "scores.csv").unlink(), "b/scores.csv"),
        (other_names, "a and b: have no held-out case in common"),
        (no_hd95, "hd95_mm"),
        (other_subjects, "b: says that case 03 is of subject s0, a says s1"),
        (another_volume, "different references .case 01, disc 1: 2700 mm3 against 2702 mm3"),
        (one_disc_less, "different references .case 01, disc 3: 2700 mm3 against none"),
    ],
)
def test_runs_that_cannot_be_compared_are_one_line(tmp_path, change, words):
    folders, *_ = two_runs(tmp_path)
    change(folders[1])
    with pytest.raises(DataError, match=words) as caught:
        write_comparison(folders, tmp_path / "comparison.html")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "comparison.html").exists()


def test_wrong_use_is_one_line(tmp_path):
    (a, b), *_ = two_runs(tmp_path)
    with pytest.raises(UsageError, match="two runs or more"):
        write_comparison([a], tmp_path / "comparison.html")
    with pytest.raises(UsageError, match="a: named twice"):
        write_comparison([a, b, b / ".." / "a"], tmp_path / "comparison.html")
    with pytest.raises(DataError, match="none: no such folder"):
        write_comparison([a, tmp_path / "none"], tmp_path / "comparison.html")
