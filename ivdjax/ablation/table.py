"""An ablation as a Markdown table: means, intervals, differences to the base and how sure they are."""

import html
from pathlib import Path

from ivdjax import files
from ivdjax.ablation.results import Result, Results
from ivdjax.evaluation.statistics import Comparison, Estimate

SIGNIFICANT = 0.05
METRIC = "dice"
"""What the variants are compared by: the mean Dice over the discs of a case."""


def write(results: Results, path: Path) -> str:
    """Write the table, and return it."""
    base, compared = results.base, results.comparisons(METRIC)
    against = base.name if base is not None else "the base"
    lines = [
        f"# {results.plan.name}",
        "",
        _scans(results),
        "",
        "| variant | differs in | subjects learnt from | parameters | discs found | false discs | Dice (95 %) "
        f"| ASD, mm | Dice, difference to {against} (95 %) | p | p, Holm |",
        "|---|---|--:|--:|--:|--:|---|--:|---|--:|--:|",
        *(_row(result, compared.get(result.name)) for result in results.variants),
        "",
        *_reading(results),
    ]
    text = "\n".join(lines) + "\n"
    files.write_text(path, text)
    return text


def _scans(results: Results) -> str:
    if not results.variants:
        return "No variant is finished."
    cases = results.variants[0].cases
    held_out = f"{len(cases)} held-out cases of {len(set(results.variants[0].subjects))} subjects"
    if not results.on_phantom:
        return f"Data: {held_out} of {_words(results.scans)}."
    phantom = "the digital phantom"
    if results.scans != phantom:
        phantom += f" in {_words(results.scans)}"
    return f"Data: {held_out} of **{phantom}**. No person was scanned; patients may rank the variants otherwise."


def _row(result: Result, compared: tuple[Comparison, float] | None) -> str:
    cells = [
        f"**{result.name}**, base" if not result.changes else result.name,
        "; ".join(f"`{_code(change)}`" for change in result.changes),
        " or ".join(map(str, sorted(set(result.learn_subjects)))),
        _shortened(result.parameters),
        f"{result.total('discs_found')} of {result.total('discs')}",
        str(result.total("false_discs")),
        interval(result.estimate(METRIC)),
        f"{result.estimate('asd_mm').mean:.2f}",
    ]
    if compared is None:
        cells += ["", "", ""]
    else:
        comparison, adjusted = compared
        cells += [difference(comparison), p_value(comparison.p), p_value(adjusted)]
    return f"| {' | '.join(cells)} |"


def _words(words: str) -> str:
    """Words that are nothing but words in Markdown."""
    return html.escape(words).replace("`", "&#96;")


def _code(words: str) -> str:
    """Words between backticks in a cell, neither of which they may end."""
    return " ".join(words.replace("`", "'").replace("|", "\\|").split())


def _reading(results: Results) -> list[str]:
    """What the numbers are, and what they cannot tell."""
    lines = [
        "Dice is a mean over the discs of a case, then over the cases; a missed disc counts 0. In brackets: 95 % "
        "bootstrap interval over subjects.",
    ]
    compared = results.comparisons(METRIC)
    if compared:
        comparison, _ = next(iter(compared.values()))
        n, family = comparison.subjects, len(compared)
        least = min(1.0, comparison.smallest_p * family)
        lines.append(
            f"Differences are means over subjects, the variant minus the base; p is of the two-sided Wilcoxon "
            f"signed-rank test over subjects, then after Holm's correction for {family} "
            f"comparison{'s' if family > 1 else ''}. The smallest p that {n} subjects can give is "
            f"{p_value(comparison.smallest_p)}, and {p_value(least)} after the correction"
            + (": too few subjects for any difference to be significant at 0.05." if least > SIGNIFICANT else ".")
        )
    seeds = results.plan.base.seeds
    trained = "once" if seeds == 1 else f"with {seeds} seeds"
    lines.append(
        f"Each network was trained {trained}: the intervals tell how far other subjects may change the figures, not "
        "how far another seed may."
    )
    return ["\n".join(f"- {line}" for line in lines)]


def interval(estimate: Estimate) -> str:
    """A mean and its interval."""
    if estimate.low is None:
        return f"{estimate.mean:.3f}"
    return f"{estimate.mean:.3f} ({estimate.low:.3f} to {estimate.high:.3f})"


def difference(comparison: Comparison) -> str:
    """A difference and its interval, with signs."""
    if comparison.low is None:
        return f"{comparison.difference:+.3f}"
    return f"{comparison.difference:+.3f} ({comparison.low:+.3f} to {comparison.high:+.3f})"


def p_value(p: float) -> str:
    """Two digits of a p-value."""
    return f"{p:.2g}" if p < 1 else "1"


def _shortened(parameters: int) -> str:
    return f"{parameters / 1e6:.2f} M" if parameters >= 10_000 else str(parameters)
