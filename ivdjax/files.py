"""Writing files so that a reader never meets half of one, and reading back what was written."""

import difflib
import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ivdjax.errors import DataError, UsageError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`; on success it becomes `path` at once, on failure it is removed.

    The temporary name ends as `path` does, since some writers choose their format by it.

    Raises:
        DataError: it cannot be written: no space, no permission, a folder of that name.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".partial-", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        partial = Path(name)
        try:
            yield partial
            umask = os.umask(0)
            os.umask(umask)
            partial.chmod(0o666 & ~umask)
            with partial.open("rb") as written:
                os.fsync(written.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise _unwritable(path, error) from error


@contextmanager
def making(folder: Path) -> Iterator[Path]:
    """Yield a folder beside `folder` to fill; on success it becomes `folder` at once, on failure it is removed.

    Raises:
        UsageError: `folder` is there and is not an empty folder.
        DataError: it cannot be written.
    """
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UsageError(f"{folder}: exists and is not an empty folder; name a new one, or remove this one first")
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".partial-{folder.name}-", dir=folder.parent))
        try:
            yield partial
            umask = os.umask(0)
            os.umask(umask)
            partial.chmod(0o777 & ~umask)
            partial.rename(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise _unwritable(folder, error) from error


def _unwritable(path: Path, error: OSError) -> DataError:
    try:
        writable(path.parent)
    except DataError as better:
        return better
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    remedy = "make room, or choose another place" if full else "choose another place"
    return DataError(f"{path}: cannot be written: {error.strerror or error}; {remedy}")


def writable(folder: Path) -> None:
    """See that files can be made in a folder, or the folder itself where it is missing, before much work is done.

    Raises:
        DataError: they cannot.
    """
    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir():
        raise DataError(f"{there}: is a file where a folder is needed; choose another place")
    if not os.access(there, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        raise DataError(f"{there}: may not be written to; choose another place, or ask for the permission")


def not_of_run(path: Path) -> None:
    """See that an output does not replace, or lie among, files of a run.

    Raises:
        UsageError: it would.
    """
    path = Path(os.path.realpath(path))
    for folder in (path, *path.parents):
        if (folder / "config.json").exists() and (folder / "checkpoints").is_dir():
            part = path.relative_to(folder).parts[:1]
            if not part or (folder / part[0]).exists():
                raise UsageError(f"{path}: is of the run {folder}, which it would change; choose another place")


def not_within(out: Path, source: Path) -> None:
    """See that an output does not lie among the scans that it is made from, which could then not be told from it.

    Raises:
        UsageError: it would.
    """
    if source.is_dir() and Path(os.path.realpath(out)).is_relative_to(os.path.realpath(source)):
        raise UsageError(f"{out}: lies in {source}, among what is read; name a folder elsewhere")


def named(path: Path, suffix: str, what: str) -> None:
    """See that a file to write is named as what it is, so that no other kind of file is replaced by it.

    Raises:
        UsageError: its name ends otherwise.
        DataError: a folder has this name.
    """
    if path.suffix != suffix:
        raise UsageError(f"{path}: is where {what} would go; name a file that ends in {suffix}")
    if path.is_dir():
        raise DataError(f"{path}: is a folder; name a file for {what}")
    writable(path.parent)


def near(path: Path) -> str:
    """Where a path that is not there goes wrong, and what is there of a name like it; to be put after "no such"."""
    there = path
    while not os.path.lexists(there) and there != there.parent:
        missing, there = there.name, there.parent
    if there == path:
        return " (a link that leads nowhere)" if there.is_symlink() else ""
    if not there.is_dir():
        return f", since {there} is a file"
    try:
        close = difflib.get_close_matches(missing, [path.name for path in there.iterdir()], 1, 0.75)
    except OSError:
        return ""
    if close:
        return f"; did you mean {there / close[0]}?"
    return f" ({there if there != Path() else Path.cwd()} is there, {missing} is not)" if there != path.parent else ""


def same(a: Path, b: Path) -> bool:
    """Whether two names lead to one place, whether or not it is there."""
    return os.path.realpath(a) == os.path.realpath(b)


def remove(path: Path) -> None:
    """Remove a file, if it is there.

    Raises:
        DataError: it cannot be removed.
    """
    try:
        path.unlink(missing_ok=True)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise DataError(f"{path}: is out of date and cannot be removed: {error.strerror}; remove it") from error


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` in UTF-8, whole or not at all."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` to `path` as indented JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        DataError: the file is missing or is not a JSON object.
    """
    return _read_json(path, dict, "object")


def read_json_list(path: Path) -> list[Any]:
    """Read a JSON array; errors are as of `read_json`."""
    return _read_json(path, list, "array")


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON's")


def _read_json(path: Path, kind: type, called: str) -> Any:
    try:
        value = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_number)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}); is {path.parent} a run's folder, and is the run finished?"
        ) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: is not JSON ({error}); restore it, or evaluate or start the run again") from error
    if not isinstance(value, kind):
        raise DataError(f"{path}: is not a JSON {called}; restore it, or evaluate or start the run again")
    return value
