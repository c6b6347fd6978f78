"""An ablation as one picture: every subject, means and intervals, and differences to the base."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ivdjax import files
from ivdjax.ablation import table
from ivdjax.ablation.results import Result, Results
from ivdjax.ablation.table import METRIC

# Far apart for every kind of colour vision, and in grey.
_PLAIN, _BASE, _SUBJECT = "#2f5d8a", "#c2571a", "#9aa5b1"
_ROW_INCHES = 0.42
_BELOW = 0.22  # of a row, by which its subjects lie under its mean


def write(results: Results, path: Path) -> None:
    """Draw it: rows of variants, or Dice over the number of subjects where that is what differs."""
    curve = all(change.startswith("data.learn_subjects ") for r in results.variants for change in r.changes)
    figure = _learning_curve(results) if curve and len(results.variants) > 1 else _forest(results)
    with files.replacing(path) as partial:
        figure.savefig(partial, dpi=200)


def _forest(results: Results) -> Figure:
    variants, compared = results.variants, results.comparisons(METRIC)
    figure = Figure(figsize=(9, 1.5 + _ROW_INCHES * max(len(variants), 2)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(1, 1))
    for axes in (left, right):
        _plain(axes)
        axes.grid(axis="x", color="#e4e7eb", linewidth=0.8)
        axes.set_axisbelow(True)
    base = results.base.by_subject(METRIC) if results.base is not None else {}
    for row, result in enumerate(variants):
        color = _PLAIN if result.changes else _BASE
        own, estimate = result.by_subject(METRIC), result.estimate(METRIC)
        _points(left, list(own.values()), row)
        _mean(left, estimate.mean, (estimate.low, estimate.high), row, color)
        if result.name in compared:
            comparison, adjusted = compared[result.name]
            _points(right, [own[subject] - base[subject] for subject in base], row)
            _mean(right, comparison.difference, (comparison.low, comparison.high), row, color)
            note = f"{comparison.difference:+.3f}   {_p_value(adjusted)}"
            right.annotate(note, (1.02, row), xycoords=("axes fraction", "data"), va="center", fontsize=8)
    left.set_yticks(range(len(variants)), [result.name for result in variants])
    for tick, result in zip(left.get_yticklabels(), variants, strict=True):
        tick.set(color=_BASE if not result.changes else "black", weight="bold" if not result.changes else "normal")
    left.set_ylim(len(variants) - 0.5, -0.5)
    left.set_xlabel("mean Dice over discs")
    if results.base is not None:
        left.axvline(results.base.estimate(METRIC).mean, color=_BASE, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        right.axvline(0, color=_BASE, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        right.set_xlabel(f"difference to {results.base.name}, the same subjects")
    _title(figure, results, "Dots", " p: after Holm's correction.")
    return figure


def _learning_curve(results: Results) -> Figure:
    figure = Figure(figsize=(6, 4.2), layout="constrained")
    axes = figure.subplots()
    _plain(axes)
    axes.grid(color="#e4e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    ordered = sorted(results.variants, key=_learnt)
    x = [_learnt(result) for result in ordered]
    for subject in ordered[0].by_subject(METRIC):
        axes.plot(x, [r.by_subject(METRIC)[subject] for r in ordered], color=_SUBJECT, linewidth=0.8, alpha=0.7)
    estimates = [result.estimate(METRIC) for result in ordered]
    axes.plot(x, [estimate.mean for estimate in estimates], color=_PLAIN, linewidth=2, zorder=3)
    for at, result, estimate in zip(x, ordered, estimates, strict=True):
        color = _PLAIN if result.changes else _BASE
        if estimate.low is not None and estimate.high is not None:
            axes.plot([at, at], [estimate.low, estimate.high], color=color, linewidth=2, zorder=3)
        axes.plot(at, estimate.mean, "D", color=color, markersize=6, markeredgecolor="white", zorder=4)
    axes.set_xticks(sorted(set(x)), [f"{at:g}" for at in sorted(set(x))])
    axes.set_xlabel("subjects learnt from")
    axes.set_ylabel("mean Dice over discs")
    _title(figure, results, "Thin lines", "")
    return figure


def _learnt(result: Result) -> float:
    return float(np.mean(result.learn_subjects))


def _points(axes: Axes, values: list[float], row: int) -> None:
    axes.plot(
        values, [row + _BELOW] * len(values), "o", color=_SUBJECT, alpha=0.6, markersize=4, markeredgewidth=0, zorder=2
    )


def _mean(axes: Axes, mean: float, ends: tuple[float | None, float | None], row: int, color: str) -> None:
    low, high = ends
    if low is not None and high is not None:
        axes.plot([low, high], [row, row], color=color, linewidth=2.5, solid_capstyle="butt", zorder=3)
    axes.plot(mean, row, "D", color=color, markersize=6.5, markeredgecolor="white", zorder=4)


def _plain(axes: Axes) -> None:
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(length=0)


def _p_value(p: float) -> str:
    return f"p = {table.p_value(p)}" if p >= 0.001 else "p < 0.001"


def _title(figure: Figure, results: Results, subject: str, more: str) -> None:
    subjects = len(set(results.variants[0].subjects)) if results.variants else 0
    scans = "the digital phantom" if results.on_phantom else results.scans
    figure.suptitle(
        f"{results.plan.name}: {subjects} subjects of {scans}",
        fontsize=11,
        weight="bold",
        x=0.01,
        ha="left",
        parse_math=False,  # a folder's name is no formula
    )
    figure.supxlabel(
        f"{subject}: subjects. Diamonds: means with 95 % bootstrap intervals over subjects.{more}",
        fontsize=7.5,
        color="#52606d",
        x=0.01,
        ha="left",
    )
