"""The frame of a page that asks for nothing else, and the pieces it is put together from.

Style, script, charts and pictures are inside the page, and its own policy forbids anything from elsewhere and any
script but the one in `report.js`, which it names by its hash (https://www.w3.org/TR/CSP3/).
"""

import base64
import hashlib
import html
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata, resources
from pathlib import Path
from typing import Any

from ivdjax.errors import DataError
from ivdjax.evaluation import discs, pictures
from ivdjax.evaluation.record import Record
from ivdjax.files import write_text

PHANTOM_NOTICE = (
    "<b>Figures on a digital phantom.</b> The scans were drawn by a program, not taken of people. They show that the "
    "code works from end to end; they say nothing of how well it does on patients. As in IVDM3Seg, seven discs are "
    "labelled and an eighth is in view above them: a network that finds it, too, is charged for it at T11/T12 and "
    "with a false disc."
)
# Dice at the two ends of the colour scale; one voxel all around costs a disc some 0.1.
_HEAT = (0.6, 0.95)


Form = Callable[[float], str]
"""How a number is written."""


def share(value: float) -> str:
    """A number of 0 to 1 as it is written everywhere."""
    return f"{value:.3f}"


def mm(value: float) -> str:
    """A length as it is written everywhere."""
    return f"{value:.2f}"


@dataclass(frozen=True)
class Metric:
    """A figure of a case: its key in `scores.json`, its name and how it is written."""

    key: str
    name: str
    form: Form
    more_is_better: bool


METRICS = (
    Metric("dice", "Dice", share, True),
    Metric("asd_mm", "ASD, mm", mm, False),
    Metric("center_mm", "Centre, mm", mm, False),
    Metric("hd95_mm", "HD95, mm", mm, False),
    Metric("nsd_1mm", "NSD at 1 mm", share, True),
    Metric("volume_dice", "Volume Dice", share, True),
)


def write(path: Path, *, title: str, caption: str, main: Sequence[str], source: str) -> None:
    """Put a page into its frame and write it.

    Args:
      path: file to make or replace.
      title: heading, as plain text.
      caption: a sentence below it, as plain text.
      main: the parts of the page, as HTML.
      source: what the page was written from, as plain text.

    Raises:
      DataError: the file cannot be written.
    """
    script, version = _beside("report.js"), html.escape(metadata.version("ivdjax"))
    page = string.Template(_beside("report.html")).substitute(
        title=html.escape(title),
        caption=html.escape(caption),
        style=string.Template(_beside("report.css")).substitute(
            reference_color=pictures.REFERENCE_COLOR, prediction_color=pictures.PREDICTION_COLOR
        ),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii"),
        main="\n".join(part for part in main if part),
        footer=f"Written {datetime.now(UTC):%Y-%m-%d %H:%M} UTC by ivdjax {version} from {html.escape(source)}.",
    )
    try:
        write_text(path, page.encode("utf-8", "replace").decode("utf-8"))  # half a pair of UTF-16 has no letter
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror}; choose another place") from error


def _beside(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text("utf-8")


def section(heading: str, content: str, note: str = "", kind: str = "") -> str:
    """A part of the page with a heading, as plain text, and a note, as HTML; empty where it has no content."""
    if not content:
        return ""
    told = f'<p class="note">{note}</p>' if note else ""
    return f'<section class="{kind}"><h2>{html.escape(heading)}</h2>{told}{content}</section>'


def notice(content: str) -> str:
    """Something to read first, as HTML."""
    return f'<div class="notice">{content}</div>'


def folded(name: str) -> str:
    """A name, as plain text, that takes several lines where it is long."""
    return f'<span class="folded">{html.escape(name)}</span>'


def tile(name: str, value: str, below: str) -> str:
    """A figure in large letters; all as HTML."""
    return f'<div class="tile"><span class="name">{name}</span><b>{value}</b><span class="soft">{below}</span></div>'


def table(names: Sequence[str], rows: Sequence[str], kind: str = "") -> str:
    """A table from the names of its columns and its rows, as HTML; it scrolls by itself where it is too wide."""
    head = "".join(f"<th>{name}</th>" for name in names)
    return (
        f'<div class="scroll"><table class="{kind}"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def heat(dice: float) -> str:
    """The attributes of what is coloured by a Dice."""
    low, high = _HEAT
    return f'class="heat" style="--q:{100 * min(max((dice - low) / (high - low), 0.0), 1.0):.0f}"'


def card(name: str, values: Mapping[str, Any]) -> str:
    """Names and values, as plain text, in a frame."""
    items = "".join(
        f"<dt>{html.escape(str(key))}</dt><dd>{html.escape(plain(value))}</dd>" for key, value in values.items()
    )
    return f'<div class="card"><h3>{html.escape(name)}</h3><dl>{items}</dl></div>'


def plain(value: Any) -> str:
    """A setting as a reader writes it."""
    if isinstance(value, list):
        return ", ".join(plain(item) for item in value) or "none"
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings under dotted names."""
    named: dict[str, Any] = {}
    for key, value in values.items():
        named |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return named


def duration(seconds: float) -> str:
    """A time span in the units a reader has a feeling for."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def facts(run: Record) -> dict[str, Any]:
    """A run in a few words, by name: which scans, how long, and so on."""
    cases, known = run.scores["cases"], run.data_sha256
    return {
        "seed": run.config.get("seed"),
        "scans": "the digital phantom" if run.on_phantom else Path(str(run.config["data"]["root"])).name,
        "cases held out": len(cases),
        **({"their subjects": len({case["subject"] for case in cases})} if "subject" in cases[0] else {}),
        **({"hash of all scans and masks": known[:16]} if known else {}),
        **({"training steps": run.log[-1]["step"]} if run.log else {}),
        **({"training took": duration(run.training_s)} if run.training_s is not None else {}),
        "scored by": f"ivdjax {run.scores['ivdjax']}",
    }


def level(disc: int) -> str:
    """Name of a disc counted from the lowest, which is taken for L5/S1; its number where a spine has no so many."""
    return discs.level_name(disc) if 1 <= disc <= discs.LEVELS else f"disc {disc}"


def level_class(disc: int) -> str:
    """The class that gives a level its colour."""
    return f"level{(disc - 1) % 9 + 1}"
