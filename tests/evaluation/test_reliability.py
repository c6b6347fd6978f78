"""The files and the part of the page about how far a run can be trusted."""

import dataclasses

import numpy as np
import pytest

from ivdjax.errors import DataError
from ivdjax.evaluation import calibration, reliability, reliability_page
from ivdjax.evaluation.challenge import score_case
from ivdjax.evaluation.report import write_report
from tests.evaluation.pages import HOSTILE, SHAPE, SPACING_MM, Page, make_run, spine


def make_reliable(folder, cases, subjects):
    """Cases whose discs are cut to various heights, with a probability that knows it; and a false piece in each."""
    scores = []
    for number, case in enumerate(cases):
        mask = np.zeros(SHAPE, np.uint8)
        chance = np.full(SHAPE, 0.02, np.float32)
        for k in range(3):
            height = 1 + (2 * k + number) % 6
            disc = spine([k], height) > 0
            mask[disc] = 1
            chance[disc] = 0.5 + 0.08 * height
        mask[:3, :6, :20], chance[:3, :6, :20] = 1, 0.6
        scores.append(score_case(case, mask, spine(), SPACING_MM))
        counts = calibration.count(chance, mask, mask, spine(), SPACING_MM)
        calibration.write_case(calibration.case_path(folder, case), counts)
    reliability.write(folder, scores, subjects)
    return scores


@pytest.fixture
def cases():
    return ["01", "02", "03", HOSTILE]


def test_what_is_written_is_read_back(tmp_path, cases):
    assert reliability.read(tmp_path) is None
    scores = make_reliable(tmp_path, cases, {case: case for case in cases})
    found = reliability.read(tmp_path)
    assert len(found.discs) == 16
    assert sum(disc.reference is None and disc.dice == 0 for disc in found.discs) == 4
    for disc in found.discs:
        if disc.reference is not None:
            (score,) = (s for case in scores for s in case.discs if (case.case, s.disc) == (disc.case, disc.reference))
            assert disc.dice == pytest.approx(score.dice, abs=1e-6)
    ranked, calibrated = found.summary["ranking"], found.summary["calibration"]
    assert ranked["spearman"] > 0.7
    assert ranked["low"] <= ranked["spearman"] <= ranked["high"]
    assert calibrated["low"] <= calibrated["error"] <= calibrated["high"]
    assert sum(b["voxels"] for b in calibrated["bins"]) > 0
    (tmp_path / "confidence.csv").write_text("case,disc\n01,1\n")
    with pytest.raises(DataError, match=r"confidence\.csv"):
        reliability.read(tmp_path)


def test_the_page_tells_it_in_words_and_charts(tmp_path, cases):
    make_run(tmp_path / "run", {case: spine() for case in cases})
    make_reliable(tmp_path / "run", cases, {case: case for case in cases})
    page = Page(write_report(tmp_path / "run", []).read_text("utf-8"))
    assert page.open == []
    for words in (
        "How far it can be trusted", "Expected calibration error 0.", "within 5 mm of a reference or predicted disc",
        "Of each of the 16 predicted discs", "Spearman", "least confidence (2 discs) hold 2 of these",
        "Share of voxels that are disc", "Dice of each predicted disc", "Mean Dice of the discs that remain",
        f"{HOSTILE}, false: Dice 0.000", "01, L5/S1: Dice",
    ):  # fmt: skip
        assert words in page.text, words
    assert "What the rules took out" not in page.text


def test_few_discs_are_said_to_be_too_few(tmp_path):
    make_reliable(tmp_path, ["01"], {"01": "a"})
    found = reliability.read(tmp_path)
    text = Page(reliability_page.section(found)).text
    assert "A rank correlation needs 10 discs of 3 subjects; here are 4 of 1" in text
    assert "below a Dice of 0.8: too few to tell whether low confidence finds them" in text
    assert "Mean Dice of the discs that remain" not in text
    nothing = dataclasses.replace(found, summary={**found.summary, "ranking": None}, discs=[])
    assert "None was predicted" in Page(reliability_page.section(nothing)).text


def test_before_and_after_the_rules(tmp_path):
    make_run(tmp_path / "run", {"01": spine()}, predict={"postprocess": {"specks_mm3": 50.0, "column": False}})
    raw = spine()
    raw[:3, :6, :20] = 1
    make_run(tmp_path / "run/raw", {"01": raw})
    page = Page(write_report(tmp_path / "run", []).read_text("utf-8"))
    assert "Rules that were on: specks_mm3 50." in page.text
    # The piece, 360 voxels, goes to the section of the highest of three discs of 864.
    dice, volume_dice = (1 + 1 + 2 * 864 / (2 * 864 + 360)) / 3, 2 * 2592 / (2 * 2592 + 360)
    before = f"as the network gave them {dice:.3f} {volume_dice:.3f} 3 of 3 1"
    assert f"{before} after the rules 1.000 1.000 3 of 3 0" in page.text
