"""Hand the variants of an ablation to a cluster: a Slurm array, or a SkyPilot job each. They do the scheduling."""

import shlex
import subprocess
from collections.abc import Sequence
from typing import Literal

from ivdjax.ablation.plan import Plan, Variant
from ivdjax.errors import UsageError

Cluster = Literal["slurm", "sky"]

_SET_BY_LAUNCHERS = ("--distributed", "--process")  # and --processes


def submit(plan: Plan, chosen: Sequence[Variant], arguments: Sequence[str], cluster: Cluster, dry: bool) -> None:
    """Submit a job for each unfinished variant, and print what was submitted.

    Args:
        plan: the ablation.
        chosen: its variants, of which those that are finished are left out.
        arguments: of the ablation's command line, without those that say what to submit.
        cluster: Slurm: an array, and a job after it that writes the table. SkyPilot: a managed job a variant.
        dry: only print the commands.

    Raises:
        UsageError: the cluster's command is missing or refuses, or an argument is not for its jobs.
    """
    left = [variant for variant in chosen if not variant.finished]
    if not left:
        print(f"{plan.name}: nothing is left to run; the same command without --submit writes the table")
        return
    names = [variant.name for variant in left]
    if options := [word for word in arguments if word.startswith(_SET_BY_LAUNCHERS)]:
        raise UsageError(f"--submit {cluster}: the jobs set {options[0].partition('=')[0]} themselves; leave it out")
    if cluster == "slurm":
        _slurm(plan, names, [variant.name for variant in chosen], arguments, dry)
    else:
        _sky(plan, left, arguments, dry)


def passed_on(words: Sequence[str]) -> list[str]:
    """The words of a command line without those that say what to submit: --submit, --dry-run and --only."""
    return _without(words, ("--submit", "--only", "--dry-run"))


def _without(words: Sequence[str], options: Sequence[str]) -> list[str]:
    kept, skipping = [], False
    for word in words:
        if word.startswith("--"):
            skipping = word.partition("=")[0].replace("_", "-") in options
        if not skipping:
            kept.append(word)
    return kept


def _slurm(plan: Plan, names: Sequence[str], tabled: Sequence[str], arguments: Sequence[str], dry: bool) -> None:
    module = plan.name.split("-")[0]
    script = ["launch/slurm.sh", module, *arguments]
    array = ["sbatch", "--parsable", f"--array=0-{len(names) - 1}", *script, "--only", *names, "--part", "slurm"]
    job = _run(array, dry) or "ARRAY"
    # Of the first command's answer, JOB;CLUSTER, the job; the table waits for all of its tasks to end well, and is
    # given up where one does not.
    after = [f"--dependency=afterok:{job.split(';')[0]}", "--kill-on-invalid-dep=yes"]
    _run(["sbatch", "--parsable", *after, *script, "--only", *tabled], dry)
    if not dry:
        print(f"{plan.name}: submitted {', '.join(names)}, and a job that then writes the table to {plan.folder}")


def _sky(plan: Plan, left: Sequence[Variant], arguments: Sequence[str], dry: bool) -> None:
    module = plan.name.split("-")[0]
    # The words travel as one, which the machine's shell takes apart at the spaces; where runs lie is the launcher's.
    arguments = _without(arguments, ("--run-dir",))
    if torn := [word for word in arguments if shlex.quote(word) != word]:
        raise UsageError(
            f"--submit sky: {torn[0]!r} would not arrive as one word; name it without spaces and special characters"
        )
    for variant in left:
        told = " ".join([*arguments, "--only", variant.name, "--part", "sky"])
        name = f"{plan.name}-{variant.name}".replace("_", "-")
        settings = [f"EXPERIMENT={module}", f"ARGUMENTS={told}", f"RUN={plan.folder.name}/{variant.name}"]
        words = [word for setting in settings for word in ("--env", setting)]
        _run(["sky", "jobs", "launch", "--yes", "--detach-run", "--name", name, *words, "launch/sky-gpu.yaml"], dry)
    if not dry:
        print(
            f"{plan.name}: submitted {', '.join(variant.name for variant in left)}; when they have ended, the same "
            f"command without --submit, where their runs are, with --run-dir RUNS/{plan.folder.name}, writes the table"
        )


def _run(command: Sequence[str], dry: bool) -> str:
    """Print a command, or run it and return what it says."""
    if dry:
        print(shlex.join(command))
        return ""
    try:
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise UsageError(f"--submit: there is no {command[0]} on this machine; submit from one that has it") from error
    except subprocess.CalledProcessError as error:
        reason = (error.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise UsageError(f"--submit: {command[0]} refused ({reason})") from error
    return done.stdout.strip()
