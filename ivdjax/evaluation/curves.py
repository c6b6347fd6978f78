"""Line charts, of a training for example."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ivdjax.evaluation import axes

# With so few points each is worth a mark, and a mark is the only way to see a line of one.
_MARKED = 30
# More lines than these take their colours from the beginning.
_COLORS = 8


@dataclass(frozen=True)
class Line:
    """One line of a chart: its name in the legend, and its points."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


def line_chart(title: str, lines: Sequence[Line], x_label: str) -> str:
    """Draw lines over one pair of axes: a `<figure>` whose lines have the classes line0, line1 and so on to line7.

    Points that are not finite are left out; a chart without a point is the empty string.
    """
    lines = [_finite(line) for line in lines]
    if not any(line.x for line in lines):
        return ""
    x_axis = axes.linear([x for line in lines for x in line.x], 6, axes.LEFT, axes.WIDTH - axes.RIGHT)
    y_axis = axes.linear([y for line in lines for y in line.y], 5, axes.HEIGHT - axes.BOTTOM, axes.TOP)
    parts = [axes.y_grid(y_axis), axes.x_values(x_axis), axes.x_label(x_label)]
    kinds = [f"line{i % _COLORS}" for i in range(len(lines))]
    for kind, line in zip(kinds, lines, strict=True):
        points = [(x_axis.at(x), y_axis.at(y)) for x, y in zip(line.x, line.y, strict=True)]
        parts.append(f'<polyline class="{kind}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}"/>')
        if len(points) <= _MARKED:
            tooltips = [f"{line.name}: {y:.4g} at {x_label} {x:g}" for x, y in zip(line.x, line.y, strict=True)]
            parts += [axes.point(*place, kind, told, 2.6) for place, told in zip(points, tooltips, strict=True)]
    legend = [(kind, line.name) for kind, line in zip(kinds, lines, strict=True) if line.x]
    return axes.figure(title, parts, legend if len(lines) > 1 else [])


def _finite(line: Line) -> Line:
    points = [(x, y) for x, y in zip(line.x, line.y, strict=True) if math.isfinite(x) and math.isfinite(y)]
    return Line(line.name, [x for x, _ in points], [y for _, y in points])
