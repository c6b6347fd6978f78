"""Small line charts as inline SVG: no font, script or address of their own, coloured by the page's style sheet."""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.ticker import MaxNLocator

WIDTH, HEIGHT = 480, 250
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 14, 40


@dataclass(frozen=True)
class Line:
    """One line of a chart: its name in the legend, and its points."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


def line_chart(title: str, lines: Sequence[Line], x_label: str) -> str:
    """Draw lines over one pair of axes: a `<figure>` whose lines have the classes line0, line1 and so on.

    Points that are not finite are left out; a chart without a point is the empty string.
    """
    lines = [_finite(line) for line in lines]
    if not any(line.x for line in lines):
        return ""
    x_ticks = _ticks([x for line in lines for x in line.x], 6)
    y_ticks = _ticks([y for line in lines for y in line.y], 5)

    def at_x(x: float) -> float:
        return LEFT + (x - x_ticks[0]) / (x_ticks[-1] - x_ticks[0]) * (WIDTH - LEFT - RIGHT)

    def at_y(y: float) -> float:
        return HEIGHT - BOTTOM - (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0]) * (HEIGHT - TOP - BOTTOM)

    parts = []
    for y in y_ticks:
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at_y(y):.1f}" y2="{at_y(y):.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 7}" y="{at_y(y) + 3.5:.1f}" text-anchor="end">{y:g}</text>')
    for x in x_ticks:
        parts.append(
            f'<text class="tick" x="{at_x(x):.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{_short(x)}</text>'
        )
    parts.append(
        f'<text class="tick" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 5}" text-anchor="middle">'
        f"{html.escape(x_label)}</text>"
    )
    for i, line in enumerate(lines):
        points = " ".join(f"{at_x(x):.1f},{at_y(y):.1f}" for x, y in zip(line.x, line.y, strict=True))
        parts.append(f'<polyline class="line{i}" points="{points}"/>')
        # A few points are each worth a mark, and the only way to see a line of one.
        if len(line.x) <= 30:
            parts += [
                f'<circle class="line{i}" cx="{at_x(x):.1f}" cy="{at_y(y):.1f}" r="2.6"/>'
                for x, y in zip(line.x, line.y, strict=True)
            ]
    legend = "".join(
        f'<span class="key line{i}">{html.escape(line.name)}</span>' for i, line in enumerate(lines) if line.x
    )
    return (
        f'<figure class="chart"><figcaption><b>{html.escape(title)}</b>{legend if len(lines) > 1 else ""}</figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(title)}">{"".join(parts)}</svg>'
        "</figure>"
    )


def _finite(line: Line) -> Line:
    points = [(x, y) for x, y in zip(line.x, line.y, strict=True) if math.isfinite(x) and math.isfinite(y)]
    return Line(line.name, [x for x, _ in points], [y for _, y in points])


def _ticks(values: Sequence[float], most: int) -> list[float]:
    low, high = min(values), max(values)
    if low == high:
        low, high = low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
    return [float(tick) for tick in MaxNLocator(most, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)]


def _short(x: float) -> str:
    return f"{x / 1000:g}k" if abs(x) >= 10_000 else f"{x:g}"
