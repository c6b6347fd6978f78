"""Timing: several things in turn, so that what else the machine does hits all of them alike."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax


def shortest(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Shortest of the seconds that each call took, in `rounds` rounds through all of them.

    Arrays that a call returns are waited for. A first round, with compilation, does not count. The shortest time is
    the one that other work on the machine disturbed least.
    """
    return least({name: partial(seconds, call) for name, call in calls.items()}, rounds)


def least(timings: dict[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """The same for functions that take the time themselves and return the seconds."""
    for timing in timings.values():
        timing()
    taken = [{name: timing() for name, timing in timings.items()} for _ in range(rounds)]
    return {name: min(each[name] for each in taken) for name in timings}


def seconds(call: Callable[[], Any]) -> float:
    """Seconds of one call, until the arrays that it returns are there."""
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start
