"""Command lines of the modules in `experiments`, and how every command ends."""

import dataclasses
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from ivdjax import parsing, programs, stopping
from ivdjax.config import Experiment
from ivdjax.errors import DataError, Preempted, UsageError, out_of_memory

if TYPE_CHECKING:
    from ivdjax.ablation.plan import Variants

# What only a run needs is imported when it runs, so that --help does not wait for it.


@dataclass(frozen=True)
class _ExperimentCommand:
    """What an experiment module takes: the experiment's own settings, and which process of how many this is."""

    experiment: Annotated[Experiment, tyro.conf.arg(name="")]
    distributed: str | None = None
    """Train in several processes, on one machine or many that share their files: `auto` where jax knows the cluster
    (Slurm, Open MPI, Cloud TPU), or HOST:PORT of the first process. None is one process."""
    processes: int | None = None
    """How many processes there are; with HOST:PORT."""
    process: int | None = None
    """Which of them this one is, from 0; with HOST:PORT."""


def experiment(default: Experiment, module_doc: str) -> None:
    """Run an experiment module's default, changed as the command line says."""

    def command() -> int:
        told = parsing.parse(
            _ExperimentCommand,
            sys.argv[1:],
            prog=f"python -m experiments.{default.name}",
            default=_ExperimentCommand(default),
            description=module_doc,
        )
        from ivdjax import memory, run

        memory.keep_freed()
        _join(told)
        run.run(told.experiment)
        return 0

    end(command, leave=stopping.leave)


@dataclass(frozen=True)
class _AblationCommand(_ExperimentCommand):
    """What an ablation module takes: all that an experiment does, for its base and so for all variants, and more."""

    list: bool = False
    """List the variants, how far each is and what differs from the base."""
    only: tuple[str, ...] = ()
    """Variants to run, by name; all by default."""
    dry_run: bool = False
    """List them, and estimate from a few timed steps how long what is missing takes; with --submit print the jobs."""
    submit: Literal["slurm", "sky"] | None = None
    """Hand the variants to a cluster, a job each: a Slurm array, or SkyPilot jobs."""
    part: Literal["slurm", "sky"] | None = None
    """Run one variant, as a job of a cluster does."""


def ablation(name: str, variants: "Variants", bases: Mapping[str, Experiment], module_doc: str) -> None:
    """Run an ablation module's variants of a base, changed as the command line says.

    Args:
        name: of the module.
        variants: from a base to its variants.
        bases: by the word that the command line may begin with; the first is taken without one.
        module_doc: what --help says.
    """

    def command() -> int:
        words = sys.argv[1:]
        first = next(iter(bases))
        if words and not words[0].startswith("-") and words[0] not in bases:
            meant = parsing.nearest(words[0], list(bases))
            raise UsageError(f"{words[0]}: is no base to vary; choose {', '.join(bases)}{meant}")
        chosen = words.pop(0) if words and words[0] in bases else first
        title = name if chosen == first else f"{name}-{chosen}"
        default = _AblationCommand(dataclasses.replace(bases[chosen], name=title))
        known = (
            f"{module_doc}\nThe command line may begin with the base to vary: {', '.join(bases)} (default: {first})."
        )
        told = parsing.parse(
            _AblationCommand, words, prog=f"python -m experiments.{name}", default=default, description=known
        )
        from ivdjax import memory
        from ivdjax.ablation import estimate, execute, submit
        from ivdjax.ablation.plan import plan

        memory.keep_freed()
        laid = plan(title, variants, told.experiment)
        variants_chosen = laid.choose(told.only)
        if told.list:
            print("\n".join(estimate.describe(variants_chosen)))
        elif told.submit is not None:
            submit.submit(laid, variants_chosen, submit.passed_on(sys.argv[1:]), told.submit, told.dry_run)
        elif told.dry_run:
            estimate.announce(variants_chosen)
        else:
            _join(told)
            if told.part is not None:
                execute.execute_part(laid, variants_chosen, told.part)
            else:
                execute.execute(laid, variants_chosen)
        return 0

    end(command, leave=stopping.leave)


def _join(told: _ExperimentCommand) -> None:
    """Join the other processes of the run, if there are any, and mind SIGTERM."""
    from ivdjax.training import distributed, preemption

    if told.distributed is not None:
        distributed.start(told.distributed, told.processes, told.process)
        need_devices()
    elif told.processes is not None or told.process is not None:
        raise UsageError("--processes and --process belong to --distributed HOST:PORT; pass all three or none")
    else:
        need_devices()
    preemption.stop_on_sigterm()


def need_devices() -> None:
    """See that the devices that are asked for are there; jax would say it later, and at length.

    Raises:
        UsageError: they are not.
    """
    import jax

    try:
        jax.devices()
    # The second is what jax raises where the plug-in of CUDA is not installed.
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition(" (set JAX_PLATFORMS")[0].replace("\n", " ")
        raise UsageError(
            f"JAX_PLATFORMS={os.environ.get('JAX_PLATFORMS', '')}: there is no such device that jax can use"
            f"{f' ({reason})' if reason else ''}; install ivdjax with the extra `cuda` or `tpu`, or unset "
            "JAX_PLATFORMS to take what is there"
        ) from error


def end(
    command: Callable[[], int], reword: Callable[[str], str] = str, leave: Callable[[int], object] = sys.exit
) -> None:
    """Exit with the command's code; bad data is one line on stderr and 1, wrong use one line and 2.

    Args:
        command: what to do.
        reword: what becomes of lines before they are printed.
        leave: how to exit where a signal has stopped the command.
    """
    # A shell's >&- leaves none; what would be said is then lost, and nothing else.
    sys.stdout, sys.stderr = (stream or open(os.devnull, "w") for stream in (sys.stdout, sys.stderr))  # noqa: SIM115,PTH123
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine("%(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    # Their notes on every save would drown the run's own lines; what fails is raised, too, and told once.
    for noisy in ("absl", "asyncio", "orbax"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    for chatty in ("jax", "matplotlib"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache")  # it then compiles
    warnings.filterwarnings("ignore", r"coroutine '.*' was never awaited", RuntimeWarning)  # one of Orbax's
    programs.keep()
    in_main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    if in_main:
        stopping.on_sigterm()
    stopping.Unraised.install()
    try:
        code = command()
        sys.stdout.flush()
    except (DataError, UsageError, Preempted) as error:
        print(f"ivdjax: {one_line(reword(str(error)))}", file=sys.stderr)
        code = {DataError: 1, UsageError: 2, Preempted: 75}[type(error)]
    except KeyboardInterrupt:
        print("ivdjax: stopped; the same command goes on from where it can", file=sys.stderr)
        code = 130
    except BrokenPipeError:
        # Whoever read has read enough, as in `ivdjax check ROOT | head`; what is left must not complain at the exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        smaller = "--train.batch-size, --data.window or --predict.batch-size"
        print(f"ivdjax: out of memory; choose a smaller {smaller}, or a larger machine", file=sys.stderr)
        code = 1
    except OSError as error:
        # The disk of the standard output, or of a file that a library wrote.
        where = error.filename if error.filename is not None else "the output"
        fault = f"{where}: {error.strerror or error}; mend that, then start again"
        print(f"ivdjax: {one_line(fault)}", file=sys.stderr)
        code = 1
    finally:
        if before is not None and in_main:
            signal.signal(signal.SIGTERM, before)
    if code in (75, 130):
        leave(code)
    sys.exit(code)


def one_line(text: str) -> str:
    """The text with what a name may hold but a terminal should not be sent, such as line breaks, spelt out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


class _OneLine(logging.Formatter):
    """Log lines that stay lines."""

    def format(self, record: logging.LogRecord) -> str:
        return one_line(super().format(record))
