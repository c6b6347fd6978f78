"""SIGTERM, which clusters send before they take a machine back: a training saves first, anything else stops at once.

What a run has done so far is in its folder and complete, so that stopping is safe everywhere. The exit code is 75, the
EX_TEMPFAIL of sysexits.h: the same command, given again, goes on.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import jax
from jax.experimental import multihost_utils

from ivdjax.errors import Preempted


def stop_on_sigterm() -> None:
    """From now on SIGTERM raises `Preempted` in this process, wherever it is."""
    signal.signal(signal.SIGTERM, _stop)


def _stop(_signal: int, _frame: FrameType | None) -> None:
    # Some schedulers ask twice; stopping takes a moment and is not to be stopped.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Preempted("stopped by SIGTERM; the same command goes on")


@contextmanager
def deferred() -> Iterator[Callable[[int], bool]]:
    """Hold SIGTERM back; yield a function that takes the step and says whether to save and stop.

    With several processes all of them get the same answer at the same step, whichever of them was signalled; the
    function must then be called by all, for the same steps.
    """
    if jax.process_count() > 1:
        # jax.distributed has a handler of its own that tells the other processes.
        yield multihost_utils.reached_preemption_sync_point
        return
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield lambda step: False  # signals are the main thread's
        return
    before = signal.signal(signal.SIGTERM, lambda *_: asked.set())
    try:
        yield lambda step: asked.is_set()
    finally:
        signal.signal(signal.SIGTERM, before)
