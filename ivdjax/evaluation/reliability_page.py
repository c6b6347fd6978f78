"""The parts of a run's page about its own confidence, and about what was taken out of its masks."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ivdjax.evaluation import axes, calibration, page, ranking
from ivdjax.evaluation.axes import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH
from ivdjax.evaluation.curves import Line, line_chart
from ivdjax.evaluation.page import share
from ivdjax.evaluation.reliability import PredictedDisc, Reliability

# A mean probability this far from the share of disc is worth a word.
_LEANS = 0.01
_POINTS = (2.0, 6.0)  # radii of the points of a bin with few and with most voxels


def section(reliability: Reliability | None) -> str:
    """How far the run's probabilities and its confidence in discs can be trusted; empty where it kept neither."""
    if reliability is None:
        return ""
    calibrated, ranked = reliability.summary["calibration"], reliability.summary["ranking"]
    charts = _diagram(calibrated["bins"]) + _against_dice(reliability.discs)
    if ranked is not None and ranked["discs"] >= ranking.LEAST_DISCS:
        charts += _set_aside(reliability.discs)
    told = f'<p class="note">{_of_voxels(calibrated)}</p><p class="note">{_of_discs(ranked)}</p>'
    return page.section("How far it can be trusted", told + f'<div class="charts">{charts}</div>')


def _of_voxels(calibrated: Mapping[str, Any]) -> str:
    bins = [b for b in calibrated["bins"] if b["voxels"]]
    voxels = sum(b["voxels"] for b in bins)
    if not voxels:
        return "No voxel lies near a disc: nothing can be said of the probabilities."
    sure = "" if calibrated["low"] is None else f" ({share(calibrated['low'])} to {share(calibrated['high'])})"
    said, true = (sum(b["voxels"] * b[key] for b in bins) / voxels for key in ("probability", "disc"))
    leans = "on the whole neither too much nor too little disc is expected"
    if abs(said - true) >= _LEANS:
        leans = f"on the whole {'more' if said > true else 'less'} disc is expected than there is"
    return (
        f"<b>Probabilities.</b> Expected calibration error {share(calibrated['error'])}{sure}: the probability of disc "
        f"differs by this much from the share of voxels that are disc, on average over the {voxels:,} voxels within "
        f"{calibration.REGION_MM:g} mm of a reference or predicted disc; {leans} (mean probability {share(said)}, "
        f"share of disc {share(true)})."
    )


def _of_discs(ranked: Mapping[str, Any] | None) -> str:
    if ranked is None:
        return "<b>Discs.</b> None was predicted."
    start = (
        f"<b>Discs.</b> Of each of the {ranked['discs']} predicted discs the network says, without a reference, which "
        "Dice it expects. "
    )
    if ranked["spearman"] is None:
        start += (
            f"A rank correlation needs {ranking.LEAST_DISCS} discs of {ranking.LEAST_SUBJECTS} subjects; here are "
            f"{ranked['discs']} of {ranked['subjects']}. "
        )
    else:
        sure = "" if ranked["low"] is None else f", {_signed(ranked['low'])} to {_signed(ranked['high'])} over subjects"
        start += f"Its rank correlation with the Dice is {_signed(ranked['spearman'])} (Spearman{sure}). "
    bad = ranked["bad"]
    if bad < ranking.LEAST_EITHER:
        few = "None lies" if not bad else f"Only {bad} lie{'s' if bad == 1 else ''}"
        return f"{start}{few} below a Dice of {ranking.GOOD_DICE:g}: too few to tell whether low confidence finds them."
    told = (
        f"{start}{bad} lie below a Dice of {ranking.GOOD_DICE:g} or are false; the {ranking.LOOKED_AT:.0%} with the "
        f"least confidence ({ranked['looked_at']} discs) hold {ranked['bad_looked_at']} of these, "
        f"{ranked['bad_looked_at'] / bad:.0%} (at best {min(ranked['looked_at'], bad) / bad:.0%})."
    )
    if ranked["auroc"] is None:
        return told
    return (
        f"{told} In {ranked['auroc']:.0%} of all pairs of a bad and a good disc the bad one has the lower confidence "
        "(AUROC; 50% would be chance)."
    )


def _signed(value: float) -> str:
    return axes.number(value, ".2f")


def _diagram(bins: Sequence[Mapping[str, Any]]) -> str:
    """The share of disc over the probability, after C. Guo et al. (arXiv:1706.04599)."""
    filled = [b for b in bins if b["voxels"]]
    if not filled:
        return ""
    x, y, parts = _unit_axes()
    parts.append(_line(x, y, (0, 0), (1, 1), "zero"))
    points = " ".join(f"{x.at(b['probability']):.1f},{y.at(b['disc']):.1f}" for b in filled)
    parts.append(f'<polyline class="line0" points="{points}"/>')
    most = max(b["voxels"] for b in filled)
    for b in filled:
        told = f"of {b['voxels']:,} voxels with {b['probability']:.2f} on average, {b['disc']:.2f} are disc"
        r = max(_POINTS[0], _POINTS[1] * (b["voxels"] / most) ** 0.5)
        parts.append(axes.point(x.at(b["probability"]), y.at(b["disc"]), "line0", told, r))
    parts.append(axes.x_label("probability of disc that the network gives"))
    return axes.figure(
        "Share of voxels that are disc", parts, [("line0", "observed"), ("zero", "perfectly calibrated")]
    )


def _against_dice(discs: Sequence[PredictedDisc]) -> str:
    if not discs:
        return ""
    x = axes.linear([disc.confidence for disc in discs], 5, LEFT, WIDTH - RIGHT)
    y = axes.linear([0.0, 1.0], 5, HEIGHT - BOTTOM, TOP)
    parts = [axes.y_grid(y), axes.x_values(x), axes.x_label("Dice that the network expects")]
    parts.append(_line(x, y, (x.ticks[0], ranking.GOOD_DICE), (x.ticks[-1], ranking.GOOD_DICE), "limit"))
    for disc in discs:
        name = "false" if disc.reference is None else page.level(disc.reference)
        told = f"{disc.case}, {name}: Dice {share(disc.dice)}, expected {share(disc.confidence)}"
        parts.append(axes.point(x.at(disc.confidence), y.at(disc.dice), "dot", told))
    return axes.figure("Dice of each predicted disc", parts)


def _set_aside(discs: Sequence[PredictedDisc]) -> str:
    confidence, dice = (np.array([getattr(disc, name) for disc in discs]) for name in ("confidence", "dice"))
    aside = np.arange(len(discs))[::-1] / len(discs)
    lines = [
        Line(name, aside.tolist(), ranking.kept_dice(by, dice).tolist())
        for name, by in (("by confidence", confidence), ("by their Dice, the best possible", dice))
    ]
    return line_chart("Mean Dice of the discs that remain", lines, "share of discs that is set aside")


def _unit_axes() -> tuple[axes.Axis, axes.Axis, list[str]]:
    x, y = axes.linear([0.0, 1.0], 5, LEFT, WIDTH - RIGHT), axes.linear([0.0, 1.0], 5, HEIGHT - BOTTOM, TOP)
    return x, y, [axes.y_grid(y), axes.x_values(x)]


def _line(x: axes.Axis, y: axes.Axis, start: tuple[float, float], end: tuple[float, float], kind: str) -> str:
    (x1, y1), (x2, y2) = ((x.at(a), y.at(b)) for a, b in (start, end))
    return f'<line class="{kind}" x1="{x1:.1f}" x2="{x2:.1f}" y1="{y1:.1f}" y2="{y2:.1f}"/>'


def taken_out(scores: Mapping[str, Any], raw: Mapping[str, Any] | None, rules: Mapping[str, Any]) -> str:
    """The scores before and after the rules that take out of the masks; empty where there are none."""
    if raw is None:
        return ""
    rows = []
    for name, each in (("as the network gave them", raw), ("after the rules", scores)):
        figures = "".join(f"<td>{share(each[key]['mean'])}</td>" for key in ("dice", "volume_dice"))
        found = f"{int(each['discs_found'])} of {int(each['discs'])}"
        rows.append(f"<tr><th>{name}</th>{figures}<td>{found}</td><td>{int(each['false_discs'])}</td></tr>")
    on = [f"{name} {page.plain(value)}" for name, value in rules.items() if value]
    return page.section(
        "What the rules took out of the masks",
        page.table(["Masks", "Dice", "Volume Dice", "Found", "False discs"], rows),
        f"Rules that were on: {html.escape(', '.join(on))}. All other figures and pictures of this page are of the "
        "masks after them.",
    )
