"""SIGTERM, which clusters send before they take a machine back: a training saves first, anything else stops at once.

What a run has done so far is in its folder and complete, so that stopping is safe everywhere. The exit code is 75, the
EX_TEMPFAIL of sysexits.h: the same command, given again, goes on.

One of several processes that stopped by itself would leave the others waiting for it. There SIGTERM stops what a
process does by itself, and the others hear of it when they next meet (`distributed.together`); a training that they do
together is jax's own business, whose processes agree on a step.
"""

import ctypes
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import jax
from jax.experimental import multihost_utils

from ivdjax import stopping


class _Several:
    """How one of several processes takes SIGTERM."""

    def __init__(self) -> None:
        self._asked, self._alone = False, False
        # jax.distributed has a handler of its own, in C, that tells the other processes; Python does not know of it.
        self._libc_signal = ctypes.CDLL(None).signal
        self._libc_signal.argtypes, self._libc_signal.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
        self._of_jax = self._libc_signal(signal.SIGTERM, None)
        self._listen()

    def _listen(self) -> None:
        signal.signal(signal.SIGTERM, self._take)

    def _take(self, _signal: int, _frame: FrameType | None) -> None:
        self._asked = True
        if self._alone:
            self._alone = False
            raise stopping.stopped()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """What this process does by itself: SIGTERM stops it, now or if it came before."""
        self._alone = True
        try:
            if self._asked:
                raise stopping.stopped()
            yield
        finally:
            self._alone = False

    @contextmanager
    def of_jax(self) -> Iterator[None]:
        """What all do together, step by step: SIGTERM is for jax, even if it came before."""
        self._libc_signal(signal.SIGTERM, self._of_jax)
        if self._asked:
            os.kill(os.getpid(), signal.SIGTERM)
        try:
            yield
        finally:
            self._listen()


_several: _Several | None = None


def stop_on_sigterm() -> None:
    """From now on SIGTERM raises `Preempted` in this process, wherever it is, or of several where it can."""
    global _several
    if jax.distributed.is_initialized() and jax.process_count() > 1:
        _several = _Several()
    else:
        stopping.on_sigterm()


@contextmanager
def raised() -> Iterator[None]:
    """Of several processes, let SIGTERM raise `Preempted` in this one within; the others must be told."""
    if _several is None:
        yield
    else:
        with _several.alone():
            yield


@contextmanager
def deferred() -> Iterator[Callable[[int], bool]]:
    """Hold SIGTERM back; yield a function that takes the step and says whether to save and stop.

    With several processes all of them get the same answer at the same step, whichever of them was signalled; the
    function must then be called by all, for the same steps.
    """
    if jax.process_count() > 1:
        if _several is None:
            yield multihost_utils.reached_preemption_sync_point
        else:
            with _several.of_jax():
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
