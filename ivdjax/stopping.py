"""SIGTERM and Ctrl-C stop a command with an exception, wherever it is, even where Python drops exceptions."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from ivdjax.errors import Preempted

_AGAIN_S = 0.05


def on_sigterm() -> None:
    """From now on SIGTERM raises `Preempted` in the main thread."""
    signal.signal(signal.SIGTERM, _stop)


def stopped() -> Preempted:
    """What SIGTERM raises."""
    return Preempted("stopped by SIGTERM; the same command goes on")


def _stop(_signal: int, _frame: FrameType | None) -> None:
    # Some schedulers ask twice; stopping takes a moment and is not to be stopped.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise stopped()


def leave(code: int) -> None:
    """End a process that was stopped, at once: threads that still compile would meet what exiting takes apart."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    jax = sys.modules.get("jax")
    if jax is not None and jax.distributed.is_initialized():
        sys.exit(code)  # which tells the other processes
    os._exit(code)


class Unraised:
    """What becomes of exceptions that Python can only print, as those in callbacks of the garbage collector.

    A signal may have raised one there: it is sent again. What threads of a failed save or restore say of each other is
    passed over, since the failure itself is raised; they may say it until the process ends, so this stays.
    """

    @classmethod
    def install(cls) -> None:
        """Hear them from now on."""
        if not isinstance(sys.unraisablehook, cls):
            sys.unraisablehook = cls(sys.unraisablehook)

    def __init__(self, otherwise: Callable[[Any], object]) -> None:
        """Tell `otherwise` of all that is neither."""
        self._otherwise = otherwise

    def __call__(self, told: Any) -> None:
        """Take one."""
        error = told.exc_value
        if isinstance(error, Preempted | KeyboardInterrupt):
            _send_again(signal.SIGTERM if isinstance(error, Preempted) else signal.SIGINT)
            return
        closed = isinstance(error, RuntimeError) and str(error) == "Event loop is closed"
        given_up = error is not None and isinstance(error.__cause__, GeneratorExit)
        if not closed and not given_up:
            self._otherwise(told)


def _send_again(number: signal.Signals) -> None:
    """Once the callback is over, in which it would be lost again."""
    if number == signal.SIGTERM and signal.getsignal(number) is signal.SIG_IGN:
        on_sigterm()
    again = threading.Timer(_AGAIN_S, os.kill, (os.getpid(), number))
    again.daemon = True
    again.start()
