"""The pages in a real browser, opened from disk: they work, and neither ask for anything nor complain of anything."""

import base64
import io
import tempfile
import time

import numpy as np
import pytest
from PIL import Image

from ivdjax.evaluation.compare import write_comparison
from ivdjax.evaluation.report import write_report
from tests.evaluation import chromium
from tests.evaluation.pages import SHAPE, make_run, spine, write_scans

REFERENCE, PREDICTION, SECOND = (0x2F, 0xB4, 0xFF), (0xFF, 0xB0, 0x20), (0xFF, 0x5F, 0xA8)
# Away from the reference, so that each outline is seen.
SHIFTED, LOW = np.roll(spine(), 12, axis=1), np.roll(spine([0, 1]), -10, axis=1)


@pytest.fixture(scope="module")
def browser():
    program = chromium.find()
    if program is None:
        pytest.skip(f"no browser to open pages in: none of {', '.join(chromium.PROGRAMS)} is installed")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        opened = chromium.Browser(program, profile)
        yield opened
        opened.close()
        time.sleep(0.2)  # its children still write to the profile


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report") / "run"
    cases = make_run(folder, {"01": SHIFTED, "02": spine([1, 2])})
    return write_report(folder, cases, caption="Two toy cases.")


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    folder = tmp_path_factory.mktemp("comparison")
    scans = str(folder / "scans")
    first = make_run(folder / "a", {"01": SHIFTED, "02": spine()}, root=scans)
    second = make_run(folder / "b", {"01": LOW, "02": spine()}, root=scans, seed=1)
    write_scans(folder / "scans", [folder / "a"], first)
    write_scans(folder / "unused", [folder / "b"], second)
    return write_comparison([folder / "a", folder / "b"], folder / "comparison.html")


@pytest.fixture(params=["report", "comparison"])
def page(request):
    return request.getfixturevalue(request.param)


def screenshot(browser, selector=".slice", index=0):
    """What the browser shows of an element, (H,W,3)."""
    find = f"document.querySelectorAll('{selector}')[{index}]"
    browser.evaluate(f"{find}.scrollIntoView({{block: 'center'}})")
    box = browser.evaluate(f"(r => [r.x + scrollX, r.y + scrollY, r.width, r.height])({find}.getBoundingClientRect())")
    clip = dict(zip(("x", "y", "width", "height"), box, strict=True), scale=1)
    png = browser.send("Page.captureScreenshot", format="png", clip=clip)["data"]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")).astype(int)


def drawn(pixels, color):
    """How many pixels have nearly a colour."""
    return int((np.abs(pixels - color).max(axis=-1) < 40).sum())


def grey(pixels):
    """The middle grey of what is shown, 0 to 1; outlines and names cover less than half of it."""
    return float(np.median(pixels) / 255)


def press(browser, key, code):
    for kind in ("keyDown", "keyUp"):
        browser.send("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)


def click(browser, selector, index=0):
    find = f"document.querySelectorAll('{selector}')[{index}]"
    browser.evaluate(f"{find}.scrollIntoView({{block: 'center'}})")
    x, y = browser.evaluate(f"(r => [r.x + r.width / 2, r.y + r.height / 2])({find}.getBoundingClientRect())")
    for kind in ("mousePressed", "mouseReleased"):
        browser.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)


def told(browser):
    return browser.evaluate("document.querySelector('.where').textContent")


def test_a_page_is_quiet(browser, page):
    browser.open(page)
    assert browser.troubles == []
    assert browser.evaluate("document.querySelectorAll('.viewer .scrubber:not([hidden])').length") == 2


def test_a_page_fits_a_telephone(browser, page):
    browser.open(page, width=420)
    assert browser.evaluate("document.documentElement.scrollWidth") == 420
    assert browser.troubles == []


def test_the_slider_shows_the_right_slice(browser, page):
    browser.open(page)
    middle = browser.evaluate("document.querySelector('.viewer input').valueAsNumber")
    assert told(browser).startswith(f"Slice {middle} of {SHAPE[0]}, mid-sagittal")
    # The toy image's grey says which slice it is.
    levels = np.linspace(0, 1, SHAPE[0])
    assert grey(screenshot(browser)) == pytest.approx(levels[middle - 1], abs=0.04)
    for z in (1, 4, SHAPE[0]):
        browser.evaluate(
            f"(s => {{ s.value = {z}; s.dispatchEvent(new Event('input')); }})(document.querySelector('.viewer input'))"
        )
        assert told(browser).startswith(f"Slice {z} of {SHAPE[0]}, {abs(z - middle) * 2:.1f} mm")
        pixels = screenshot(browser)
        assert grey(pixels) == pytest.approx(levels[z - 1], abs=0.04)
        # Discs, and so outlines, are in slices 3 to 8.
        assert (drawn(pixels, REFERENCE) > 100) == (3 <= z <= 8)
        assert browser.evaluate("document.querySelector('.bars.shown').dataset.slice") == str(z)
    # The other case has not moved.
    assert browser.evaluate("document.querySelectorAll('.viewer input')[1].valueAsNumber") == middle
    assert browser.troubles == []


def test_keys_and_clicks_choose_slices(browser, page):
    browser.open(page)
    middle = browser.evaluate("document.querySelector('.viewer input').valueAsNumber")
    click(browser, ".slice")
    press(browser, "ArrowRight", 39)
    assert told(browser).startswith(f"Slice {middle + 1} of")
    press(browser, "Home", 36)
    assert told(browser).startswith("Slice 1 of")
    click(browser, ".thumb", 2)
    assert told(browser).startswith("Slice 5 of")
    assert browser.evaluate("document.querySelectorAll('.thumb')[2].classList.contains('shown')")
    press(browser, "ArrowLeft", 37)
    assert told(browser).startswith("Slice 4 of")
    click(browser, ".bars .reach", 6)
    assert told(browser).startswith("Slice 7 of")
    assert browser.evaluate("document.querySelector('.viewer input').value") == "7"
    assert browser.troubles == []


def test_the_boxes_switch_outlines(browser, page):
    browser.open(page)
    second = {"run0": PREDICTION, "run1": SECOND} if "comparison" in page.name else {"prediction": PREDICTION}
    everything = {"reference": REFERENCE, **second}
    for selector, index in ((".slice", 0), (".thumb", 2)):
        for kind, color in everything.items():
            click(browser, f"#{kind}")
            pixels = screenshot(browser, selector, index)
            assert drawn(pixels, color) == 0
            assert all(drawn(pixels, its) > 20 for other, its in everything.items() if other != kind)
            click(browser, f"#{kind}")
            assert drawn(screenshot(browser, selector, index), color) > 20
    assert browser.troubles == []


def test_the_names_of_the_levels_can_be_switched(browser, report):
    browser.open(report)
    shown = drawn(screenshot(browser, index=1), (255, 255, 255))
    click(browser, "#levels")
    hidden = drawn(screenshot(browser, index=1), (255, 255, 255))
    assert hidden < 60 < 200 < shown  # the page shines through at the round corners


def test_without_scripts_the_strips_and_the_middle_are_there(browser, page):
    browser.send("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(page)
        assert browser.evaluate("document.querySelectorAll('.scrubber[hidden]').length") == 2
        for selector in (".slice", ".thumb"):
            pixels = screenshot(browser, selector)
            assert drawn(pixels, REFERENCE) > 20
            assert 0.1 < grey(pixels) < 0.9
    finally:
        browser.send("Emulation.setScriptExecutionDisabled", value=False)


def test_dark_and_light_follow_the_reader(browser, page):
    browser.open(page)
    shades = {}
    for scheme in ("light", "dark"):
        browser.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        shades[scheme] = screenshot(browser, "h1").max(axis=(0, 1)).mean(), screenshot(browser, "h1")[0, 0].mean()
    browser.send("Emulation.setEmulatedMedia", features=[])
    assert shades["light"][1] > 200
    assert shades["dark"][1] < 60


def test_the_policy_stops_any_other_script_and_address(browser, page, tmp_path):
    """And so the tests above would see it if the page had one."""
    body = page.read_text("utf-8")
    alien = '<script>document.title = "changed"</script><img src="http://127.0.0.1:9/x.png">'
    (tmp_path / "changed.html").write_text(body.replace("<h1>", f"{alien}<h1>", 1), "utf-8")
    browser.open(tmp_path / "changed.html")
    told = str(browser.troubles)
    assert "script-src" in told
    assert "img-src" in told
    assert browser.evaluate("document.title") != "changed"
