"""Axes of the small charts that the pages draw as inline SVG: no font, script or address of their own.

Colours come from the page's style sheet; names are escaped here.
"""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.ticker import MaxNLocator

WIDTH, HEIGHT = 480, 270
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 14, 42

# Beyond this ratio of the largest value to the lower quartile, a linear axis shows little but the largest.
_SKEWED = 10.0


@dataclass(frozen=True)
class Axis:
    """Where values lie along one side of a chart."""

    ticks: Sequence[float]
    """Values with a mark, rising; the first and the last are the ends of the axis."""
    start: float
    """Place of the first tick in the chart's units."""
    end: float
    """Place of the last."""
    log: bool = False
    """Equal steps are equal factors."""

    def at(self, value: float) -> float:
        """Place of a value."""
        low, high, value = (math.log(v) if self.log else v for v in (self.ticks[0], self.ticks[-1], value))
        return self.start + (value - low) / (high - low) * (self.end - self.start)


def linear(values: Sequence[float], most: int, start: float, end: float) -> Axis:
    """An axis of at most `most` equal steps around some values."""
    low, high = min(values), max(values)
    if low == high:
        low, high = low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
    ticks = MaxNLocator(most, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    return Axis([float(tick) for tick in ticks], start, end)


def skewed(values: Sequence[float], most: int, start: float, end: float) -> Axis:
    """An axis for values of which a few are far larger than the rest: logarithmic then, else linear."""
    if min(values) <= 0 or max(values) < _SKEWED * sorted(values)[len(values) // 4]:
        return linear([0.0, *values], most, start, end)
    decades = range(math.floor(math.log10(min(values))), math.ceil(math.log10(max(values))) + 1)
    ticks = [digit * 10.0**decade for decade in decades for digit in (1, 2, 5)]
    below = max(tick for tick in ticks if tick <= min(values))
    above = min(tick for tick in ticks if tick >= max(values))
    return Axis([tick for tick in ticks if below <= tick <= above], start, end, log=True)


def y_grid(axis: Axis, left: float = LEFT, right: float = WIDTH - RIGHT) -> str:
    """Lines across the chart at the ticks of its left side, and their values."""
    return "".join(
        f'<line class="grid" x1="{left:g}" x2="{right:g}" y1="{axis.at(y):.1f}" y2="{axis.at(y):.1f}"/>'
        + text(left - 7, axis.at(y) + 3.5, number(y), "end")
        for y in axis.ticks
    )


def x_values(axis: Axis, y: float = HEIGHT - BOTTOM + 16) -> str:
    """The values at the ticks of the lower side."""
    return "".join(text(axis.at(x), y, f"{number(x / 1000)}k" if abs(x) >= 10_000 else number(x)) for x in axis.ticks)


def x_label(label: str) -> str:
    """What the lower side tells."""
    return text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, label)


def number(value: float, form: str = "g") -> str:
    """A number with a true minus sign."""
    return f"{value:{form}}".replace("-", "\u2212")


def text(x: float, y: float, words: str, anchor: str = "middle", kind: str = "tick") -> str:
    """Words beside a place."""
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(words)}</text>'


def point(x: float, y: float, kind: str, tooltip: str, r: float = 3.4) -> str:
    """A point that tells what it is."""
    title = f"<title>{html.escape(tooltip)}</title>"
    return f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{r:g}">{title}</circle>'


def figure(title: str, parts: Sequence[str], legend: Sequence[tuple[str, str]] = (), note: str = "") -> str:
    """A chart from its parts, under its title and the names of its lines or points as (class, name)."""
    keys = "".join(f'<span class="key {kind}">{html.escape(name)}</span>' for kind, name in legend)
    below = f'<p class="note">{note}</p>' if note else ""
    return (
        f'<figure class="chart"><figcaption><b>{html.escape(title)}</b>{keys}</figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(title)}">{"".join(parts)}</svg>'
        f"{below}</figure>"
    )
