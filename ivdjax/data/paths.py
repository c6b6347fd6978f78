"""Which files of a folder may be read, and which names in it may become names of files and cells of tables.

A folder that came from elsewhere may hold links, and names, that lead out of it. Files that a link puts into a folder
from outside are refused, unless IVDJAX_LINKS=follow in the environment says that this is meant, as in a tree that is
made of links to an archive. Output never follows a link: a file is written beside its place and then put there.
"""

import functools
import logging
import os
from pathlib import Path

from ivdjax.errors import DataError, UsageError

LINKS = "IVDJAX_LINKS"

# A cell that begins with one of these is a formula to a spreadsheet (OWASP, CSV Injection).
_FORMULA = ("=", "+", "-", "@")

logger = logging.getLogger("ivdjax")


def follow() -> bool:
    """Whether links out of a folder are followed.

    Raises:
      UsageError: IVDJAX_LINKS is neither `follow` nor `refuse`.
    """
    told = os.environ.get(LINKS, "refuse")
    if told not in ("follow", "refuse"):
        raise UsageError(f"{LINKS}={told}: is follow or refuse (the default); set one of them")
    return told == "follow"


def leads_out(path: Path, root: Path) -> bool:
    """Whether a file or folder in `root` is a link to what is not in it."""
    return path.is_symlink() and not path.resolve().is_relative_to(root.resolve())


def check_link(path: Path, root: Path) -> None:
    """Refuse a file that a link puts into a folder from outside.

    Raises:
      DataError: it is one, and links are not followed.
    """
    if leads_out(path, root) and not follow():
        raise DataError(
            f"{path}: is a link out of {root}, to {path.resolve()}; set {LINKS}=follow if that is meant, or copy it"
        )


@functools.cache
def pass_over(folder: Path) -> None:
    """Say once that a folder is not entered."""
    logger.warning("%s: is a linked folder and passed over; set %s=follow to enter it", folder, LINKS)


def check_name(name: str, path: Path) -> None:
    """Refuse a name that would lead out of a folder, or be more than a name in a table or on a terminal.

    Args:
      name: of a case or a subject.
      path: where it was found.

    Raises:
      DataError: it is no plain name.
    """
    if wrong := fault(name):
        raise DataError(f"{path}: {name!r} {wrong}; rename it")


def fault(name: str) -> str:
    """What keeps a name from being that of a case or a subject; empty for a plain name."""
    if not name.isprintable():
        return "holds a character that cannot be printed"
    if name in ("", ".", "..") or "/" in name:
        return "is no plain name"
    if name.startswith(_FORMULA):
        return f"begins with {name[0]}, which makes a formula of it in a spreadsheet"
    return ""
