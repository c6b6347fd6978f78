"""Box plots over levels, the plot of Bland and Altman, and lines from run to run, as inline SVG."""

import html
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ivdjax.evaluation import axes
from ivdjax.evaluation.axes import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH
from ivdjax.evaluation.statistics import Agreement

# Tukey's whiskers reach to the last value within this many interquartile ranges of the box.
WHISKER = 1.5
# Quartiles of fewer values are hardly more than the values.
LEAST_BOXED = 4

_BAND = 30  # height of the band for what has no value
_POINT = 2.8
_LETTER = 7.0  # width of a name's letter


@dataclass(frozen=True)
class Dot:
    """One measured thing: its value, None where it has none, and what the tooltip says of it."""

    value: float | None
    tooltip: str


@dataclass(frozen=True)
class Box:
    """The dots of one place along the axis."""

    name: str
    dots: Sequence[Dot]


@dataclass(frozen=True)
class Pair:
    """A measured and a reference value."""

    measured: float
    reference: float
    kind: str
    """Class that colours the point."""
    tooltip: str


def box_plot(title: str, boxes: Sequence[Box], *, missed_low: bool, skewed: bool = False) -> str:
    """Median, quartiles and J. W. Tukey's whiskers (Exploratory Data Analysis, 1977) over all dots of a place.

    Dots without a value are marks in a band of their own beyond the worse end of the axis, so that they do not squash
    it. Without any value the chart is the empty string.

    Args:
      title: heading of the chart.
      boxes: places along the axis, from left to right.
      missed_low: whether the band of dots without a value lies below the axis, else above.
      skewed: let the axis be logarithmic if a few values are far larger than the rest.
    """
    values = [dot.value for box in boxes for dot in box.dots if dot.value is not None]
    if not values:
        return ""
    missed = any(dot.value is None for box in boxes for dot in box.dots)
    top, bottom = TOP + 4.0, HEIGHT - BOTTOM - 6.0
    if missed:
        top, bottom = (top, bottom - _BAND) if missed_low else (top + _BAND, bottom)
    axis = (axes.skewed if skewed else axes.linear)(values, 6, bottom, top)
    parts = [axes.y_grid(axis)]
    band = (bottom + _BAND / 2 + 4 if missed_low else top - _BAND / 2 - 4) if missed else 0.0
    if missed:
        edge = bottom + 8 if missed_low else top - _BAND - 2
        parts.append(
            f'<rect class="band" x="{LEFT}" y="{edge:.1f}" width="{WIDTH - LEFT - RIGHT}" height="22" rx="4"/>'
        )
        parts.append(axes.text(LEFT - 7, band + 3.5, "missed", "end"))
    step = (WIDTH - LEFT - RIGHT) / len(boxes)
    for i, box in enumerate(boxes):
        x = LEFT + (i + 0.5) * step
        parts.append(_box([dot.value for dot in box.dots if dot.value is not None], axis, x, min(0.32 * step, 22)))
        places = _spread([None if dot.value is None else axis.at(dot.value) for dot in box.dots], 0.42 * step)
        for dot, shift in zip(box.dots, places, strict=True):
            if dot.value is None:
                parts.append(_cross(x + shift, band, dot.tooltip))
            else:
                parts.append(axes.point(x + shift, axis.at(dot.value), "dot", dot.tooltip, _POINT))
        parts.append(axes.text(x, HEIGHT - 22, box.name, kind="tick name" if len(boxes) < 8 else "tick name small"))
        parts.append(axes.text(x, HEIGHT - 8, f"n={len(box.dots)}"))
    return axes.figure(title + (", logarithmic" if axis.log else ""), parts)


def _box(values: Sequence[float], axis: axes.Axis, x: float, half: float) -> str:
    if not values:
        return ""
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    at = f"{axis.at(middle):.1f}"
    line = f'<line class="median" x1="{x - half:.1f}" x2="{x + half:.1f}" y1="{at}" y2="{at}"/>'
    if len(values) < LEAST_BOXED:
        return line
    reach = WHISKER * (high - low)
    inside = [value for value in values if low - reach <= value <= high + reach]
    whiskers = "".join(
        f'<line class="whisker" x1="{x:.1f}" x2="{x:.1f}" y1="{axis.at(start):.1f}" y2="{axis.at(end):.1f}"/>'
        f'<line class="whisker" x1="{x - half / 2:.1f}" x2="{x + half / 2:.1f}" y1="{axis.at(end):.1f}" '
        f'y2="{axis.at(end):.1f}"/>'
        for start, end in ((low, min(inside)), (high, max(inside)))
    )
    return (
        f'{whiskers}<rect class="box" x="{x - half:.1f}" y="{axis.at(high):.1f}" width="{2 * half:.1f}" '
        f'height="{axis.at(low) - axis.at(high):.1f}" rx="2"/>{line}'
    )


def _spread(places: Sequence[float | None], widest: float) -> list[float]:
    """Sideways shifts that keep dots apart; those without a place share one row."""
    shifts = [0.0] * len(places)
    taken: list[tuple[float, float]] = []
    tries = [sign * k * _POINT for k in range(1 + int(widest / _POINT)) for sign in ((1, -1) if k else (1,))]
    # Those without a place lie far from all others.
    rows = [-1e6 if place is None else place for place in places]
    for i in sorted(range(len(places)), key=lambda i: (places[i] is None, rows[i])):
        y = rows[i]
        free = [x for x in tries if all((x - a) ** 2 + (y - b) ** 2 >= (2 * _POINT) ** 2 for a, b in taken)]
        shifts[i] = free[0] if free else 0.0
        taken.append((shifts[i], y))
    return shifts


def _cross(x: float, y: float, tooltip: str) -> str:
    title = f"<title>{html.escape(tooltip)}</title>"
    return f'<path class="missed" d="M{x - 3.5:.1f} {y - 3.5:.1f}l7 7m0 -7l-7 7">{title}</path>'


def bland_altman(
    title: str, unit: str, pairs: Sequence[Pair], agreement: Agreement, legend: Sequence[tuple[str, str]]
) -> str:
    """Difference over mean of each pair, with bias and limits of agreement (Bland and Altman, Lancet 1986;1:307)."""
    x = [(pair.measured + pair.reference) / 2 for pair in pairs]
    y = [pair.measured - pair.reference for pair in pairs]
    limits = [limit for limit in (agreement.limit_low, agreement.limit_high) if limit is not None]
    x_axis = axes.linear(x, 6, LEFT, WIDTH - RIGHT)
    y_axis = axes.linear([*y, *limits, 0.0], 6, HEIGHT - BOTTOM, TOP)
    parts = [axes.y_grid(y_axis), axes.x_values(x_axis), axes.x_label(f"mean of prediction and reference, {unit}")]
    parts.append(_level_line(y_axis, 0.0, "zero", ""))
    if agreement.bias_low is not None and agreement.bias_high is not None:
        high, low = y_axis.at(agreement.bias_high), y_axis.at(agreement.bias_low)
        parts.append(
            f'<rect class="band" x="{LEFT}" width="{WIDTH - LEFT - RIGHT}" y="{high:.1f}" height="{low - high:.1f}"/>'
        )
    parts += [
        axes.point(x_axis.at(a), y_axis.at(b), pair.kind, pair.tooltip) for a, b, pair in zip(x, y, pairs, strict=True)
    ]
    sure = ""
    if agreement.bias_low is not None and agreement.bias_high is not None:
        sure = f" ({_signed(agreement.bias_low)} to {_signed(agreement.bias_high)})"
    parts.append(_level_line(y_axis, agreement.bias, "bias", f"bias {_signed(agreement.bias)}{sure}"))
    for limit, name in ((agreement.limit_high, "+"), (agreement.limit_low, "\u2212")):
        if limit is not None:
            parts.append(_level_line(y_axis, limit, "limit", f"{name}1.96 SD {_signed(limit)}"))
    return axes.figure(f"{title}, prediction minus reference, {unit}; n = {agreement.n}", parts, legend)


def _signed(value: float) -> str:
    return axes.number(value, "+.2f")


def _level_line(axis: axes.Axis, y: float, kind: str, words: str) -> str:
    at = axis.at(y)
    line = f'<line class="{kind}" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>'
    return line + (axes.text(WIDTH - RIGHT - 4, at - 4, words, "end", "said") if words else "")


def slopes(title: str, names: Sequence[str], lines: Sequence[tuple[str, Sequence[float]]], more_is_better: bool) -> str:
    """A line a case from run to run; of two runs it is coloured by which is better.

    Args:
      title: heading of the chart.
      names: the runs, from left to right.
      lines: name of a case, and its value for each run.
      more_is_better: whether a rising line is a gain.
    """
    axis = axes.skewed([v for _, values in lines for v in values], 6, HEIGHT - BOTTOM, TOP)
    if more_is_better:
        axis = axes.linear([v for _, values in lines for v in values], 6, HEIGHT - BOTTOM, TOP)
    width = WIDTH - LEFT - RIGHT
    x = [LEFT + width * (i + 0.5) / len(names) for i in range(len(names))]
    parts = [axes.y_grid(axis)]
    for at, name in zip(x, names, strict=True):
        parts.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
        parts.append(
            axes.text(at, HEIGHT - BOTTOM + 18, _short(name, int(width / len(names) / _LETTER)), kind="tick name")
        )
    for case, values in lines:
        gain = (values[-1] - values[0]) * (1 if more_is_better else -1)
        kind = "even" if len(names) > 2 or gain == 0 else "better" if gain > 0 else "worse"
        told = html.escape(f"{case}: " + ", ".join(f"{v:.3g}" for v in values))
        points = [(a, axis.at(v)) for a, v in zip(x, values, strict=True)]
        dots = "".join(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3"/>' for a, b in points)
        line = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
        parts.append(f'<g class="slope {kind}"><title>{told}</title><polyline points="{line}"/>{dots}</g>')
    legend = [("better", f"{names[-1]} better"), ("worse", f"{names[-1]} worse")] if len(names) == 2 else []
    return axes.figure(title + (", logarithmic" if axis.log else ""), parts, legend)


def _short(name: str, most: int) -> str:
    return name if len(name) <= most else name[: most - 1] + "\u2026"
