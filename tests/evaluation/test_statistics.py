"""Intervals, comparisons and agreement against published examples, answers worked by hand, and their laws."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ivdjax.evaluation.statistics import bland_altman, compare, estimate, holm

# Peak expiratory flow, l/min, of 17 subjects by two meters: the first readings in Bland and Altman, Lancet 1986;1:307.
WRIGHT = [494, 395, 516, 434, 476, 557, 413, 442, 650, 433, 417, 656, 267, 478, 178, 423, 427]
MINI = [512, 430, 520, 428, 500, 600, 364, 380, 658, 445, 432, 626, 260, 477, 259, 350, 451]

# Darwin's crossed and self-fertilised maize, eighths of an inch, as Wilcoxon tested them in 1945.
MAIZE = [6, 8, 14, 16, 23, 24, 28, 29, 41, -48, 49, 56, 60, -67, 75]

scores = st.floats(0, 1).map(lambda x: round(x, 3))


def test_the_interval_of_two_groups_is_their_means():
    # Of two groups both are drawn with chance 1/2, and either alone with 1/4: far more than 2.5 %.
    found = estimate([0.8, 0.9, 0.4], ["a", "a", "b"])
    assert found.mean == pytest.approx(0.7)
    assert found.std == pytest.approx(np.std([0.8, 0.9, 0.4], ddof=1))
    assert (found.low, found.high) == pytest.approx((0.4, 0.85))


def test_the_interval_is_that_of_the_mean_of_a_large_sample():
    values = np.random.default_rng(1).normal(0.9, 0.02, 200)
    half = 1.96 * values.std(ddof=1) / np.sqrt(200)
    found = estimate(values)
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=half / 10)


def test_one_group_says_nothing_of_the_interval_and_one_value_nothing_of_the_spread():
    several = estimate([0.8, 0.9], ["a", "a"])
    assert (several.low, several.high) == (None, None)
    assert several.std == pytest.approx(0.1 / np.sqrt(2))
    one = estimate([0.8])
    assert (one.mean, one.std, one.low, one.high) == (0.8, None, None, None)


@given(st.lists(st.tuples(scores, st.sampled_from("abcd")), min_size=2, max_size=12), st.integers(-3, 3))
@settings(max_examples=20, deadline=None)
def test_the_draws_are_the_same_for_every_metric_and_tool(rows, shift):
    values, groups = zip(*rows, strict=True)
    here, there = estimate(values, groups), estimate(np.add(values, shift), groups)
    assert there.mean == pytest.approx(here.mean + shift)
    if here.low is not None:
        assert (there.low, there.high) == pytest.approx((here.low + shift, here.high + shift))
        assert here.low <= here.mean + 1e-12
        assert here.mean <= here.high + 1e-12


def test_comparison_of_maize_as_wilcoxon_published_it():
    found = compare(MAIZE, [0] * 15)
    assert found.p == pytest.approx(
        0.041259765625
    )  # 1352 of 2^15 assignments of signs; Wilcoxon read 0.041 off a table
    assert found.difference == pytest.approx(314 / 15)
    assert found.subjects == 15
    assert found.smallest_p == 2 / 2**15


def test_a_comparison_counts_each_subject_once():
    a, b = [0.9, 0.8, 0.7, 0.5], [0.8, 0.8, 0.5, 0.6]
    found = compare(a, b, ["x", "x", "y", "z"])
    # Subjects' mean differences: 0.05, 0.2, -0.1. Ranks 1, 3, 2: W+ is 4 of 6, and 3 of 8 assignments reach it.
    assert found.difference == pytest.approx(0.05)
    assert found.p == pytest.approx(0.75)
    assert (found.subjects, found.smallest_p) == (3, 0.25)
    # Three scans of one subject bring nothing that one scan of it does not.
    assert compare([*a, 0.7, 0.7], [*b, 0.5, 0.5], ["x", "x", "y", "z", "y", "y"]) == found


def test_few_subjects_cannot_be_significant():
    for n in range(1, 8):
        found = compare(np.linspace(0.5, 0.6, n), np.linspace(0.1, 0.3, n))
        assert found.p == found.smallest_p == min(1, 2 / 2**n)
    assert compare([0.5], [0.1]).low is None


def test_equal_runs_and_equal_subjects():
    same = compare([0.9, 0.8], [0.9, 0.8])
    assert (same.difference, same.low, same.high, same.p) == (0, 0, 0, 1)
    # 0.1 + 0.2 is not 0.3 in binary: rounding is no difference.
    assert compare([0.1 + 0.2, 0.7, 0.5], [0.3, 0.7, 0.5]).p == 1
    # A subject without a difference is left out of the test, not of the mean: 2 / 2^3 from three of four.
    part = compare([0.9, 0.8, 0.7, 0.6], [0.9, 0.7, 0.5, 0.3])
    assert part.p == pytest.approx(0.25)
    assert part.difference == pytest.approx(0.15)
    assert part.subjects == 4


def test_tied_differences_are_tested_exactly():
    # By hand: ranks 2, 2, 2, 4; the negative one holds 2 of 10, and 4 of 16 assignments hold as little: 0 and three 2s.
    assert compare([1, 1, -1, 2], [0] * 4).p == pytest.approx(2 * 4 / 16)


def test_many_subjects_take_the_normal_approximation():
    rng = np.random.default_rng(0)
    assert compare(rng.normal(1, 0.5, 60), np.zeros(60)).p < 1e-6
    assert 0.05 < compare(rng.choice([-1.0, 1.0], 60), np.zeros(60)).p <= 1


@given(st.lists(st.tuples(scores, scores), min_size=1, max_size=8))
@settings(max_examples=25, deadline=None)
def test_a_comparison_is_antisymmetric_and_exact(rows):
    a, b = zip(*rows, strict=True)
    forth, back = compare(a, b), compare(b, a)
    assert back.difference == pytest.approx(-forth.difference)
    assert back.p == pytest.approx(forth.p)
    assert forth.smallest_p <= forth.p + 1e-12
    assert forth.p <= 1
    assert forth.p == pytest.approx(all_signs_p(np.round(np.subtract(a, b), 6)))


def all_signs_p(differences):
    """The signed-rank test by trying every assignment of signs, ties sharing their mean rank."""
    size = np.abs(differences[differences != 0])
    rank = [np.sum(size < s) + (np.sum(size == s) + 1) / 2 for s in size]
    seen = np.dot(rank, differences[differences != 0] > 0)
    sums = np.array([np.dot(rank, signs) for signs in itertools.product([0, 1], repeat=len(rank))])
    return min(1, 2 * min(np.mean(sums <= seen), np.mean(sums >= seen)))


def test_holm_as_published():
    # The example in the documentation of pingouin.holm.
    assert holm([0.50, 0.003, 0.32, 0.054, 0.0003]) == pytest.approx([0.64, 0.012, 0.64, 0.162, 0.0015])
    # By hand: 4 x 0.005, 3 x 0.01, 2 x 0.03, and 0.04 no less than the one before it.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.04]) == pytest.approx([0.04])
    assert holm([0.9, 0.8]) == pytest.approx([1, 1])
    assert holm([]).size == 0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_holm_is_monotone_ordered_and_no_less_than_raw(p_values, random):
    adjusted = holm(p_values)
    assert (adjusted >= p_values).all()
    assert (adjusted <= np.minimum(1, len(p_values) * np.array(p_values))).all()
    assert (np.diff(adjusted[np.argsort(p_values)]) >= 0).all()
    order = random.sample(range(len(p_values)), len(p_values))
    assert (holm([p_values[i] for i in order]) == adjusted[order]).all()


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.floats(0.001, 0.999))
def test_holm_rejects_what_stepping_down_rejects(p_values, level):
    rejected = set()
    for step, i in enumerate(np.argsort(p_values, kind="stable")):
        if p_values[i] * (len(p_values) - step) > level:
            break
        rejected.add(int(i))
    assert set(np.flatnonzero(holm(p_values) <= level)) == rejected


def test_agreement_of_two_meters_as_published():
    found = bland_altman(WRIGHT, MINI)
    assert found.n == 17
    assert found.bias == pytest.approx(-2.1, abs=0.05)
    assert found.std == pytest.approx(38.8, abs=0.05)
    # The paper takes 2 SD for 1.96: -79.7 and 75.5, one SD being 38.8.
    assert found.limit_low == pytest.approx(-79.7 + 0.04 * 38.8, abs=0.1)
    assert found.limit_high == pytest.approx(75.5 - 0.04 * 38.8, abs=0.1)
    # The paper's interval of the bias, by Student's t, is -22.0 to 17.8.
    assert found.bias_low == pytest.approx(-22.0, abs=3)
    assert found.bias_high == pytest.approx(17.8, abs=3)


def test_agreement_of_few_pairs_and_of_one_subject():
    one = bland_altman([3.0], [2.5])
    assert (one.bias, one.n) == (0.5, 1)
    assert one.std is one.limit_low is one.limit_high is one.bias_low is one.bias_high is None
    subject = bland_altman([3.0, 4.0], [2.0, 2.0], ["a", "a"])
    assert (subject.bias, subject.bias_low) == (1.5, None)
    assert subject.limit_high == pytest.approx(1.5 + 1.96 * np.sqrt(0.5))
    constant = bland_altman([2.0, 3.0, 4.0], [1.0, 2.0, 3.0])
    assert (constant.bias, constant.std, constant.limit_low, constant.bias_high) == (1, 0, 1, 1)


def test_the_bias_of_discs_is_no_surer_than_their_subjects():
    rng = np.random.default_rng(0)
    subject = np.repeat(rng.normal(size=8), 7)
    groups = [f"s{i}" for i in range(8) for _ in range(7)]
    alone, grouped = bland_altman(subject, np.zeros(56)), bland_altman(subject, np.zeros(56), groups)
    assert grouped.bias == alone.bias
    # Seven copies of a value: the interval over 56 of them is narrower by the root of seven.
    ratio = (grouped.bias_high - grouped.bias_low) / (alone.bias_high - alone.bias_low)
    assert ratio == pytest.approx(np.sqrt(7), rel=0.1)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: estimate([]), "one or more"),
        (lambda: estimate([0.5, float("nan")]), "finite"),
        (lambda: estimate([0.5, 0.6], ["a"]), "a group each"),
        (lambda: compare([0.5, 0.6], [0.5]), "paired"),
        (lambda: compare([0.5], [float("inf")]), "finite"),
        (lambda: bland_altman([], []), "one or more"),
        (lambda: holm([0.5, 1.1]), "p-values"),
        (lambda: holm([float("nan")]), "p-values"),
    ],
)
def test_what_cannot_be_computed_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
