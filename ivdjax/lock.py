"""A lock on a file that ends with the process that holds it, however that ends: a killed run leaves none behind."""

import fcntl
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ivdjax.errors import UsageError

logger = logging.getLogger("ivdjax")


@contextmanager
def held(path: Path, busy: str, wait: bool = False) -> Iterator[None]:
    """Hold the lock of `path`, a file of its own that stays there.

    It holds between machines, too, where their shared file system knows locks (NFS does); where it knows none, a
    warning says so.

    Args:
        path: the file; its folder is made if it is missing.
        busy: what to tell, and to do, where another process holds it; who that is comes after it.
        wait: wait for that process instead.

    Raises:
        UsageError: another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except (BlockingIOError, PermissionError) as error:
            file.seek(0)
            raise UsageError(f"{busy} ({file.read().strip() or 'another process'})") from error
        except OSError as error:
            logger.warning("%s: cannot be locked (%s); see to it that no two runs share it", path, error.strerror)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield
