"""The verbs as a user calls them, in this process: what they say, how they end, and what they leave on the disk."""

import contextlib
import io
import logging
import os
import shlex
import signal
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from experiments import ablate_context
from ivdjax import cli, command_line
from tests.trust import world

# Each ends with 0 in a sound world, whose root is the working folder. Outputs go to OUT, which is empty.
COMMANDS = {
    "phantom": "phantom OUT/tree --cases 1 --shape 4 40 40 --spacing-mm 12 8 4",
    "check": "check tree --channels fat wat --json OUT/check.json",
    "predict": "predict --weights weights tree OUT/masks --maps",
    "run": "predict run tree OUT/masks",
    "evaluate": "evaluate masks tree --out OUT/scores --subjects table --subject-table subjects.csv",
    "measure": "measure masks --case tree --channels fat wat --out OUT/discs.csv --labels OUT/labels --expected 2",
    "spider": "convert spider spider OUT/tree",
    "nnunet": "convert nnunet Dataset001_Boxes OUT/tree",
    "to-nnunet": "convert to-nnunet tree OUT/Dataset002_Boxes --channels fat wat --subjects table "
    "--subject-table subjects.csv --fold-table folds.csv",
    "report": "report run --out OUT/report.html",
    "compare": "report run other --out OUT/comparison.html",
    "release": "release run OUT/weights",
    "export": "export run OUT/network",
    "bench": "bench --json OUT/figures.json",
    "train": "python -m experiments.tiny --run-dir OUT/run --data.hold-out --data.folds 3 --data.subjects table "
    "--data.subject-table subjects.csv --data.fold-table folds.csv",
    "resume": "python -m experiments.tiny --run-dir half",
    "start": "python -m experiments.tiny --run-dir OUT/run --init-from run",
    "ablate": "python -m experiments.ablate_context --run-dir OUT/ablation --data.hold-out --data.folds 3 --only k1 k3",
}


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int | None
    """Exit code; None where it crashed."""
    out: str
    err: str
    crash: BaseException | None
    warned: tuple[str, ...]
    """Warnings that Python would have printed."""


def call(words: list[str], root: Path) -> Outcome:
    """Run a command of a world, whose root is the working folder."""
    out, err = io.StringIO(), io.StringIO()
    logger = logging.getLogger()
    argv, handlers, level, folder, stop = sys.argv, logger.handlers[:], logger.level, Path.cwd(), signal.SIGTERM
    handler = signal.getsignal(stop)
    main = _main(words, root)
    code, crash = None, None
    logger.handlers[:] = []
    os.chdir(root)
    try:
        with warnings.catch_warnings(record=True) as warned, contextlib.redirect_stdout(out):
            warnings.resetwarnings()
            for quiet in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
                warnings.simplefilter("ignore", quiet)
            with contextlib.redirect_stderr(err):
                main()
    except SystemExit as ended:
        code = ended.code
    except Exception as error:  # what a user would meet as a traceback; whoever asked looks at it
        crash = error
    finally:
        sys.argv = argv
        os.chdir(folder)
        logger.handlers[:] = handlers
        logger.setLevel(level)
        signal.signal(stop, handler)
    return Outcome(code, out.getvalue(), err.getvalue(), crash, tuple(str(w.message) for w in warned))


def words(verb: str, out: Path) -> list[str]:
    """The words of a verb's command, with OUT in its place."""
    return [word.replace("OUT", str(out)) for word in shlex.split(COMMANDS[verb])]


def _main(told: list[str], root: Path) -> Callable[[], None]:
    if told[0] != "python":
        sys.argv = ["ivdjax", *told]
        return cli.main
    sys.argv = told[2:]
    tiny = world.experiment(root)
    if told[2].endswith("ablate_context"):
        bases = {"tiny": replace(tiny, folds="all")}
        return lambda: command_line.ablation("ablate_context", ablate_context.variants, bases, "An ablation.")
    return lambda: command_line.experiment(tiny, "An experiment.")
