"""Pages and tables with hostile names, through the real writers and in a real browser."""

import csv
import re
import tempfile
import time
from dataclasses import replace

import numpy as np
import pytest

from ivdjax.ablation import figure, results, table
from ivdjax.ablation.plan import plan
from ivdjax.config import Data, Experiment
from ivdjax.evaluation import calibration, compare, evaluate, record, reliability, report
from ivdjax.files import write_json
from ivdjax.models import UNet
from tests.ablation.test_results import leave_run
from tests.evaluation import chromium
from tests.evaluation.pages import Page, make_run, spine, write_scans

# As a file may be called.
NAMES = (
    "<script>alert(1)<script>",
    '"><img src=x onerror=alert(1)>',
    "'-->]]><svg onload=alert(1)>",
    "$title ${script} {0} %s &lt;b&gt; `x` | $\\frac$",
)
END = "</script><script>alert(1)</script></style><img src=x onerror=alert(1)>"  # where a slash may be


def made_with(word, data):
    """A provenance that says `word` wherever it can: of a run that went on elsewhere, on data of its own."""
    start = {"seeds": [0], "time": word, "code_sha256": word}
    machines = ({word: word}, {word: word, "other": word})
    starts = [
        {"step": step, **start, "versions": {word: word}, "machine": machine} for step, machine in enumerate(machines)
    ]
    return {"data": {"sha256": data, "cases": {word: word}}, "starts": starts}


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The page of a run whose every name is hostile, one that compares two such, and how both are with plain names."""
    made = {}
    for kind, names, end in (("plain", ("01", "02", "03", "04"), "plain"), ("hostile", NAMES, END)):
        home = tmp_path_factory.mktemp(kind)
        folders = []
        for run in (names[0], names[1]):
            folder = home / run
            masks = {name: spine() if i else spine((0, 2)) for i, name in enumerate(names)}
            subjects = dict(zip(names, (end, end, names[0], names[1]), strict=True))
            root = home / names[3]
            cases = make_run(
                folder, masks, name=end, root=str(root), subjects=subjects, model={"network": end, end: end}
            )
            write_scans(root, [folder], cases) if not folders else write_scans(home / "unused", [folder], cases)
            counts = calibration.CaseCounts(calibration.bin_voxels(np.array([0.1, 0.9]), np.array([0, 1])), (), ())
            summary = {
                "calibration": calibration.to_json(counts.bins, None),
                "ranking": None,
                "conventions": {end: end},
            }
            write_json(folder / reliability.SUMMARY, summary)
            discs = [reliability.PredictedDisc(name, 1, 0.9, 900.0, 1, 0.8) for name in names]
            (folder / reliability.TABLE).write_text(reliability._to_csv(discs), "utf-8")
            write_json(folder / record.PROVENANCE, made_with(end, run))
            folders.append(folder)
        path = report.write_report(folders[0], record.load_cases(record.read(folders[0])), caption=end, data={end: end})
        made[kind] = (path, compare.write_comparison(folders, home / "comparison.html"))
    return made


@pytest.mark.parametrize("which", [0, 1], ids=["report", "comparison"])
def test_hostile_names_make_no_element_and_no_attribute(pages, which):
    plain, hostile = (Page(pages[kind][which].read_text("utf-8")) for kind in ("plain", "hostile"))
    assert hostile.open == []
    assert sorted({tag for tag, _ in hostile.elements}) == sorted({tag for tag, _ in plain.elements})
    assert hostile.tags.count("script") == 1
    assert hostile.tags.count("img") == plain.tags.count("img")
    assert hostile.handlers == []
    # But for the rows of a table whose order follows the names, the same elements with the same attributes.
    assert sorted(str((t, sorted(a))) for t, a in hostile.elements) == sorted(
        str((t, sorted(a))) for t, a in plain.elements
    )
    for name in NAMES:
        assert name in hostile.text


def test_a_browser_shows_hostile_names_as_text(pages):
    program = chromium.find()
    if program is None:
        pytest.skip(f"no browser to open pages in: none of {', '.join(chromium.PROGRAMS)} is installed")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = chromium.Browser(program, profile)
        for path in pages["hostile"]:
            browser.open(path)
            assert browser.troubles == []
            assert not [event for event in browser.events if event["method"] == "Page.javascriptDialogOpening"]
            shown = browser.evaluate("document.body.innerText")
            assert all(name in shown for name in NAMES[:3])
            assert browser.evaluate("document.querySelectorAll('img[src=x], svg[onload]').length") == 0
        browser.close()
        time.sleep(0.2)  # its children still write to the profile


def test_a_table_of_scores_has_a_field_a_name(tmp_path):
    """Quotes, commas and line breaks stay within a cell; formulas do not get as far (`data.paths`)."""
    names = [*NAMES, 'a,"b"']
    make_run(tmp_path / "run", {name: spine() for name in names})
    with (tmp_path / "run" / "scores.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert {len(row) for row in rows} == {len(evaluate.COLUMNS)}
    assert {row[0] for row in rows[1:]} == set(names)


def test_an_ablation_of_hostile_names_is_one_table_and_one_picture(tmp_path):
    root = tmp_path / NAMES[3].replace("{0}", "<img src=x onerror=alert(1)>")
    base = Experiment("made", UNet(features=(4, 8)), run_dir=tmp_path / "runs", data=Data(root=root))

    def variants(base):
        named = replace(base, data=replace(base.data, subject_table=root / "a|b.csv"))
        return {"plain": base, "named": named}

    laid = plan("made", variants, base)
    for variant in laid.variants:
        leave_run(variant, np.linspace(0.7, 0.9, 7))
    found = results.collect(laid, laid.variants)
    text = table.write(found, tmp_path / "table.md")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 4
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {12}
    assert text.count("`") == 2  # of the one change there is
    assert "<" not in re.sub("`[^`]*`", "", text)
    figure.write(found, tmp_path / "figure.png")  # where a folder's name is no formula that may be wrong
    assert (tmp_path / "figure.png").stat().st_size > 0
