"""The slices in the page: outlines where the masks are, one picture a case that stays small, and what is told of it."""

import io
import re

import numpy as np
import pytest
from PIL import Image

from ivdjax.evaluation import pictures
from ivdjax.evaluation.record import ReportCase
from ivdjax.evaluation.viewer import Prediction, viewer
from tests.evaluation.pages import AFFINE, HOSTILE, SPACING_MM, Page, ramp, spine


def corners(path):
    """The closed polygons of an outline, as lists of points in half voxels."""
    polygons = []
    for part in path.split("M")[1:]:
        start, *steps = re.findall(r"[hvl]?-?\d+ ?-?\d*", part)
        points = [tuple(int(n) for n in start.split())]
        for step in steps:
            numbers = [int(n) for n in step[1:].split()]
            dx, dy = {"h": (numbers[0], 0), "v": (0, numbers[0]), "l": (*numbers, 0)[:2]}[step[0]]
            points.append((points[-1][0] + dx, points[-1][1] + dy))
        assert part.endswith("z")
        assert points[-1] == points[0], "the outline closes"
        polygons.append(np.array(points))
    return polygons


def area_voxels(polygons):
    """Area inside the outlines, holes left out, in voxels; each is four squares of half a voxel."""
    return abs(sum(np.sum(p[:-1, 0] * p[1:, 1] - p[1:, 0] * p[:-1, 1]) for p in polygons)) / 2 / 4


@pytest.mark.parametrize("edge", [0, 3])
def test_an_outline_goes_around_its_voxels(edge):
    mask = np.zeros((12, 14), bool)
    mask[edge : edge + 4, 2:9] = True
    (polygon,) = corners(pictures.outline(mask))
    # Half voxels, the first voxel from 0 to 2. At half height each corner is cut by an eighth of a voxel.
    assert polygon.min(axis=0).tolist() == [2 * 2, 2 * edge]
    assert polygon.max(axis=0).tolist() == [2 * 9, 2 * (edge + 4)]
    assert area_voxels([polygon]) == 4 * 7 - 4 / 8


def test_outlines_tell_pieces_and_holes():
    mask = np.zeros((20, 20), bool)
    mask[2:10, 2:10], mask[5:7, 5:7], mask[14:16, 14:16] = True, False, True
    polygons = corners(pictures.outline(mask))
    assert len(polygons) == 3
    # A hole's corners are those of its own voxels, cut to its cost.
    assert area_voxels(polygons) == pytest.approx((64 - 0.5) - (4 - 0.5) + (4 - 0.5))
    assert pictures.outline(np.zeros((5, 5))) == ""


def test_an_outline_is_short():
    disc = np.hypot(*np.mgrid[-20:21, -40:41] / np.array([14, 30])[:, None, None]) < 1
    assert len(pictures.outline(disc)) < 600


def test_the_sheet_keeps_the_slices():
    z, h, w = np.mgrid[:7, :30, :18]
    image = 10.0 * z + h + w
    sheet = pictures.sheet(image, 10**6)
    shown = np.asarray(Image.open(io.BytesIO(sheet.jpeg))).astype(float)
    assert shown.shape == (sheet.height_px, sheet.width_px)
    assert (sheet.cell_px[0] % 8, sheet.cell_px[1] % 8, sheet.slice_px) == (0, 0, (30, 18))
    black, white = np.percentile(image, pictures.WINDOW_PERCENTILES)
    for k in range(7):
        row, column = sheet.corner_px(k)
        wanted = 255 * np.clip((image[k] - black) / (white - black), 0, 1)
        np.testing.assert_allclose(shown[row : row + 30, column : column + 18], wanted, atol=6)
        # A ring of the slice's own edge lies around it.
        assert shown[row - 1, column + 4] == pytest.approx(wanted[0, 4], abs=8)


def test_a_long_volume_takes_several_rows():
    sheet = pictures.sheet(np.random.default_rng(0).random((120, 40, 60)), 10**6)
    assert sheet.width_px <= 4096
    assert sheet.columns * 2 >= 120 > sheet.columns
    assert sheet.corner_px(sheet.columns)[0] == sheet.cell_px[0] + 1


def test_a_noisy_picture_gives_quality_for_size():
    noise = np.random.default_rng(0).random((4, 120, 80))
    large, small = pictures.sheet(noise, 10**6), pictures.sheet(noise, 20_000)
    assert len(small.jpeg) <= 20_000 < len(large.jpeg)
    assert pictures.sheet(noise, 10).jpeg == pictures.sheet(noise, 100).jpeg  # the lowest quality there is
    flat = pictures.sheet(np.ones((4, 120, 80)), 10**6)
    assert np.ptp(np.asarray(Image.open(io.BytesIO(flat.jpeg)))) == 0


def test_a_case_of_the_challenges_size_keeps_sixteen_below_8_mb():
    rng = np.random.default_rng(0)
    shape, spacing_mm = (36, 256, 256), (2.0, 1.25, 1.25)
    reference = np.zeros(shape, np.uint8)
    for k in range(7):  # discs as wide, deep and high as in the lumbar spine, 34 mm apart
        reference[7:29, 22 + 27 * k : 30 + 27 * k, 90 + 2 * k : 120 + 2 * k] = 1
    # Edges as ragged as no network makes them, and an image of hardly more than Rician noise.
    prediction = reference ^ ((rng.random(shape) < 0.2) & (np.roll(reference, 1, 1) != np.roll(reference, -1, 1)))
    signal = 1.0 + reference
    image = np.hypot(signal + 0.5 * rng.normal(size=shape), 0.5 * rng.normal(size=shape))
    noisy = ReportCase("01", image, spacing_mm, np.eye(4), reference, prediction)
    html = viewer(noisy, "case1", "", cases=16)
    # What else is in a page of sixteen such cases has 0.2 MB.
    assert 100_000 < len(html.encode()) < (8e6 - 0.2e6) / 16
    # Of more cases each has less.
    assert len(viewer(noisy, "case1", "", cases=24)) < 0.8 * len(html)


def case(prediction, name="01", spacing_mm=SPACING_MM, image=None):
    reference = spine()
    return ReportCase(name, ramp() if image is None else image, spacing_mm, AFFINE, reference, prediction)


def test_a_slice_has_the_proportions_of_the_patient():
    page = Page(viewer(case(spine(), spacing_mm=(2.0, 1.5, 0.5)), "a", ""))
    *_, width, height = (float(n) for n in page.all("svg", "slice")[0]["viewbox"].split())
    # The discs lie in rows 18 to 80 and in columns 16 to 40; 25 mm around them are 17 rows, and more columns than there
    # are.
    assert (height, width) == ((96 - (18 - 17)) * 1.5, 64 * 0.5)
    (picture,) = page.all("image")
    assert picture["preserveaspectratio"] == "none"
    (sheet,) = re.findall(r"--ratio:([\d.]+)", page.all("article")[0]["style"])
    assert float(sheet) == pytest.approx(width / height, abs=1e-4)


def test_the_slices_are_told_what_is_missed_and_what_is_too_much():
    prediction = spine(height=8)  # two rows of 24 voxels more on each of three discs
    prediction[2] = 0
    prediction[9, 4:14, 4:14] = 1
    page = Page(viewer(case(prediction), "a", "<h3>heading</h3>"))
    told = re.findall(r"Slice \d+ of 10[^S]*", page.text)[: 1 + 10]
    large, titles = told[0], told[1:]
    voxel_mm2 = 1.25**2
    # The discs reach from slice 2 to 7, so that their middle is between 4 and 5.
    assert "mid-sagittal" in large
    middle = int(re.search(r"Slice (\d+)", large)[1])
    assert middle in (5, 6)
    one_disc = 6 * 24
    assert f"Dice 0.000, {3 * one_disc * voxel_mm2:.0f} mm\u00b2 missed, 0 mm\u00b2 too much" in titles[2]
    assert f"0 mm\u00b2 missed, {3 * 48 * voxel_mm2:.0f} mm\u00b2 too much" in titles[3]
    assert f"{2.0 * (10 - middle):.1f} mm right" in titles[9]
    assert f"{2.0 * (middle - 1):.1f} mm left; no disc" in titles[0]
    # In the strip are the slices with a mask in them.
    assert [int(thumb["data-slice"]) for thumb in page.all("svg", "thumb")] == [3, 4, 5, 6, 7, 8, 10]
    assert page.all("input")[0]["value"] == str(middle)
    bars = {kind: page.all("rect", kind) for kind in ("missed", "extra")}
    assert (len(bars["missed"]), len(bars["extra"])) == (1, 6)
    tallest = max(float(bar["height"]) for kind in bars.values() for bar in kind)
    assert tallest == 1
    assert "heading" in page.text


def test_small_errors_do_not_fill_the_bars():
    prediction = spine()
    prediction[4, 74, 16:20] = 0
    page = Page(viewer(case(prediction), "a", ""))
    (bar,) = page.all("rect", "missed")
    assert float(bar["height"]) == pytest.approx(4 * 1.25**2 / 60, abs=1e-3)


def test_names_stand_beside_the_discs_and_missed_ones_say_so():
    page = Page(viewer(case(spine([0, 1])), "a", "", missed={3}))
    names = [(text["class"], float(text["x"]), float(text["y"])) for text in page.all("text")]
    assert len(names) == 6 * 3
    assert [kind for kind, *_ in names[:3]] == ["level", "level", "level lost"]
    assert page.text.count("L3/L4") == 6
    heights = [y for _, _, y in names[:3]]
    assert heights == pytest.approx([heights[0], heights[0] - 28 * 1.25, heights[0] - 56 * 1.25], abs=0.2)


def test_labels_of_a_reference_are_counted_from_the_lowest():
    reference = spine([0]) * 205 + spine([1]) * 204 + spine([2]) * 203
    labelled = ReportCase("01", ramp(), SPACING_MM, AFFINE, reference, spine())
    page = Page(viewer(labelled, "a", ""))
    assert [page.text.count(level) for level in ("L5/S1", "L4/L5", "L3/L4", "L2/L3")] == [6, 6, 6, 0]


def test_several_predictions_have_a_bar_and_an_outline_each():
    shifted = np.roll(spine(), 2, axis=1)
    page = Page(
        viewer(
            case(spine()), "a", "", predictions=[Prediction("run0", HOSTILE, spine()), Prediction("run1", "b", shifted)]
        )
    )
    assert page.open == []
    assert "script" not in page.tags
    assert len(page.all("path", "run0")) == len(page.all("path", "run1")) == len(page.all("path", "reference")) == 6
    assert (len(page.all("rect", "run0")), len(page.all("rect", "run1"))) == (0, 6)
    assert "b: Dice 0.667" in page.text
    assert f"{HOSTILE}: Dice 1.000" in page.text


def test_masks_of_another_size_than_the_image_are_refused():
    with pytest.raises(ValueError, match="shapes"):
        viewer(case(spine()[:, :, :-1]), "a", "")


def test_the_mid_sagittal_slice_is_where_the_discs_are():
    mask = np.zeros((20, 4, 4), np.uint8)
    assert pictures.mid_sagittal(mask) == 10
    mask[3:6, 1:3, 1:3] = 1
    assert pictures.mid_sagittal(mask) == 4
