"""Tables and figures of made-up scores, whose differences and p-values are known."""

import csv
import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from ivdjax import config, files
from ivdjax.ablation import figure, results, table
from ivdjax.ablation.plan import plan
from ivdjax.config import Data, Experiment
from ivdjax.data import dataset
from ivdjax.errors import DataError, UsageError
from ivdjax.evaluation import statistics
from ivdjax.evaluation.evaluate import COLUMNS, DISC_METRICS
from ivdjax.models import UNet

SUBJECTS = ["1", "1", "2", "3", "4", "5", "6"]
BASE = np.array([0.80, 0.82, 0.85, 0.79, 0.90, 0.88, 0.75])
# Every subject loses as much; every subject gains, each another amount.
GAIN = np.array([0.01, 0.03, 0.01, 0.03, 0.04, 0.05, 0.06])
DICE = {"k1": BASE - 0.1, "k5": BASE, "k7": BASE + GAIN}


def variants(base):
    return {f"k{K}": dataclasses.replace(base, data=dataclasses.replace(base.data, slices=K)) for K in (1, 5, 7)}


@pytest.fixture
def finished(tmp_path):
    """A plan whose runs all left scores."""
    base = Experiment(name="made", model=UNet(features=(4, 8)), run_dir=tmp_path, data=Data(root=tmp_path / "scans"))
    laid = plan("made", variants, base)
    for variant in laid.variants:
        leave_run(variant, DICE[variant.name])
    return laid


def leave_run(variant, dice):
    cases = [
        {"case": f"{i:02d}", "subject": subject, "discs": 7, "discs_found": 7, "false_discs": i, "volume_dice": 0.5}
        | dict.fromkeys(DISC_METRICS, 1.25)
        | {"dice": float(value)}
        for i, (subject, value) in enumerate(zip(SUBJECTS, dice, strict=True), 1)
    ]
    files.write_json(variant.folder / "scores.json", {"cases": cases[::-1]})
    files.write_json(variant.folder / "config.json", config.to_dict(variant.experiment))
    files.write_text(variant.folder / "splits.json", json.dumps([{"learn_subjects": 5}] * 2))
    files.write_text(variant.folder / "scores.csv", ",".join(COLUMNS) + "\n")
    files.write_text(variant.folder / "report.html", "")


def test_the_table_compares_by_subject_and_corrects_for_many(finished):
    text = table.write(results.collect(finished, finished.variants), finished.folder / "table.md")
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith(("| k", "| **"))]
    assert [row[0].strip("| ") for row in rows] == ["k1", "**k5**, base", "k7"]
    # Six subjects: 2 / 2^6 = 0.031 where all go one way, twice that after the correction.
    assert [row[-2:] for row in rows] == [["0.031", "0.062 |"], ["", " |"], ["0.031", "0.062 |"]]
    assert rows[0][-3].startswith("-0.100 (-0.100 to -0.100)")
    gains = np.array([0.02, 0.01, 0.03, 0.04, 0.05, 0.06])  # those of a subject's two scans averaged
    assert rows[2][-3].startswith(f"+{gains.mean():.3f}")
    assert "smallest p that 6 subjects can give is 0.031, and 0.062" in text
    assert "too few subjects" in text
    assert "7 held-out cases of 6 subjects of scans" in text
    assert (finished.folder / "table.md").read_text() == text


def test_p_values_and_corrections_are_those_of_the_statistics(finished):
    compared = results.collect(finished, finished.variants).comparisons("dice")
    raw = {name: statistics.compare(DICE[name], BASE, SUBJECTS) for name in ("k1", "k7")}
    assert {name: comparison for name, (comparison, _) in compared.items()} == raw
    assert [p for _, p in compared.values()] == list(statistics.holm([raw["k1"].p, raw["k7"].p]))


def test_the_csv_has_a_row_a_variant_and_case(finished):
    found = results.collect(finished, finished.variants[:2])
    results.write_csv(found, finished.folder / "results.csv")
    with (finished.folder / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["variant"], row["case"]) for row in rows] == [
        (name, f"{i:02d}") for name in ("k1", "k5") for i in range(1, 8)
    ]
    assert [float(row["dice"]) for row in rows[7:]] == BASE.round(6).tolist()
    assert tuple(rows[0]) == results.COLUMNS


def test_without_the_base_there_are_figures_but_no_comparison(finished):
    found = results.collect(finished, [v for v in finished.variants if v.changes])
    assert found.comparisons("dice") == {}
    assert "p, Holm" in table.write(found, finished.folder / "table.md")
    figure.write(found, finished.folder / "figure.png")


def test_phantoms_are_called_so(finished):
    files.write_json(finished.folder / "scans" / dataset.PHANTOM_MARK, {})
    text = table.write(results.collect(finished, finished.variants), finished.folder / "table.md")
    assert "**the digital phantom in scans**" in text


@pytest.mark.parametrize("curve", [False, True])
def test_the_figure_shows_all_variants_in_their_place(finished, curve):
    found = results.collect(finished, finished.variants)
    if curve:
        changed = [
            dataclasses.replace(r, changes=(f"data.learn_subjects {i}",) if r.changes else (), learn_subjects=(i,))
            for i, r in enumerate(found.variants, 1)
        ]
        found = dataclasses.replace(found, variants=tuple(changed))
    figure.write(found, finished.folder / "figure.png")
    picture = np.asarray(Image.open(finished.folder / "figure.png").convert("RGB"), int)
    assert picture.shape[1] > 1000
    for color in ((0x2F, 0x5D, 0x8A), (0xC2, 0x57, 0x1A)):  # of variants and of the base
        assert (np.abs(picture - color).sum(-1) < 9).sum() > 200
    assert not list(finished.folder.glob(".partial*"))


def test_what_cannot_be_compared_is_refused(finished):
    leave_run(finished.variants[0], DICE["k1"])
    scores = json.loads((finished.variants[0].folder / "scores.json").read_text())
    scores["cases"].pop()
    files.write_json(finished.variants[0].folder / "scores.json", scores)
    with pytest.raises(DataError, match="k5 and k1 were scored on different cases"):
        results.collect(finished, finished.variants)
    (finished.variants[1].folder / "splits.json").write_text("[{}]")
    with pytest.raises(DataError, match="run it again"):
        results.collect(finished, finished.variants[1:])


def test_a_plan_has_one_base_and_knows_its_variants(finished):
    assert finished.base_variant.name == "k5"
    assert [variant.changes for variant in finished.variants] == [("data.slices 1",), (), ("data.slices 7",)]
    assert [variant.name for variant in finished.choose(["k7", "k1"])] == ["k1", "k7"]
    with pytest.raises(UsageError, match="no variant k9; it has k1, k5, k7"):
        finished.choose(["k9"])
    with pytest.raises(UsageError, match="nothing to compare"):
        plan("made", lambda base: {"k5": base}, finished.base)


def test_copies_of_a_run_are_read_from_the_newest_whole_one(finished):
    variant, folder = finished.variants[0], finished.folder / "k1"
    for slot, number in (("a", 3), ("b", 4)):
        (folder / slot).mkdir()
        (folder / f"{slot}.complete").write_text(f"{number}\n")
    assert variant.folder == folder / "b"
    assert not variant.finished
