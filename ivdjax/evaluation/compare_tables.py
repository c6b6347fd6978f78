"""Tables and charts of runs that are compared: figures with intervals, paired tests, cases and levels."""

import html
import itertools
from collections.abc import Sequence

import numpy as np

from ivdjax.evaluation import charts, page
from ivdjax.evaluation.match import Matched
from ivdjax.evaluation.page import METRICS, Metric
from ivdjax.evaluation.statistics import Comparison, compare, estimate, holm

# The metrics shown case by case and level by level, and the differences at which their colour is full.
_FULL = {"dice": 0.05, "asd_mm": 0.5}
_SHOWN = [metric for metric in METRICS if metric.key in _FULL]
_ALPHA = 0.05
_MINUS = "\u2212"


def runs_section(matched: Matched) -> str:
    """The figures of each run over the common cases, with their intervals."""
    columns = [_run_column(matched, metric) for metric in METRICS]
    rows = []
    for i, name in enumerate(matched.names):
        discs = matched.discs(i).values()
        false = sum(int(c["false_discs"]) for c in matched.runs[i].scores["cases"] if str(c["case"]) in matched.cases)
        rows.append(
            f'<tr><th class="line{i % 8}"><span class="key"></span>{page.folded(name)}</th>'
            f"{''.join(column[i] for column in columns)}"
            f"<td>{sum(disc.found for disc in discs)} of {len(discs)}</td><td>{false}</td></tr>"
        )
    return page.section(
        "Runs",
        page.table(["Run", *(metric.name for metric in METRICS), "Found", "False"], rows),
        f"Means over the cases, of each case's mean over its discs. {_sureness(matched)} "
        "The best of each column is bold.",
    )


def _sureness(matched: Matched) -> str:
    """What there is to say of intervals."""
    count = len(set(matched.groups))
    if count == 1:
        return f"One {_unit(matched)} alone gives no interval."
    return f"Below each, its 95&nbsp;% bootstrap interval over {count} {_unit(matched)}s."


def _run_column(matched: Matched, metric: Metric) -> list[str]:
    estimates = [estimate(matched.values(i, metric), matched.groups) for i in range(len(matched.runs))]
    best = (max if metric.more_is_better else min)(e.mean for e in estimates)
    cells = []
    for e in estimates:
        mean = f"<b>{metric.form(e.mean)}</b>" if e.mean == best else metric.form(e.mean)
        cells.append(f"<td>{mean}<small>{_range(metric.form, e.low, e.high)}</small></td>")
    return cells


def tests_section(matched: Matched) -> str:
    """Paired tests of every pair of runs in every figure."""
    pairs = list(itertools.combinations(range(len(matched.runs)), 2))
    rows, tested = [], []
    for i, j in pairs:
        tested += [compare(matched.values(j, m), matched.values(i, m), matched.groups) for m in METRICS]
    adjusted = holm([test.p for test in tested])
    for k, ((i, j), metric) in enumerate(itertools.product(pairs, METRICS)):
        first = metric is METRICS[0]
        runs = page.folded(f"{matched.names[j]} {_MINUS} {matched.names[i]}")
        head = f'<th rowspan="{len(METRICS)}">{runs}</th>' if first else ""
        p = _p(float(adjusted[k]))
        rows.append(
            f'<tr>{head}<td class="words">{metric.name}</td>{_difference(metric, tested[k])}<td>{_p(tested[k].p)}</td>'
            f"<td>{f'<b>{p}</b>' if adjusted[k] < _ALPHA else p}</td></tr>"
        )
    table = page.table(["Runs", "Figure", "Difference", "p", "p by Holm"], rows, "tests")
    return page.section("Differences", table, _tests_note(matched, tested))


def _tests_note(matched: Matched, tested: Sequence[Comparison]) -> str:
    n, smallest_p, unit = tested[0].subjects, tested[0].smallest_p, _unit(matched)
    smallest_by_holm = min(1.0, smallest_p * len(tested))
    note = (
        f"Paired by {unit}, n&nbsp;=&nbsp;{n}: Wilcoxon's signed-rank test, two-sided, and p-values adjusted by Holm "
        f"for all {len(tested)} tests together. The smallest p that {n} {unit}{'s' if n > 1 else ''} can give is "
        f"{_p(smallest_p)}, by Holm {_p(smallest_by_holm)}"
    )
    if smallest_by_holm >= _ALPHA:
        note += f": too few {unit}s for any of these differences to be significant at {_ALPHA:g}"
    note += "."
    if not matched.grouped:
        note += " The scores name no subjects: if some cases are scans of one subject, these p-values are too small."
    return note


def cases_section(matched: Matched) -> str:
    """Each case in every run: lines from run to run, and a table."""
    runs = range(len(matched.runs))
    values = {metric.key: [matched.values(i, metric) for i in runs] for metric in _SHOWN}
    drawn = "".join(
        charts.slopes(
            metric.name,
            matched.names,
            [(case, [values[metric.key][i][k] for i in runs]) for k, case in enumerate(matched.cases)],
            metric.more_is_better,
        )
        for metric in _SHOWN
    )
    rows = []
    for k in matched.worst_first:
        cells = "".join(_beside(metric, [run[k] for run in values[metric.key]]) for metric in _SHOWN)
        rows.append(f"<tr><th>{html.escape(matched.cases[k])}</th>{cells}</tr>")
    return page.section(
        "Case by case",
        f'<div class="charts wide">{drawn}</div>{page.table(["Case", *_heads(matched)], rows, "discs")}',
        f"The worst first. Below each figure its difference to {html.escape(matched.names[0])}: green where the run is "
        "better, orange (in the charts red) where it is worse.",
    )


def levels_section(matched: Matched) -> str:
    """The means of each level in every run."""
    discs = [matched.discs(i) for i in range(len(matched.runs))]
    rows = []
    for number in sorted({disc for _, disc in discs[0]}):
        level = [[d for (_, disc), d in run.items() if disc == number] for run in discs]
        found = " / ".join(str(sum(d.found for d in run)) for run in level)
        cells = "".join(
            _beside(metric, [float(np.mean([getattr(d, metric.key) for d in run])) for run in level])
            for metric in _SHOWN
        )
        rows.append(f"<tr><th>{page.level(number)}</th><td>{len(level[0])}</td><td>{found}</td>{cells}</tr>")
    table = page.table(["Level", "Discs", "Found", *_heads(matched)], rows, "discs")
    return page.section("Level by level", table, "Means over the discs of a level, missed ones with their penalty.")


def _heads(matched: Matched) -> list[str]:
    return [f"{page.folded(name)}<small>{metric.name}</small>" for metric in _SHOWN for name in matched.names]


def _beside(metric: Metric, values: Sequence[float]) -> str:
    """A cell for the first run's value, and one a further run with the difference to it."""
    cells = [f"<td>{metric.form(values[0])}</td>"]
    for value in values[1:]:
        gain = (value - values[0]) * (1 if metric.more_is_better else -1)
        strength = 100 * min(abs(gain) / _FULL[metric.key], 1.0)
        kind = f'class="delta {"good" if gain > 0 else "bad"}" style="--q:{strength:.0f}"'
        cells.append(f"<td {kind}>{metric.form(value)}<small>{_signed(metric, value - values[0])}</small></td>")
    return "".join(cells)


def _difference(metric: Metric, test: Comparison) -> str:
    kind = "" if test.difference == 0 else "gain" if (test.difference > 0) == metric.more_is_better else "loss"
    sure = _range(lambda value: _signed(metric, value), test.low, test.high)
    return f'<td><span class="{kind}">{_signed(metric, test.difference)}</span><small>{sure}</small></td>'


def _range(form: page.Form, low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{form(low)} to {form(high)}"


def _signed(metric: Metric, value: float) -> str:
    return ("+" if value >= 0 else _MINUS) + metric.form(abs(value))


def _p(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else f"{p:.1g}"


def _unit(matched: Matched) -> str:
    return "subject" if matched.grouped else "case"
