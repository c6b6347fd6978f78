"""Whether the confidence in discs ranks them: are those that came out badly the ones it is low for?"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from ivdjax.evaluation.statistics import ends

# A disc with a lower Dice is one to look at again.
GOOD_DICE = 0.8
# Of fewer discs on one side of that, nothing is said of how well they are told from the others;
LEAST_EITHER = 5
# and of fewer discs at all, or fewer subjects, nothing of how they are ranked.
LEAST_DISCS, LEAST_SUBJECTS = 10, 3
# The share of the discs, the least confident ones, that a reader may be ready to look at again.
LOOKED_AT = 0.1

RESAMPLES = 2000


@dataclass(frozen=True)
class Ranking:
    """How the confidence in predicted discs goes with their Dice; None is what so few discs cannot tell."""

    discs: int
    """Predicted discs."""
    subjects: int
    """Their subjects."""
    bad: int
    """Those with a Dice below `GOOD_DICE`, false ones included."""
    spearman: float | None
    """C. Spearman's rank correlation of confidence and Dice."""
    low: float | None
    """Lower end of its 95 % bootstrap interval over subjects."""
    high: float | None
    """Upper end of it."""
    auroc: float | None
    """Chance that a bad disc has less confidence than a good one: the area under the ROC curve."""
    looked_at: int
    """Number of discs in the `LOOKED_AT` with the least confidence."""
    bad_looked_at: int
    """Bad ones among them."""
    aurc: float
    """Area under the risk-coverage curve (Y. Geifman and R. El-Yaniv, arXiv:1705.08500), the risk being 1 - Dice."""
    aurc_best: float
    """The same, were they ranked by their Dice."""
    risk: float
    """Mean of 1 - Dice: what the area is where the ranking tells nothing."""


def rank(confidence: Sequence[float], dice: Sequence[float], subjects: Sequence[str]) -> Ranking:
    """Compare the confidence in one or more discs with their Dice.

    Args:
      confidence: one value a predicted disc.
      dice: of the reference disc it belongs to, 0 for a false one; in the same order.
      subjects: whose disc each is.

    Raises:
      ValueError: no disc, or not one value of each a disc.
    """
    confidence, dice = np.asarray(confidence, np.float64), np.asarray(dice, np.float64)
    if not len(confidence) or not len(confidence) == len(dice) == len(subjects):
        raise ValueError(f"{len(confidence)}, {len(dice)} and {len(subjects)} values do not describe the same discs")
    names, group = np.unique(subjects, return_inverse=True)
    bad = dice < GOOD_DICE
    enough = len(dice) >= LEAST_DISCS and len(names) >= LEAST_SUBJECTS
    spearman = _spearman(confidence, dice) if enough else None
    low, high = (None, None) if spearman is None else _interval(confidence, dice, group)
    looked_at = math.ceil(LOOKED_AT * len(dice))
    # Where confidences are equal the worse counts as kept: a ranking is credited with what it tells alone.
    least = np.lexsort((-dice, confidence))[:looked_at]
    return Ranking(
        discs=len(dice),
        subjects=len(names),
        bad=int(bad.sum()),
        spearman=spearman,
        low=low,
        high=high,
        auroc=_auroc(confidence, bad) if min(bad.sum(), (~bad).sum()) >= LEAST_EITHER else None,
        looked_at=looked_at,
        bad_looked_at=int(bad[least].sum()),
        aurc=float(np.mean(1 - kept_dice(confidence, dice))),
        aurc_best=float(np.mean(1 - kept_dice(dice, dice))),
        risk=float(np.mean(1 - dice)),
    )


def kept_dice(confidence: np.ndarray, dice: np.ndarray) -> np.ndarray:
    """Mean Dice of the 1, 2, ... and of all N discs with the most confidence."""
    order = np.lexsort((dice, -np.asarray(confidence)))
    return np.cumsum(np.asarray(dice)[order]) / np.arange(1, len(order) + 1)


def _interval(confidence: np.ndarray, dice: np.ndarray, group: np.ndarray) -> tuple[float | None, float | None]:
    rng, subjects = np.random.default_rng(0), int(group.max()) + 1
    of = [np.flatnonzero(group == subject) for subject in range(subjects)]
    drawn = []
    for _ in range(RESAMPLES):
        at = np.concatenate([of[subject] for subject in rng.integers(subjects, size=subjects)])
        if (value := _spearman(confidence[at], dice[at])) is not None:
            drawn.append(value)
    if len(drawn) < RESAMPLES / 2:
        return None, None
    return ends(drawn)


def _spearman(a: np.ndarray, b: np.ndarray) -> float | None:
    """Spearman's correlation; None where all values of one side are equal."""
    ranks_2xN = np.stack([stats.rankdata(a), stats.rankdata(b)])
    ranks_2xN -= ranks_2xN.mean(axis=1, keepdims=True)
    size = np.sqrt((ranks_2xN**2).sum(axis=1).prod())
    return float(ranks_2xN[0] @ ranks_2xN[1] / size) if size else None


def _auroc(confidence: np.ndarray, bad: np.ndarray) -> float:
    """By the ranks (H. B. Mann and D. R. Whitney, Annals of Mathematical Statistics 1947;18:50); ties count a half."""
    good, n = ~bad, int((~bad).sum())
    above = stats.rankdata(confidence)[good].sum() - n * (n + 1) / 2
    return float(above / (n * bad.sum()))
