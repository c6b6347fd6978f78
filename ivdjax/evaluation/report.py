"""One page about a run, `report.html`: what came out, disc by disc and slice by slice, and what was run."""

import html
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ivdjax.errors import DataError
from ivdjax.evaluation import agreement, charts, origins, page, record, reliability, reliability_page, viewer
from ivdjax.evaluation.challenge import DiscScore
from ivdjax.evaluation.charts import Box, Dot
from ivdjax.evaluation.curves import Line, line_chart
from ivdjax.evaluation.evaluate import DISC_METRICS
from ivdjax.evaluation.page import METRICS, mm, share
from ivdjax.evaluation.record import Record, ReportCase

__all__ = ["ReportCase", "write_report"]


def write_report(
    run_dir: Path,
    cases: Sequence[ReportCase],
    *,
    caption: str = "",
    data: Mapping[str, Any] | None = None,
) -> Path:
    """Write `report.html` into a run's folder from its `config.json`, `scores.csv`, `scores.json` and `log.jsonl`.

    A run without a data root was made on the digital phantom, and the page says so first. Without a log the page has
    no training curves, without cases neither slices nor measures.

    Args:
      run_dir: the run's folder.
      cases: the cases to show; may be empty.
      caption: a sentence below the title, e.g. whose scans these are and how they were split.
      data: what else to tell of the scans, by name, e.g. how many were learned from.

    Returns:
      The path of the page.

    Raises:
      DataError: a file of the run is missing or damaged, or the page cannot be written.
    """
    run = record.read(run_dir)
    try:
        main = [
            _notices(run),
            f'<section class="tiles">{_tiles(run.scores)}</section><p class="note">{_interval(run.scores)}</p>',
            page.section("Cases", _case_table(run), "The worst first."),
            _discs(run),
            _viewers(run, cases),
            _levels(run),
            reliability_page.taken_out(run.scores, run.raw_scores, _rules(run)),
            reliability_page.section(reliability.read(run.folder)),
            _measures(run, cases),
            _training(run),
            _settings(run, data or {}),
            page.section("How it was measured", page.card("conventions", run.scores["conventions"])),
        ]
    except record.MALFORMED as error:
        raise DataError(
            f"{run_dir}: its scores, settings or log are not what this version of ivdjax writes "
            f"({type(error).__name__}: {error}); evaluate the run again"
        ) from error
    path = run.folder / "report.html"
    page.write(path, title=run.title, caption=caption, main=main, source=run.folder.resolve().name)
    return path


def _rules(run: Record) -> Mapping[str, Any]:
    return run.config.get("predict", {}).get("postprocess", {})


def _notices(run: Record) -> str:
    notices = [page.PHANTOM_NOTICE] if run.on_phantom else []
    if run.scores["warnings"]:
        lines = "".join(f"<li>{html.escape(line)}</li>" for line in run.scores["warnings"])
        notices.append(f"<b>To know before reading on</b><ul>{lines}</ul>")
    if elsewhere := origins.resumed_elsewhere(run):
        notices.append(elsewhere)
    return "".join(page.notice(notice) for notice in notices)


def _tiles(scores: Mapping[str, Any]) -> str:
    def estimate(key: str, name: str, form: Callable[[float], str], unit: str = "") -> str:
        value = scores[key]
        sure = "" if value["low"] is None else f"{form(value['low'])} to {form(value['high'])}"
        return page.tile(name, form(value["mean"]) + unit, sure)

    found, discs, false = (int(scores[key]) for key in ("discs_found", "discs", "false_discs"))
    return "".join(
        [
            estimate("dice", "Dice, mean over discs", share),
            estimate("asd_mm", "Surface distance (ASD)", mm, " <small>mm</small>"),
            estimate("center_mm", "Distance of the centres", mm, " <small>mm</small>"),
            page.tile("Discs found", f"{found} <small>of {discs}</small>", f"{discs - found} not found, {false} false"),
            estimate("volume_dice", "Volume Dice", share),
        ]
    )


def _interval(scores: Mapping[str, Any]) -> str:
    interval, cases = scores["interval"], len(scores["cases"])
    means = f"Means over {cases} case{'s' if cases != 1 else ''}, of each case's mean over its discs."
    if scores["dice"]["low"] is None:
        return f"{means} One {html.escape(interval['resampled'][:-1])} alone cannot tell how sure they are."
    return (
        f"{means} Below each, its {interval['level']:.0%} interval: {html.escape(interval['method'])} of "
        f"{html.escape(interval['resampled'])}."
    )


def _case_table(run: Record) -> str:
    scores, ranked = run.scores, run.worst_first
    subjects = "subject" in ranked[0]
    names = ["Case", *(["Subject"] if subjects else []), *(metric.name for metric in METRICS), "Found", "False"]
    body = []
    for case in ranked:
        cells = [f"<td>{html.escape(str(case['subject']))}</td>"] if subjects else []
        for metric in METRICS:
            value = case[metric.key]
            heat = f" {page.heat(value)}" if metric.key in ("dice", "volume_dice") else ""
            cells.append(f"<td{heat}>{metric.form(value)}</td>")
        cells.append(f"<td>{int(case['discs_found'])} of {int(case['discs'])}</td><td>{int(case['false_discs'])}</td>")
        body.append(f"<tr><th>{html.escape(str(case['case']))}</th>{''.join(cells)}</tr>")
    means = ""
    for metric in METRICS:
        mean, std = scores[metric.key]["mean"], scores[metric.key]["std"]
        spread = "" if std is None else f' <span class="soft">&plusmn; {metric.form(std)}</span>'
        means += f"<td>{metric.form(mean)}{spread}</td>"
    total = f"<td>{int(scores['discs_found'])} of {int(scores['discs'])}</td><td>{int(scores['false_discs'])}</td>"
    foot = f'<tr class="mean"><th>Mean &plusmn; SD</th>{"<td></td>" if subjects else ""}{means}{total}</tr>'
    return page.table(names, [*body, foot])


def _discs(run: Record) -> str:
    by_place = {(disc.case, disc.disc): disc for disc in run.discs}
    numbers = sorted({disc.disc for disc in run.discs})
    body = []
    for case in run.worst_first:
        cells = [_disc_cell(by_place.get((str(case["case"]), number))) for number in numbers]
        body.append(f"<tr><th>{html.escape(str(case['case']))}</th>{''.join(cells)}</tr>")
    means = []
    for number in numbers:
        mean = float(np.mean([disc.dice for disc in run.discs if disc.disc == number]))
        means.append(f"<td {page.heat(mean)}>{share(mean)}</td>")
    body.append(f'<tr class="mean"><th>Mean Dice</th>{"".join(means)}</tr>')
    return page.section(
        "Disc by disc",
        page.table(["Case", *(page.level(number) for number in numbers)], body, "discs"),
        "Dice, and below it the average surface distance and the distance of the centres in mm. Discs are counted "
        "from the lowest, which is taken for L5/S1. A missed disc scores the penalty, the diagonal of the volume, as "
        "both distances.",
    )


def _disc_cell(disc: DiscScore | None) -> str:
    if disc is None:
        return "<td></td>"
    distances = f"<small>{mm(disc.asd_mm)} &middot; {mm(disc.center_mm)}</small>"
    if not disc.found:
        return f'<td class="heat missed">not found{distances}</td>'
    return f"<td {page.heat(disc.dice)}>{share(disc.dice)}{distances}</td>"


def _viewers(run: Record, cases: Sequence[ReportCase]) -> str:
    by_name = {case.name: case for case in cases}
    shown = []
    for place, score in enumerate(run.worst_first, start=1):
        if (case := by_name.get(str(score["case"]))) is None:
            continue
        discs = [disc for disc in run.discs if disc.case == case.name]
        false = int(score["false_discs"])
        told = (
            f"Dice {share(score['dice'])}, ASD {mm(score['asd_mm'])} mm, {int(score['discs_found'])} of "
            f"{int(score['discs'])} found" + (f", {false} false" if false else "")
        )
        chips = "".join(
            f'<li class="heat missed"><b>{page.level(d.disc)}</b>missed</li>'
            if not d.found
            else f"<li {page.heat(d.dice)}><b>{page.level(d.disc)}</b>{share(d.dice)}</li>"
            for d in discs
        )
        heading = f'<header><h3>{html.escape(case.name)}</h3><span>{told}</span></header><ul class="chips">{chips}</ul>'
        missed = {disc.disc for disc in discs if not disc.found}
        shown.append(viewer.viewer(case, f"case{place}", heading, missed=missed, cases=len(cases)))
    tools = viewer.tools([("reference", "reference"), ("prediction", "prediction")])
    return page.section("Slices", tools + "".join(shown) if shown else "", viewer.NOTE)


def _levels(run: Record) -> str:
    discs, interval = run.discs, run.scores["interval"]
    numbers = sorted({disc.disc for disc in discs})

    def boxes(field: str, name: str, form: Callable[[float], str], unit: str) -> list[Box]:
        return [
            Box(
                page.level(number),
                [
                    Dot(getattr(d, field), f"{d.case}, {page.level(number)}: {name} {form(getattr(d, field))}{unit}")
                    if d.found
                    else Dot(None, f"{d.case}, {page.level(number)}: missed")
                    for d in discs
                    if d.disc == number
                ],
            )
            for number in numbers
        ]

    drawn = charts.box_plot("Dice", boxes("dice", "Dice", share, ""), missed_low=True)
    drawn += charts.box_plot(
        "Average surface distance, mm", boxes("asd_mm", "ASD", mm, " mm"), missed_low=False, skewed=True
    )
    note = (
        f"Means over all discs of a level, missed ones with the penalty, and their {interval['level']:.0%} intervals "
        f"({html.escape(interval['resampled'])} resampled)."
    )
    if drawn:
        drawn = f'<div class="charts wide">{drawn}</div>'
        note += (
            f" In the charts a point is a disc that was found. From {charts.LEAST_BOXED} discs up, boxes show median "
            f"and quartiles, and whiskers reach to the last disc within {charts.WHISKER:g} interquartile ranges. "
            "Missed discs are marks in a band of their own, and no part of the boxes."
        )
    return page.section("Level by level", _level_table(run.scores) + drawn, note)


def _level_table(scores: Mapping[str, Any]) -> str:
    """The discs of each level, pooled over the cases."""
    metrics = [metric for metric in METRICS if metric.key in DISC_METRICS]
    body = []
    for level in scores["per_disc"]:
        cells = f"<td>{int(level['discs_found'])} of {int(level['discs'])}</td>"
        for metric in metrics:
            value = level[metric.key]
            sure = (
                ""
                if value["low"] is None
                else f"<small>{metric.form(value['low'])} to {metric.form(value['high'])}</small>"
            )
            heat = f" {page.heat(value['mean'])}" if metric.key == "dice" else ""
            cells += f"<td{heat}>{metric.form(value['mean'])}{sure}</td>"
        body.append(f"<tr><th>{page.level(int(level['disc']))}</th>{cells}</tr>")
    return page.table(["Level", "Found", *(metric.name for metric in metrics)], body, "discs")


def _measures(run: Record, cases: Sequence[ReportCase]) -> str:
    order = [str(case["case"]) for case in run.worst_first]
    shown = sorted((case for case in cases if case.name in order), key=lambda case: order.index(case.name))
    measured = [disc for case in shown for disc in agreement.measure_case(case)]
    if not measured:
        return ""
    found = {(disc.case, disc.disc): disc.found for disc in run.discs}
    subjects = {str(case["case"]): str(case.get("subject", case["case"])) for case in run.scores["cases"]}
    plots = agreement.plots(measured, found, subjects)
    return page.section(
        "Measures",
        (f'<div class="charts wide">{plots}</div>' if plots else "")
        + agreement.pictures(measured, shown)
        + f"<details><summary>All measures, prediction above reference</summary>{agreement.measures_table(measured)}"
        "</details>",
        agreement.note(measured),
    )


def _training(run: Record) -> str:
    def line(name: str, kind: str, key: str) -> Line:
        rows = [row for row in run.log if row.get("kind") == kind and key in row]
        return Line(name, [row["step"] for row in rows], [row[key] for row in rows])

    drawn = "".join(
        [
            line_chart(
                "Loss",
                [
                    line("training", "train", "loss"),
                    line("held-out cases", "validation", "loss"),
                    line("Dice part", "train", "dice_loss"),
                    line("cross-entropy part", "train", "cross_entropy"),
                ],
                "step",
            ),
            line_chart("Volume Dice of the held-out cases", [line("Dice", "validation", "dice")], "step"),
            line_chart("Learning rate", [line("learning rate", "train", "learning_rate")], "step"),
        ]
    )
    if not drawn:
        return ""
    speeds = [row["stacks_per_s"] for row in run.log if row.get("stacks_per_s")]
    told = f"{run.log[-1]['step']:,} steps in {page.duration(run.training_s or 0)}"
    told += f", {np.median(speeds):.1f} stacks a second (median)" if speeds else ""
    return page.section("Training", f'<div class="charts">{drawn}</div>', f"{told}.")


def _settings(run: Record, data: Mapping[str, Any]) -> str:
    config = run.config
    told = {**page.facts(run), **data}
    plain = {key: value for key, value in config.items() if not isinstance(value, dict)}
    groups = {key: page.flat(value) for key, value in config.items() if isinstance(value, dict)}
    if not run.on_phantom and "data" in groups:
        groups["data"] = {key: value for key, value in groups["data"].items() if not key.startswith("phantom.")}
    cards = [
        page.card("this run", told),
        *(page.card(name, values) for name, values in {"experiment": plain, **groups}.items() if values),
        *origins.cards(run),
    ]
    return page.section("What was run", f'<div class="groups">{"".join(cards)}</div>')
