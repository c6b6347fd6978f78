import pytest

from ivdjax.bench import timing


def test_the_least_of_the_rounds_counts_but_for_the_first():
    taken = {"a": iter([0.1, 3.0, 2.0, 4.0]), "b": iter([9.0, 5.0, 6.0, 7.0])}
    order = []

    def take(name):
        order.append(name)
        return next(taken[name])

    timings = {name: lambda name=name: take(name) for name in taken}
    assert timing.least(timings, rounds=3) == {"a": 2.0, "b": 5.0}
    assert order == ["a", "b"] * 4


def test_calls_are_made_in_every_round():
    calls = []
    taken = timing.shortest({"call": lambda: calls.append(1)}, rounds=2)
    assert len(calls) == 3
    assert taken["call"] == pytest.approx(0, abs=1)
