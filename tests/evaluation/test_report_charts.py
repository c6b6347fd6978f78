"""Charts: values stand where the axis says, missed discs do not squash it, and names in tooltips are escaped."""

import re

import numpy as np
import pytest

from ivdjax.evaluation import axes, charts
from ivdjax.evaluation.charts import Box, Dot, Pair
from ivdjax.evaluation.curves import Line, line_chart
from ivdjax.evaluation.statistics import Agreement, bland_altman
from tests.evaluation.pages import HOSTILE, Page


def scale(page):
    """What turns a height in a chart back into a value, from its ticks."""
    ticks = [
        (float(y["y1"]), float(value.replace("\u2212", "-")))
        for y, value in zip(page.all("line", "grid"), page.texts, strict=False)
        if y["y1"] == y["y2"]
    ]
    (y0, v0), (y1, v1) = ticks[0], ticks[-1]
    return lambda y: v0 + (float(y) - y0) / (y1 - y0) * (v1 - v0)


def chart(html):
    """A chart taken apart, without its title, so that its first words are those of its ticks."""
    page = Page(re.sub(r"<figcaption>.*?</figcaption>", "", html))
    assert page.open == []
    return page


def dots(values, name="01"):
    return [Dot(value, f"{name}: {value}") for value in values]


def test_a_box_has_the_quartiles_and_tukeys_whiskers():
    # Quartiles 2, 3 and 4, so that whiskers reach to values within 2 - 3 and 4 + 3; 9 is left out.
    page = chart(charts.box_plot("t", [Box("a", dots([1, 2, 3, 4, 9]))], missed_low=True))
    value = scale(page)
    (box,) = page.all("rect", "box")
    assert value(float(box["y"])) == pytest.approx(4, abs=0.02)
    assert value(float(box["y"]) + float(box["height"])) == pytest.approx(2, abs=0.02)
    (median,) = page.all("line", "median")
    assert value(median["y1"]) == pytest.approx(3, abs=0.02)
    ends = sorted(value(line["y2"]) for line in page.all("line", "whisker"))
    assert ends == pytest.approx([1, 1, 4, 4], abs=0.02)
    assert sorted(value(dot["cy"]) for dot in page.all("circle", "dot")) == pytest.approx([1, 2, 3, 4, 9], abs=0.02)
    assert not page.all("rect", "band")


def test_few_values_have_a_median_and_no_box():
    page = chart(charts.box_plot("t", [Box("a", dots([1, 2, 6])), Box("b", [])], missed_low=True))
    assert scale(page)(page.all("line", "median")[0]["y1"]) == pytest.approx(2, abs=0.02)
    assert not page.all("rect", "box")
    assert "n=3" in page.text
    assert "n=0" in page.text


@pytest.mark.parametrize("low", [True, False])
def test_missed_discs_have_a_band_and_do_not_squash_the_axis(low):
    found = [0.8, 0.85, 0.9, 0.95]
    boxes = [Box("L5/S1", [*dots(found), Dot(None, f"{HOSTILE}: missed")])]
    page = chart(charts.box_plot("Dice", boxes, missed_low=low))
    value = scale(page)
    assert [value(dot["cy"]) for dot in page.all("circle", "dot")] == pytest.approx(found, abs=0.002)
    (band,), (mark,) = page.all("rect", "band"), page.all("path", "missed")
    top, bottom = float(band["y"]), float(band["y"]) + float(band["height"])
    heights = [float(dot["cy"]) for dot in page.all("circle")] + [
        float(line["y1"]) for line in page.all("line", "grid")
    ]
    assert (min(heights) > bottom) if not low else (max(heights) < top)
    assert top < float(re.match(r"M[\d.]+ ([\d.]+)", mark["d"])[1]) + 3.5 < bottom
    assert f"{HOSTILE}: missed" in page.text
    assert "n=5" in page.text


def test_dots_of_one_value_lie_side_by_side():
    page = chart(charts.box_plot("t", [Box("a", dots([0.5] * 6))], missed_low=True))
    places = sorted(float(dot["cx"]) for dot in page.all("circle", "dot"))
    assert np.diff(places).min() >= 5.5


def test_nothing_found_is_no_chart():
    assert charts.box_plot("t", [Box("a", [Dot(None, "missed")])], missed_low=True) == ""


def test_a_few_far_larger_values_make_the_axis_logarithmic():
    html = charts.box_plot("ASD", [Box("a", dots([0.2, 0.3, 0.4, 0.5, 40.0]))], missed_low=False, skewed=True)
    assert "ASD, logarithmic" in html
    axis = axes.skewed([0.2, 0.3, 0.4, 0.5, 40.0], 6, 100.0, 0.0)
    assert axis.ticks == [0.2, 0.5, 1, 2, 5, 10, 20, 50]
    assert axis.at(0.2) == pytest.approx(100)
    assert axis.at(50) == pytest.approx(0)
    assert axis.at(1) - axis.at(2) == pytest.approx(axis.at(10) - axis.at(20))
    assert "logarithmic" not in charts.box_plot("ASD", [Box("a", dots([0.2, 0.9]))], missed_low=False, skewed=True)
    assert not axes.skewed([0.0, 1.0, 90.0], 6, 100.0, 0.0).log


def test_the_plot_of_bland_and_altman():
    measured, reference = [5.0, 6.0, 7.5, 9.0], [4.0, 5.5, 7.0, 9.0]
    agreement = bland_altman(measured, reference, ["a", "a", "b", "c"])
    pairs = [Pair(m, r, "level1", HOSTILE) for m, r in zip(measured, reference, strict=True)]
    html = charts.bland_altman("Volume", "mm", pairs, agreement, [("level1", "L5/S1")])
    page = chart(html)
    value = scale(page)
    assert [value(dot["cy"]) for dot in page.all("circle", "level1")] == pytest.approx([1.0, 0.5, 0.5, 0.0], abs=0.01)
    # Bias 0.5 and its standard deviation, worked out by hand: sqrt((0.25 + 0 + 0 + 0.25) / 3).
    deviation = (0.5 / 3) ** 0.5
    assert value(page.all("line", "bias")[0]["y1"]) == pytest.approx(0.5, abs=0.01)
    upper, lower = (value(line["y1"]) for line in page.all("line", "limit"))
    assert (upper, lower) == pytest.approx((0.5 + 1.96 * deviation, 0.5 - 1.96 * deviation), abs=0.01)
    assert value(page.all("line", "zero")[0]["y1"]) == pytest.approx(0, abs=0.01)
    assert "n = 4" in html
    assert "bias +0.50" in page.text
    assert "+1.96 SD +1.30" in page.text
    assert "\u22121.96 SD \u22120.30" in page.text
    assert page.text.count(HOSTILE) == 4


def test_a_single_pair_has_no_limits():
    agreement = Agreement(0.5, None, None, None, None, None, 1)
    page = chart(charts.bland_altman("t", "mm", [Pair(2.0, 1.5, "level1", "a")], agreement, []))
    assert not page.all("line", "limit")
    assert "bias +0.50" in page.text


def test_lines_from_run_to_run_are_coloured_by_which_is_better():
    lines = [("01", [0.8, 0.9]), ("02", [0.9, 0.7]), (HOSTILE, [0.5, 0.5])]
    for more_is_better, kinds in ((True, ["better", "worse", "even"]), (False, ["worse", "better", "even"])):
        page = chart(charts.slopes("Dice", ["a", HOSTILE], lines, more_is_better))
        assert [group["class"] for group in page.all("g", "slope")] == [f"slope {kind}" for kind in kinds]
        assert f"{HOSTILE}: 0.5, 0.5" in page.text
    three = chart(charts.slopes("Dice", ["a", "b", "c"], [("01", [0.8, 0.9, 0.7])], True))
    assert [group["class"] for group in three.all("g", "slope")] == ["slope even"]
    assert len(three.all("circle")) == 3


def test_a_line_chart_leaves_out_what_is_not_a_number():
    drawn = line_chart("<b>", [Line("a", [1, 2, 3], [0.5, float("nan"), 0.7]), Line("b", [1], [0.6])], "step")
    assert Page(drawn).open == []
    assert "nan" not in drawn
    assert "&lt;b&gt;" in drawn
    assert re.search(r'class="line0" points="[\d.]+,[\d.]+ [\d.]+,[\d.]+"', drawn)
    assert drawn.count("<circle") == 3
    assert line_chart("empty", [Line("a", [1], [float("inf")])], "step") == ""
