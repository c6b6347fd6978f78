"""Two or more runs side by side on the cases that all of them have: what differs, and how sure that is."""

import html
from collections.abc import Sequence
from pathlib import Path

from ivdjax.errors import DataError
from ivdjax.evaluation import compare_tables, match, origins, page, record, viewer
from ivdjax.evaluation.curves import Line, line_chart
from ivdjax.evaluation.match import Matched
from ivdjax.evaluation.page import METRICS
from ivdjax.evaluation.viewer import Prediction

# Outlines of more runs than this take their colours from the beginning.
_COLORS = 6


def write_comparison(run_dirs: Sequence[Path], out: Path) -> Path:
    """Write one page about two or more runs.

    Compared are the cases that all runs were scored on, by the same references. Their slices are shown with the
    outlines of all runs if the scans still are where the first run's settings say; else the page tells what is amiss.

    Args:
      run_dirs: folders of finished runs; a difference is that of a later one to an earlier one.
      out: file to make or replace.

    Returns:
      `out`.

    Raises:
      UsageError: fewer than two runs, or one twice.
      DataError: a file of a run is missing or damaged, the runs have no case in common or were scored on different
        references, or the page cannot be written.
    """
    matched = match.match(run_dirs)
    try:
        shown, trouble = _viewers(matched)
        main = [
            _notices(matched, trouble),
            compare_tables.runs_section(matched),
            compare_tables.tests_section(matched),
            compare_tables.cases_section(matched),
            compare_tables.levels_section(matched),
            shown,
            _settings(matched),
            _training(matched),
            _facts(matched),
        ]
    except record.MALFORMED as error:
        raise DataError(
            f"{', '.join(map(str, run_dirs))}: scores, settings or log of one are not what this version of ivdjax "
            f"writes ({type(error).__name__}: {error}); evaluate the runs again"
        ) from error
    title = f"{', '.join(matched.names[:-1])} and {matched.names[-1]}"
    cases = len(matched.cases)
    caption = f"{len(matched.runs)} runs on the same {cases} case{'s' if cases > 1 else ''}."
    page.write(Path(out), title=title, caption=caption, main=main, source=", ".join(matched.names))
    return Path(out)


def _notices(matched: Matched, trouble: str) -> str:
    notices = [page.PHANTOM_NOTICE] if any(run.on_phantom for run in matched.runs) else []
    if matched.left_out:
        cases = ", ".join(map(html.escape, matched.left_out))
        notices.append(f"<b>Left out,</b> since not all runs were scored on them: {cases}.")
    if differing := origins.other_data(matched):
        notices.append(differing)
    if trouble:
        notices.append(f"<b>Without slices:</b> {html.escape(trouble)}")
    return "".join(page.notice(notice) for notice in notices)


def _viewers(matched: Matched) -> tuple[str, str]:
    """The common cases with the outlines of all runs, the worst first; or what keeps them from being shown."""
    try:
        cases = {case.name: case for case in record.load_cases(matched.runs[0], matched.cases)}
        masks = {
            case: [cases[case].prediction_ZxHxW, *(record.read_prediction(run, case) for run in matched.runs[1:])]
            for case in matched.cases
        }
    except DataError as error:
        return "", str(error)
    kinds = [f"run{i % _COLORS}" for i in range(len(matched.runs))]
    dice = [matched.values(i, METRICS[0]) for i in range(len(matched.runs))]
    shown = []
    for place, k in enumerate(matched.worst_first, start=1):
        case = cases[matched.cases[k]]
        told = ", ".join(f"{html.escape(n)} {page.share(run[k])}" for n, run in zip(matched.names, dice, strict=True))
        predictions = [Prediction(*p) for p in zip(kinds, matched.names, masks[case.name], strict=True)]
        heading = f"<header><h3>{html.escape(case.name)}</h3><span>Dice: {told}</span></header>"
        shown.append(viewer.viewer(case, f"case{place}", heading, predictions=predictions, cases=len(cases)))
    outlines = [("reference", "reference"), *zip(kinds, matched.names, strict=True)]
    return page.section("Slices", viewer.tools(outlines) + "".join(shown), viewer.NOTE), ""


def _settings(matched: Matched) -> str:
    settings = [page.flat(run.config) for run in matched.runs]
    if not any(run.on_phantom for run in matched.runs):
        settings = [{k: v for k, v in told.items() if not k.startswith("data.phantom.")} for told in settings]
    rows = []
    for key in dict.fromkeys(key for run in settings for key in run):
        values = [page.plain(run[key]) if key in run else "\u2013" for run in settings]
        if len(set(values)) > 1:
            cells = "".join(f'<td class="words">{html.escape(value)}</td>' for value in values)
            rows.append(f"<tr><th>{html.escape(key)}</th>{cells}</tr>")
    if not rows:
        return page.section("Settings", "<p>All runs have the same settings.</p>")
    names = ["Setting", *map(page.folded, matched.names)]
    return page.section("Settings", page.table(names, rows, "settings"), "Those that differ; all others are the same.")


def _training(matched: Matched) -> str:
    def lines(kind: str, key: str) -> list[Line]:
        drawn = []
        for name, run in zip(matched.names, matched.runs, strict=True):
            rows = [row for row in run.log if row.get("kind") == kind and key in row]
            drawn.append(Line(name, [row["step"] for row in rows], [row[key] for row in rows]))
        return drawn

    drawn = "".join(
        [
            line_chart("Training loss", lines("train", "loss"), "step"),
            line_chart("Loss of the held-out cases", lines("validation", "loss"), "step"),
            line_chart("Volume Dice of the held-out cases", lines("validation", "dice"), "step"),
        ]
    )
    return page.section("Training", f'<div class="charts">{drawn}</div>' if drawn else "")


def _facts(matched: Matched) -> str:
    cards = [page.card(name, page.facts(run)) for name, run in zip(matched.names, matched.runs, strict=True)]
    return page.section("What was run", f'<div class="groups">{"".join(cards)}</div>')
