"""Whose a run's folder is, and who works in it: settings, split and scans stay what they were when it began."""

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ivdjax import config, files, lock
from ivdjax.config import Experiment
from ivdjax.data.dataset import Case
from ivdjax.data.splits import Member
from ivdjax.errors import UsageError

# Settings that change how a run goes, but not what comes out of it.
_FREE = (
    *("data.threads ", "data.cache ", "data.residency "),
    *("train.steps_per_call ", "train.parallel ", "train.tracker "),
)


@contextmanager
def at_work(folder: Path) -> Iterator[None]:
    """Work in a run's folder, alone; of the processes of one run the first does this for all.

    Raises:
        UsageError: another command works in it.
    """
    busy = f"{folder}: another command is at work in it; let it end, or choose another folder with --run-dir"
    with lock.held(folder / ".lock", busy):
        yield


def refuse_strange(folder: Path, experiment: Experiment) -> None:
    """Refuse a folder that is neither empty nor of a run of this experiment.

    Raises:
        UsageError: it is one.
        DataError: its settings cannot be read.
    """
    if (folder / "config.json").exists():
        refuse_another(folder, experiment)
    elif folder.exists() and (not folder.is_dir() or any(path.name != ".lock" for path in folder.iterdir())):
        raise UsageError(f"{folder}: is neither empty nor a run's folder; choose another with --run-dir")


def refuse_another(folder: Path, experiment: Experiment) -> None:
    """Refuse the folder of a run of another experiment.

    Raises:
        UsageError: it is one.
        DataError: its settings cannot be read.
    """
    # What changes how fast it goes, but not what comes out, is not part of what it is.
    found = files.read_json(folder / "config.json")
    changed = [line for line in config.differences(found, _kept(experiment)) if not line.startswith(_FREE)]
    if changed:
        raise UsageError(
            f"{folder}: holds a run with other settings ({'; '.join(changed)}); choose another folder with --run-dir"
        )


def claim(folder: Path, experiment: Experiment) -> bool:
    """Make the run's folder this experiment's, or refuse it if it is another's; whether it was nobody's before."""
    refuse_strange(folder, experiment)
    if (folder / "config.json").exists():
        return False
    files.write_json(folder / "config.json", _kept(experiment))
    return True


def unclaim(folder: Path) -> None:
    """Leave a folder to nobody again that was claimed for a run which then could not begin."""
    shutil.rmtree(folder, ignore_errors=True)


def _kept(experiment: Experiment) -> dict:
    """The settings of an experiment, as a run's folder keeps them."""
    wanted = config.to_dict(experiment)
    # Where the run lies is not part of what it is: a folder may be moved and then resumed. The scans and tables stay
    # where they are, from wherever the path to them was given.
    wanted["run_dir"] = None
    for name in ("root", "subject_table", "fold_table"):
        if wanted["data"][name] is not None:
            wanted["data"][name] = str(Path(wanted["data"][name]).resolve())
    return wanted


def keep_splits(folder: Path, cases: Sequence[Case], members: Sequence[Member]) -> None:
    """Write which cases each network learns from, or see that it is still the same: tables and folders may change.

    Raises:
        UsageError: it is not.
    """
    path = folder / "splits.json"
    split = [
        {
            "seed": member.seed,
            "learn": [cases[case].name for case in member.learn],
            "learn_subjects": len({cases[case].subject for case in member.learn}),
            "held_out": [cases[case].name for case in member.held_out],
        }
        for member in members
    ]
    text = json.dumps(split, indent=2) + "\n"
    if not path.exists():
        files.write_text(path, text)
    elif path.read_text(encoding="utf-8") != text:
        raise UsageError(
            f"{folder}: holds a run with another split ({path.name}); its cases or a table have changed since: restore "
            "them, or choose another folder with --run-dir"
        )
