"""The page about a run: sound HTML, nothing from elsewhere, names escaped, and the figures it was given."""

import base64
import hashlib
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from ivdjax.errors import DataError
from ivdjax.evaluation import record
from ivdjax.evaluation.report import write_report
from tests.evaluation.pages import HOSTILE, SHAPE, Page, make_run, spine, write_scans

# The second case misses its lowest disc.
PREDICTIONS = {"01": spine(), "02": spine([1, 2])}


def test_the_page_tells_the_scores(tmp_path):
    cases = make_run(tmp_path / "run", PREDICTIONS)
    path = write_report(
        tmp_path / "run",
        cases,
        caption="Two toy cases.",
        data={"cases learned from": 14},
    )
    assert path == tmp_path / "run/report.html"
    page = Page(path.read_text(encoding="utf-8"))
    assert page.open == []
    for words in (
        "unet", "Two toy cases.", "0.833", "5 of 6", "1 not found, 0 false", "02: a warning", "not found", "UNet",
        "cases learned from 14", "of the training not recorded", "60 steps in 0 min 31 s, 40.0 stacks a second",
            "hd95_mm",
        "training took 0 min 31 s", "seed 0", "scans IVDM3Seg", "cases held out 2", "Written 20",
        "L5/S1", "L4/L5", "L3/L4", "L5/S1 missed", "phantom",
    ):  # fmt: skip
        assert (words in page.text) == (words != "phantom"), words
    assert "L2/L3" not in page.text
    assert page.text.count("02, L5/S1: missed") == 2  # in both box plots
    assert len(page.all("text", "lost")) == 6  # its name, in each slice that has it
    # The worst case comes first, in the tables as in the slices.
    body = path.read_text(encoding="utf-8")
    for place in ("<th>{}</th>", "<h3>{}</h3>", 'aria-label="Case {}, a sagittal'):
        assert 0 < body.index(place.format("02")) < body.index(place.format("01"))
    assert sorted(file.name for file in (tmp_path / "run").iterdir()) == [
        "config.json", "log.jsonl", "report.html", "scores.csv", "scores.json",
    ]  # fmt: skip


def test_discs_are_pooled_by_level(tmp_path):
    make_run(tmp_path / "run", PREDICTIONS, subjects={"01": "a", "02": "b"})
    page = Page(write_report(tmp_path / "run", []).read_text("utf-8"))
    (lowest,) = [level for level in to_read(tmp_path / "run") if level["disc"] == 1]
    assert (lowest["discs_found"], lowest["discs"]) == (1, 2)
    mean, low, high = (f"{lowest['dice'][key]:.3f}" for key in ("mean", "low", "high"))
    assert f"L5/S1 1 of 2 {mean} {low} to {high} " in page.text
    assert "their 95% intervals (subjects resampled)" in page.text


def to_read(folder):
    return json.loads((folder / "scores.json").read_text())["per_disc"]


def test_the_page_asks_for_nothing_from_elsewhere(tmp_path):
    cases = make_run(tmp_path / "run", PREDICTIONS)
    body = write_report(tmp_path / "run", cases).read_text(encoding="utf-8")
    page = Page(body)
    # The slices of two cases, and one disc as it was measured in both masks.
    assert len([address for address in page.addresses if address.startswith("data:image/jpeg;base64,")]) == 2 + 2
    ids = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    assert all(address.startswith("data:") or address[1:] in ids for address in page.addresses)
    assert not {"link", "iframe", "object", "embed"} & set(page.tags)
    assert page.handlers == []
    assert not re.search(r"https?:|url\(|@import|//[a-z]", re.sub(r"base64,[A-Za-z0-9+/=]+", "", body))


def test_the_policy_names_the_one_script_by_its_hash(tmp_path):
    make_run(tmp_path / "run", PREDICTIONS)
    body = write_report(tmp_path / "run", []).read_text(encoding="utf-8")
    (script,) = re.findall(r"<script>(.*?)</script>", body, re.DOTALL)
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', body)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy.replace("style-src 'unsafe-inline'", "")


def test_names_are_escaped_everywhere(tmp_path):
    cases = make_run(tmp_path / "run", {"01": spine(), HOSTILE: spine([1, 2])}, name=HOSTILE)
    hostile = {"versions": {HOSTILE: HOSTILE}, "machine": {HOSTILE: HOSTILE}}
    keep_provenance(tmp_path / "run", start(0, versions={}, machine={}), start(1, **hostile))
    path = write_report(tmp_path / "run", cases, caption=HOSTILE, data={HOSTILE: HOSTILE})
    page = Page(path.read_text("utf-8"))
    assert page.open == []
    assert page.tags.count("script") == 1
    # Title, heading, caption, warning, both tables, the slices, tooltips of 3 discs in 2 box plots and of 2 discs in 2
    # plots of agreement, two pictures of a disc, the table of measures, data twice, settings, versions and machine
    # twice each, and as often in the notice that they changed.
    assert page.text.count(HOSTILE) == 31
    labels = [
        attributes["aria-label"] for _, attributes in page.elements if HOSTILE in attributes.get("aria-label", "")
    ]
    assert len(labels) == 2


def test_only_a_run_on_the_phantom_says_so(tmp_path):
    make_run(tmp_path / "phantom", PREDICTIONS, root=None)
    make_run(tmp_path / "patients", PREDICTIONS)
    assert "digital phantom" in write_report(tmp_path / "phantom", []).read_text("utf-8")
    assert "digital phantom" not in write_report(tmp_path / "patients", []).read_text("utf-8")


def test_without_a_log_or_cases_the_page_still_opens(tmp_path):
    make_run(tmp_path / "run", PREDICTIONS, log=False)
    page = Page(write_report(tmp_path / "run", []).read_text("utf-8"))
    assert page.open == []
    assert not {"image", "input"} & set(page.tags)
    assert "Training" not in page.text
    assert "Slices" not in page.text


def test_a_run_that_found_nothing_has_a_page(tmp_path):
    cases = make_run(tmp_path / "run", {"01": spine([])})
    page = Page(write_report(tmp_path / "run", cases).read_text("utf-8"))
    assert page.open == []
    assert "0 of 3" in page.text
    assert "nan" not in page.text.lower()
    # Nothing to plot, but the reference's measures and its outlines are there.
    assert "Level by level" in page.text
    assert "In the charts" not in page.text
    assert page.all("path", "reference")
    assert not page.all("path", "prediction")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", None),
        ("scores.json", None),
        ("scores.json", "{"),
        ("scores.json", "[]"),
        ("scores.json", "{}"),
        ("scores.json", '{"cases": [{"dice": 1}]}'),
        ("scores.json", '{"cases": [{"case": "01"}]}'),
        ("scores.csv", None),
        ("scores.csv", "case,disc\n01,1\n"),
        ("scores.csv", "case,disc,found,dice,asd_mm,center_mm,hd95_mm,nsd_1mm,reference_mm3,predicted_mm3\n01,1,1\n"),
    ],
)
def test_an_unfinished_run_is_one_line(tmp_path, name, content):
    make_run(tmp_path / "run", PREDICTIONS)
    (tmp_path / "run" / name).unlink()
    if content is not None:
        (tmp_path / "run" / name).write_text(content)
    with pytest.raises(DataError, match="run") as caught:
        write_report(tmp_path / "run", [])
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run/report.html").exists()


def test_a_folder_that_is_none_is_one_line(tmp_path):
    with pytest.raises(DataError, match="nowhere: no such folder"):
        write_report(tmp_path / "nowhere", [])


def test_the_cases_of_a_run_are_read_from_where_its_scans_are(tmp_path):
    cases = make_run(tmp_path / "run", PREDICTIONS, root=str(tmp_path / "scans"))
    run = record.read(tmp_path / "run")
    with pytest.raises(DataError, match="scans: no such folder"):
        record.load_cases(run)
    write_scans(tmp_path / "scans", [tmp_path / "run"], cases)
    loaded = record.load_cases(run)
    assert [case.name for case in loaded] == ["01", "02"]
    for case, made in zip(loaded, cases, strict=True):
        np.testing.assert_allclose(case.image_ZxHxW, made.image_ZxHxW, atol=1e-6)
        np.testing.assert_array_equal(case.reference_ZxHxW, made.reference_ZxHxW)
        np.testing.assert_array_equal(case.prediction_ZxHxW, made.prediction_ZxHxW)
        np.testing.assert_allclose(case.affine, made.affine)
        assert case.spacing_mm == pytest.approx(made.spacing_mm)
    assert [case.name for case in record.load_cases(run, ["02"])] == ["02"]
    (tmp_path / "scans/02/02_Labels.nii.gz").unlink()
    with pytest.raises(DataError, match="no case 02 with a label"):
        record.load_cases(run)


def start(step, **changes):
    """An entry of `provenance.json`."""
    whole = {"step": step, "time": "2026-01-02T03:04:05+00:00", "seeds": [0], "code_sha256": "c0de" * 16}
    return whole | {"versions": {"python": "3.11.7", "jax": "0.10.2"}, "machine": {"devices": "1 x cpu"}} | changes


def keep_provenance(folder, *starts, sha256="da7a" * 16):
    (folder / "provenance.json").write_text(json.dumps({"data": {"sha256": sha256, "cases": {}}, "starts": starts}))


def test_the_page_tells_what_the_training_was_made_with_and_where_parts_of_it_differ(tmp_path):
    make_run(tmp_path / "run", PREDICTIONS)
    keep_provenance(tmp_path / "run", start(0), start(20))
    text = Page(write_report(tmp_path / "run", []).read_text("utf-8")).text
    for words in ("jax 0.10.2", "code of ivdjax c0dec0dec0dec0de", "devices 1 x cpu", "times it went on 1", "seeds 0"):
        assert words in text
    assert f"hash of all scans and masks {'da7a' * 4}" in text
    assert "Trained in parts" not in text

    other = {"python": "3.11.7", "jax": "0.11.0"}
    keep_provenance(tmp_path / "run", start(0), start(20, versions=other), start(40, versions=other))
    text = Page(write_report(tmp_path / "run", []).read_text("utf-8")).text
    assert "Trained in parts that differ." in text
    assert text.count("after step 20: versions.jax was '0.10.2', now '0.11.0'") == 1
    assert "after step 40: " not in text

    (tmp_path / "run/provenance.json").write_text('{"starts": [{}]}')
    with pytest.raises(DataError, match="not what this version of ivdjax writes"):
        write_report(tmp_path / "run", [])


def test_the_slices_in_the_page_are_the_slices_of_the_case(tmp_path):
    cases = make_run(tmp_path / "run", PREDICTIONS)
    page = Page(write_report(tmp_path / "run", cases).read_text("utf-8"))
    jpeg = base64.b64decode(next(a for a in page.addresses if a.startswith("data:")).partition(",")[2])
    shown = np.asarray(Image.open(io.BytesIO(jpeg)))
    (sheet, *_) = page.all("image")
    bars = page.all("g", "bars")[: SHAPE[0]]
    # In the toy image grey rises with the slice's number; a window in mm finds each slice on the sheet.
    greys = []
    for bar in bars:
        x, y, width, height = (float(n) for n in bar["data-window"].split())
        rows, columns = (
            slice(round(y / 1.25), round((y + height) / 1.25)),
            slice(round(x / 1.25), round((x + width) / 1.25)),
        )
        greys.append(shown[rows, columns].mean())
    assert shown.shape == (round(float(sheet["height"]) / 1.25), round(float(sheet["width"]) / 1.25))
    np.testing.assert_allclose(greys, np.linspace(0, 255, SHAPE[0]), atol=6)
