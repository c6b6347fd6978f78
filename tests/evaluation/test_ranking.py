import numpy as np
import pytest
from scipy import stats

from ivdjax.evaluation import ranking

SUBJECTS = [str(i // 5) for i in range(40)]


def test_known_rankings():
    dice = np.linspace(0.5, 0.97, 40)
    perfect, none = ranking.rank(dice**2, dice, SUBJECTS), ranking.rank([0.9] * 40, dice, SUBJECTS)
    assert perfect.spearman == pytest.approx(1)
    assert (perfect.low, perfect.high) == pytest.approx((1, 1))
    assert perfect.auroc == 1
    assert (perfect.looked_at, perfect.bad_looked_at) == (4, 4)
    assert perfect.aurc == pytest.approx(perfect.aurc_best)
    assert none.spearman is None
    assert none.auroc == 0.5
    assert none.bad_looked_at == 0  # what all have in common finds nothing
    assert none.aurc > none.risk  # equal ones are taken in the order that does not flatter
    assert perfect.bad == none.bad == (dice < 0.8).sum()
    reverse = ranking.rank(-dice, dice, SUBJECTS)
    assert (reverse.spearman, reverse.auroc) == (pytest.approx(-1), 0)


def test_the_figures_are_those_of_other_tools():
    rng = np.random.default_rng(0)
    dice = rng.uniform(0.6, 1, 40).round(2)
    confidence = (dice + rng.normal(0, 0.1, 40)).round(2)
    found = ranking.rank(confidence, dice, SUBJECTS)
    assert found.spearman == pytest.approx(stats.spearmanr(confidence, dice).statistic)
    assert -1 < found.low < found.spearman < found.high < 1
    pairs = [(b, g) for b in confidence[dice < 0.8] for g in confidence[dice >= 0.8]]
    assert found.auroc == pytest.approx(np.mean([(b < g) + 0.5 * (b == g) for b, g in pairs]))


def test_so_few_discs_cannot_tell():
    few = ranking.rank(np.linspace(0.8, 0.9, 14), np.linspace(0.7, 0.95, 14), ["a"] * 7 + ["b"] * 7)
    assert (few.spearman, few.low, few.high) == (None, None, None)
    assert few.auroc == 1
    assert ranking.rank([0.9] * 14, [0.9] * 10 + [0.3] * 4, ["a"] * 14).auroc is None
    with pytest.raises(ValueError, match="do not describe"):
        ranking.rank([], [], [])


def test_the_risk_falls_as_the_doubtful_are_set_aside():
    kept = ranking.kept_dice(np.array([0.9, 0.1, 0.5]), np.array([1.0, 0.1, 0.4]))
    np.testing.assert_allclose(kept, [1.0, 0.7, 0.5])
