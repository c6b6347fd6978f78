"""One page about a run, `report.html`: what came out, disc by disc and in pictures, and what was run.

The page is a single file that asks for nothing else: style, charts and pictures are inside it, and its own policy
forbids anything from elsewhere. Its frame is the file `report.html` beside this module.
"""

import base64
import csv
import html
import os
import platform
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import numpy as np

from ivdjax.errors import DataError
from ivdjax.evaluation import pictures
from ivdjax.evaluation.curves import Line, line_chart
from ivdjax.evaluation.evaluate import COLUMNS
from ivdjax.evaluation.metrics import Spacing
from ivdjax.files import read_json, write_text
from ivdjax.training import logbook

PACKAGES = ("ivdjax", "jax", "flax", "optax", "numpy", "scipy", "nibabel", "surface-distance")
PHANTOM_NOTICE = (
    "<b>Figures on a digital phantom.</b> The scans were drawn by a program, not taken of people. They show that the "
    "code works from end to end; they say nothing of how well it does on patients."
)


@dataclass(frozen=True)
class ReportCase:
    """A held-out case to show in a picture."""

    name: str
    """Name of the case, as in the scores."""
    image_ZxHxW: np.ndarray
    """Background: one channel's intensities, of any scale."""
    spacing_mm: Spacing
    """Voxel size along Z, H, W."""
    reference_ZxHxW: np.ndarray
    """Reference mask on the image's grid."""
    prediction_ZxHxW: np.ndarray
    """Predicted mask on the image's grid."""


def _share(value: float) -> str:
    return f"{value:.3f}"


def _mm(value: float) -> str:
    return f"{value:.2f}"


# The figures of a case: their key in scores.json, their name here and how they are written.
_COLUMNS = (
    ("dice", "Dice", _share),
    ("asd_mm", "ASD, mm", _mm),
    ("center_mm", "Centre, mm", _mm),
    ("hd95_mm", "HD95, mm", _mm),
    ("nsd_1mm", "NSD at 1 mm", _share),
    ("volume_dice", "Volume Dice", _share),
)
# Dice at the two ends of the colour scale; one voxel all around costs a disc some 0.1.
_HEAT = (0.6, 0.95)


def write_report(
    run_dir: Path, cases: Sequence[ReportCase], *, caption: str = "", machine: Mapping[str, str] | None = None
) -> Path:
    """Write `report.html` into a run's folder from its `config.json`, `scores.csv`, `scores.json` and `log.jsonl`.

    A run without a data root was made on the digital phantom, and the page says so first. Without a log the page has
    no training curves.

    Args:
      run_dir: the run's folder.
      cases: the cases to show; may be empty.
      caption: a sentence below the title, e.g. whose scans these are and how they were split.
      machine: what else to tell of where it ran, by name, e.g. the accelerators.

    Returns:
      The path of the page.

    Raises:
      DataError: a file of the run is missing or damaged, or the page cannot be written.
    """
    run_dir = Path(run_dir)
    config, scores = read_json(run_dir / "config.json"), read_json(run_dir / "scores.json")
    rows, log = _read_scores(run_dir / "scores.csv"), logbook.read(run_dir / "log.jsonl")
    title = str(config.get("name") or run_dir.resolve().name)
    try:
        ranked = sorted(scores["cases"], key=lambda case: (case["dice"], case["case"]))
        page = string.Template(resources.files(__package__).joinpath("report.html").read_text("utf-8")).substitute(
            title=html.escape(title),
            caption=html.escape(caption),
            reference_color=pictures.REFERENCE_COLOR,
            prediction_color=pictures.PREDICTION_COLOR,
            notices=_notices(config, scores),
            tiles=_tiles(scores),
            interval=_interval(scores),
            case_table=_case_table(scores, ranked),
            disc_table=_disc_table(rows, [case["case"] for case in ranked]),
            pictures=_pictures(cases, ranked),
            training=_training(log),
            groups=_config_groups(config) + _group("versions", _versions()) + _group("machine", _machine(machine)),
            conventions=_group("conventions", scores["conventions"]),
            footer=f"Written by ivdjax {html.escape(metadata.version('ivdjax'))} from {html.escape(run_dir.name)}.",
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{run_dir}: its scores, settings or log are not what this version of ivdjax writes "
            f"({type(error).__name__}: {error}); evaluate the run again"
        ) from error
    try:
        write_text(run_dir / "report.html", page)
    except OSError as error:
        raise DataError(f"{run_dir / 'report.html'}: cannot be written: {error.strerror}") from error
    return run_dir / "report.html"


def _read_scores(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read ({error}); evaluate the run first") from error
    if tuple(reader.fieldnames or ()) != COLUMNS:
        raise DataError(f"{path}: its columns are not {','.join(COLUMNS)}; evaluate the run again")
    return rows


def _notices(config: Mapping[str, Any], scores: Mapping[str, Any]) -> str:
    notices = []
    if isinstance(config.get("data"), dict) and config["data"].get("root") is None:
        notices.append(PHANTOM_NOTICE)
    if scores["warnings"]:
        lines = "".join(f"<li>{html.escape(line)}</li>" for line in scores["warnings"])
        notices.append(f"<b>To know before reading on</b><ul>{lines}</ul>")
    return "".join(f'<div class="notice">{notice}</div>' for notice in notices)


def _tiles(scores: Mapping[str, Any]) -> str:
    def estimate(key: str, name: str, form: Callable[[float], str], unit: str = "") -> str:
        value = scores[key]
        sure = "" if value["low"] is None else f"{form(value['low'])} to {form(value['high'])}"
        return _tile(name, form(value["mean"]) + unit, sure)

    found, discs, false = (int(scores[key]) for key in ("discs_found", "discs", "false_discs"))
    return "".join(
        [
            estimate("dice", "Dice, mean over discs", _share),
            estimate("asd_mm", "Surface distance (ASD)", _mm, " <small>mm</small>"),
            estimate("center_mm", "Distance of the centres", _mm, " <small>mm</small>"),
            _tile("Discs found", f"{found} <small>of {discs}</small>", f"{discs - found} not found, {false} false"),
            estimate("volume_dice", "Volume Dice", _share),
        ]
    )


def _tile(name: str, value: str, below: str) -> str:
    return f'<div class="tile"><span class="name">{name}</span><b>{value}</b><span class="soft">{below}</span></div>'


def _interval(scores: Mapping[str, Any]) -> str:
    interval, cases = scores["interval"], len(scores["cases"])
    means = f"Means over {cases} case{'s' if cases != 1 else ''}, of each case's mean over its discs."
    if scores["dice"]["low"] is None:
        return f"{means} One {html.escape(interval['resampled'][:-1])} alone cannot tell how sure they are."
    return (
        f"{means} Below each, its {interval['level']:.0%} interval: {html.escape(interval['method'])} of "
        f"{html.escape(interval['resampled'])}."
    )


def _case_table(scores: Mapping[str, Any], ranked: Sequence[Mapping[str, Any]]) -> str:
    subjects = "subject" in ranked[0]
    names = ["Case", *(["Subject"] if subjects else []), *(name for _, name, _ in _COLUMNS), "Found", "False"]
    body = []
    for case in ranked:
        cells = [f"<td>{html.escape(str(case['subject']))}</td>"] if subjects else []
        for key, _, form in _COLUMNS:
            heat = _heat(case[key]) if key in ("dice", "volume_dice") else ""
            cells.append(f"<td{heat}>{form(case[key])}</td>")
        cells.append(f"<td>{int(case['discs_found'])} of {int(case['discs'])}</td><td>{int(case['false_discs'])}</td>")
        body.append(f"<tr><th>{html.escape(str(case['case']))}</th>{''.join(cells)}</tr>")
    means = "".join(
        f"<td>{form(scores[key]['mean'])}"
        + ("" if scores[key]["std"] is None else f' <span class="soft">&plusmn; {form(scores[key]["std"])}</span>')
        + "</td>"
        for key, _, form in _COLUMNS
    )
    total = f"<td>{int(scores['discs_found'])} of {int(scores['discs'])}</td><td>{int(scores['false_discs'])}</td>"
    foot = f'<tr class="mean"><th>Mean &plusmn; SD</th>{"<td></td>" if subjects else ""}{means}{total}</tr>'
    return _table(names, [*body, foot], "")


def _disc_table(rows: Sequence[Mapping[str, str]], order: Sequence[str]) -> str:
    by_place = {(row["case"], int(row["disc"])): row for row in rows}
    discs = sorted({disc for _, disc in by_place})
    body = []
    for case in order:
        cells = [_disc_cell(by_place.get((case, disc))) for disc in discs]
        body.append(f"<tr><th>{html.escape(case)}</th>{''.join(cells)}</tr>")
    means = []
    for disc in discs:
        mean = float(np.mean([float(row["dice"]) for (_, number), row in by_place.items() if number == disc]))
        means.append(f"<td{_heat(mean)}>{_share(mean)}</td>")
    names = ["Case", *(f"Disc {disc}" for disc in discs)]
    return _table(names, [*body, f'<tr class="mean"><th>Mean Dice</th>{"".join(means)}</tr>'], "discs")


def _disc_cell(row: Mapping[str, str] | None) -> str:
    if row is None:
        return "<td></td>"
    dice, asd_mm, center_mm = (float(row[key]) for key in ("dice", "asd_mm", "center_mm"))
    distances = f"<small>{_mm(asd_mm)} &middot; {_mm(center_mm)}</small>"
    if row["found"] == "0":
        return f'<td class="heat missed">not found{distances}</td>'
    return f"<td{_heat(dice)}>{_share(dice)}{distances}</td>"


def _heat(dice: float) -> str:
    low, high = _HEAT
    return f' class="heat" style="--q:{100 * min(max((dice - low) / (high - low), 0.0), 1.0):.0f}"'


def _table(names: Sequence[str], rows: Sequence[str], kind: str) -> str:
    head = "".join(f"<th>{name}</th>" for name in names)
    return f'<table class="{kind}"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'


def _pictures(cases: Sequence[ReportCase], ranked: Sequence[Mapping[str, Any]]) -> str:
    if not cases:
        return ""
    scores = {case["case"]: (place, case) for place, case in enumerate(ranked)}
    cards = []
    for case in sorted(cases, key=lambda case: scores[case.name][0]):
        png = pictures.sagittal_png(case.image_ZxHxW, case.spacing_mm, case.reference_ZxHxW, case.prediction_ZxHxW)
        score, name = scores[case.name][1], html.escape(case.name)
        cards.append(
            f'<figure class="case"><img alt="Case {name}, mid-sagittal slice with both outlines" '
            f'src="data:image/png;base64,{base64.b64encode(png).decode("ascii")}">'
            f"<figcaption><b>{name}</b>Dice {_share(score['dice'])}, ASD {_mm(score['asd_mm'])} mm, "
            f"{int(score['discs_found'])} of {int(score['discs'])} found</figcaption></figure>"
        )
    legend = '<span class="key reference">reference</span><span class="key prediction">prediction</span>'
    return f'<h2>Mid-sagittal slices {legend}</h2><div class="cases">{"".join(cards)}</div>'


def _training(log: Sequence[Mapping[str, Any]]) -> str:
    def line(name: str, kind: str, key: str) -> Line:
        rows = [row for row in log if row.get("kind") == kind and key in row]
        return Line(name, [row["step"] for row in rows], [row[key] for row in rows])

    charts = "".join(
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
    if not charts:
        return ""
    speeds = [row["stacks_per_s"] for row in log if row.get("stacks_per_s")]
    told = f"{log[-1]['step']:,} steps in {_duration(max(row['time_s'] for row in log))}" if log else ""
    told += f", {np.median(speeds):.1f} stacks a second (median)" if speeds else ""
    return f'<h2>Training</h2><p class="note">{told}.</p><div class="charts">{charts}</div>'


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def _config_groups(config: Mapping[str, Any]) -> str:
    plain = {key: value for key, value in config.items() if not isinstance(value, dict)}
    groups = {key: _flat(value) for key, value in config.items() if isinstance(value, dict)}
    return "".join(_group(name, values) for name, values in {"experiment": plain, **groups}.items() if values)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in PACKAGES}}


def _machine(machine: Mapping[str, str] | None) -> dict[str, str]:
    return {"system": platform.platform(terse=True), "cpu cores": str(os.cpu_count()), **(machine or {})}


def _group(name: str, values: Mapping[str, Any]) -> str:
    items = "".join(
        f"<dt>{html.escape(str(key))}</dt><dd>{html.escape(_text(value))}</dd>" for key, value in values.items()
    )
    return f'<div class="card"><h3>{html.escape(name)}</h3><dl>{items}</dl></div>'


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_text(item) for item in value) or "none"
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)
