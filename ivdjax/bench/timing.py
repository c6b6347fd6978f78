"""Timing: several things in turn, so that what else the machine does hits all of them alike."""

import time
from collections.abc import Callable
from typing import Any

import jax


def shortest(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Shortest of the seconds that each call took, in `rounds` rounds through all of them.

    Arrays that a call returns are waited for. A first round, with compilation, does not count. The shortest time is
    the one that other work on the machine disturbed least.
    """
    taken = {name: float("inf") for name in calls}
    for number in range(rounds + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            jax.block_until_ready(call())
            if number:
                taken[name] = min(taken[name], time.perf_counter() - start)
    return taken
