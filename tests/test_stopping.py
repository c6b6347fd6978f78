import gc
import os
import signal
import subprocess
import sys
import time

import pytest

from ivdjax import command_line, stopping
from ivdjax.errors import DataError


def end(work):
    with pytest.raises(SystemExit) as stop:
        command_line.end(work)
    return stop.value.code


def ask(number):
    os.kill(os.getpid(), number)
    time.sleep(5)  # it comes while this waits
    raise AssertionError("nothing came")


class Garbage:
    """Its end runs where Python can raise nothing."""

    def __init__(self, work):
        self.work = work

    def __del__(self):
        self.work()


@pytest.fixture(autouse=True)
def _as_it_was():
    hook, before = sys.unraisablehook, signal.getsignal(signal.SIGTERM)
    yield
    sys.unraisablehook = hook
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(
    ("number", "code", "line"),
    [
        (signal.SIGTERM, 75, "ivdjax: stopped by SIGTERM; the same command goes on"),
        (signal.SIGINT, 130, "ivdjax: stopped; the same command goes on from where it can"),
    ],
)
def test_a_signal_stops_a_command_with_one_line_also_where_python_drops_exceptions(number, code, line, capsys):
    assert end(lambda: ask(number)) == code
    assert capsys.readouterr().err == f"{line}\n"

    def dropped():
        held = Garbage(lambda: ask(number))
        del held
        gc.collect()
        time.sleep(5)
        raise AssertionError("the signal was lost")

    assert end(dropped) == code
    assert capsys.readouterr().err == f"{line}\n"


def test_what_is_no_signal_is_told_as_ever():
    told = []
    sys.unraisablehook = told.append
    stopping.Unraised.install()
    stopping.Unraised.install()

    def fail():
        raise DataError("dropped")

    held = Garbage(fail)
    del held
    assert [str(one.exc_value) for one in told] == ["dropped"]


def test_too_little_memory_is_one_line(capsys):
    for error in (MemoryError(), RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 92997633744 bytes")):

        def work(error=error):
            raise error

        assert end(work) == 1
        assert capsys.readouterr().err.startswith("ivdjax: out of memory; choose a smaller --train.batch-size")
    with pytest.raises(RuntimeError, match="other"):
        command_line.end(lambda: (_ for _ in ()).throw(RuntimeError("other")))


def test_a_process_that_is_stopped_while_threads_compile_ends_at_once():
    program = """
import os, signal, threading, time
import jax, jax.numpy as jnp
from ivdjax import command_line, stopping

def compile(n):
    jax.jit(lambda x: sum(jnp.sin(x * i) @ jnp.cos(x + i) for i in range(n)))(jnp.ones((64, 64)))

def work():
    for n in (150, 160, 170):
        threading.Thread(target=compile, args=(n,)).start()
    time.sleep(1.5)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(5)

command_line.end(work, leave=stopping.leave)
"""
    environment = {**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "false"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "ivdjax: stopped; the same command goes on from where it can\n")
