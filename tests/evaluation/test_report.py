"""The page about a run: sound HTML, nothing from elsewhere, names escaped, and the figures it was given."""

import base64
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from ivdjax.errors import DataError
from ivdjax.evaluation.challenge import score_case
from ivdjax.evaluation.curves import Line, line_chart
from ivdjax.evaluation.evaluate import summarise, to_csv, to_json
from ivdjax.evaluation.pictures import mid_sagittal, sagittal_png
from ivdjax.evaluation.report import ReportCase, write_report

SPACING_MM = (2.0, 1.25, 1.25)
SHAPE = (10, 96, 64)
HOSTILE = '<script>alert("1")</script>&$title'
VOID = {"meta", "img", "line", "circle", "polyline", "br"}


def spine(discs=(0, 1, 2)):
    mask = np.zeros(SHAPE, np.uint8)
    for k in discs:
        mask[2:8, 74 - 28 * k : 80 - 28 * k, 16:40] = 1
    return mask


class Page(HTMLParser):
    """What a page holds: its tags, its visible text, and every address it names."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self.addresses, self.open = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


def make_run(folder, *, name="unet", root="IVDM3Seg", cases=("01", "02"), log=True):
    """A run's folder whose second case misses its lowest disc, and the cases to show."""
    predictions = [spine(), spine([1, 2])]
    scores = [score_case(case, mask, spine(), SPACING_MM) for case, mask in zip(cases, predictions, strict=True)]
    summary = summarise(scores, warnings=[f"{cases[1]}: a warning"])
    folder.mkdir()
    config = {"name": name, "model": {"network": "UNet"}, "data": {"root": root, "phantom": {"shape": [36, 256, 256]}}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "scores.csv").write_text(to_csv(scores))
    (folder / "scores.json").write_text(json.dumps(to_json(summary)))
    if log:
        train = {"kind": "train", "loss": 0.5, "dice_loss": 0.3, "cross_entropy": 0.2, "learning_rate": 1e-3}
        rows = [{**train, "step": step, "time_s": step / 2, "stacks_per_s": 40.0} for step in (20, 40, 60)]
        rows.append({"kind": "validation", "step": 60, "time_s": 31.0, "dice": 0.8})
        (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"kind": "tra')
    image = np.random.default_rng(0).random(SHAPE)
    return [ReportCase(c, image, SPACING_MM, spine(), mask) for c, mask in zip(cases, predictions, strict=True)]


def test_the_page_tells_the_scores(tmp_path):
    cases = make_run(tmp_path / "run")
    path = write_report(tmp_path / "run", cases, caption="Two toy cases.", machine={"accelerator": "none at all"})
    assert path == tmp_path / "run/report.html"
    page = Page(path.read_text(encoding="utf-8"))
    assert page.open == []
    for words in (
        "unet", "Two toy cases.", "0.833", "5 of 6", "1 not found, 0 false", "02: a warning", "not found", "UNet",
        "phantom.shape 36, 256, 256", "none at all", "60 steps in 0 min 31 s, 40.0 stacks a second", "hd95_mm",
    ):  # fmt: skip
        assert words in page.text
    # The worst case comes first, in the table as in the pictures.
    body = path.read_text(encoding="utf-8")
    assert body.index("<th>02</th>") < body.index("<th>01</th>")
    assert body.index("Case 02, mid-sagittal") < body.index("Case 01, mid-sagittal")
    assert page.tags.count("svg") == 3
    assert sorted(file.name for file in (tmp_path / "run").iterdir()) == [
        "config.json", "log.jsonl", "report.html", "scores.csv", "scores.json",
    ]  # fmt: skip


def test_the_page_asks_for_nothing_from_elsewhere(tmp_path):
    cases = make_run(tmp_path / "run")
    body = write_report(tmp_path / "run", cases).read_text(encoding="utf-8")
    page = Page(body)
    assert len(page.addresses) == 2
    assert all(address.startswith("data:image/png;base64,") for address in page.addresses)
    assert not {"script", "link", "iframe", "object", "embed"} & set(page.tags)
    assert not re.search(r"https?:|url\(|@import|//[a-z]", re.sub(r"base64,[A-Za-z0-9+/=]+", "", body))
    assert "default-src 'none'" in body


def test_names_are_escaped_everywhere(tmp_path):
    cases = make_run(tmp_path / "run", name=HOSTILE, cases=("01", HOSTILE))
    page = Page(write_report(tmp_path / "run", cases, caption=HOSTILE, machine={HOSTILE: HOSTILE}).read_text("utf-8"))
    assert page.open == []
    assert "script" not in page.tags
    # Title, heading, caption, warning, settings, machine twice, both tables, the picture.
    assert page.text.count(HOSTILE) == 10


def test_only_a_run_on_the_phantom_says_so(tmp_path):
    make_run(tmp_path / "phantom", root=None)
    make_run(tmp_path / "patients")
    assert "digital phantom" in write_report(tmp_path / "phantom", []).read_text("utf-8")
    assert "digital phantom" not in write_report(tmp_path / "patients", []).read_text("utf-8")


def test_without_a_log_or_cases_the_page_still_opens(tmp_path):
    make_run(tmp_path / "run", log=False)
    page = Page(write_report(tmp_path / "run", []).read_text("utf-8"))
    assert page.open == []
    assert "img" not in page.tags
    assert "Training" not in page.text


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", None),
        ("scores.json", None),
        ("scores.json", "{"),
        ("scores.json", "[]"),
        ("scores.json", "{}"),
        ("scores.csv", None),
        ("scores.csv", "case,disc\n01,1\n"),
    ],
)
def test_an_unfinished_run_is_one_line(tmp_path, name, content):
    make_run(tmp_path / "run")
    (tmp_path / "run" / name).unlink()
    if content is not None:
        (tmp_path / "run" / name).write_text(content)
    with pytest.raises(DataError, match="run") as caught:
        write_report(tmp_path / "run", [])
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run/report.html").exists()


def picture(*args, **kwargs):
    return np.asarray(Image.open(io.BytesIO(sagittal_png(*args, **kwargs))).convert("RGB")).astype(int)


def test_a_picture_has_the_proportions_of_the_patient():
    image = np.random.default_rng(0).random((10, 60, 40))
    full = np.ones((10, 60, 40), np.uint8)
    assert picture(image, (2.0, 1.5, 0.5), full, full).shape[:2] == (60 * 1.5 * 3, 40 * 0.5 * 3)


def test_a_picture_shows_both_outlines_where_the_masks_are():
    reference, prediction = spine([0]), spine([2])
    shown = picture(np.zeros(SHAPE), SPACING_MM, reference, prediction)
    blue = np.argwhere((shown[..., 2] > 200) & (shown[..., 0] < 100))
    amber = np.argwhere((shown[..., 0] > 200) & (shown[..., 2] < 100))
    # 3 pixels a mm; the margin reaches the volume's upper and anterior edge.
    top = 74 - 2 * 28
    assert amber.min(0) == pytest.approx([top * 1.25 * 3, 16 * 1.25 * 3], abs=6)
    assert blue.max(0) == pytest.approx([80 * 1.25 * 3, 40 * 1.25 * 3], abs=6)
    assert amber[:, 0].max() < blue[:, 0].min()


def test_the_mid_sagittal_slice_is_where_the_discs_are():
    mask = np.zeros((20, 4, 4), np.uint8)
    assert mid_sagittal(mask) == 10
    mask[3:6, 1:3, 1:3] = 1
    assert mid_sagittal(mask) == 4


def test_pictures_of_different_grids_are_refused():
    with pytest.raises(ValueError, match="shapes"):
        sagittal_png(np.zeros((4, 4, 4)), SPACING_MM, np.zeros((4, 4, 4)), np.zeros((4, 4, 5)))


def test_a_chart_leaves_out_what_is_not_a_number():
    chart = line_chart("<b>", [Line("a", [1, 2, 3], [0.5, float("nan"), 0.7]), Line("b", [1], [0.6])], "step")
    assert Page(chart).open == []
    assert "nan" not in chart
    assert "&lt;b&gt;" in chart
    assert re.search(r'class="line0" points="[\d.]+,[\d.]+ [\d.]+,[\d.]+"', chart)
    assert chart.count("<circle") == 3
    assert line_chart("empty", [Line("a", [1], [float("inf")])], "step") == ""


def test_a_png_in_the_page_is_a_png(tmp_path):
    cases = make_run(tmp_path / "run")
    page = Page(write_report(tmp_path / "run", cases[:1]).read_text("utf-8"))
    png = base64.b64decode(page.addresses[0].partition(",")[2])
    assert Image.open(io.BytesIO(png)).format == "PNG"
