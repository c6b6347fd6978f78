"""The ways a command ends early; each is one line and an exit code."""

LETTERS = 800  # of a message; what a file holds may be quoted in it


class _Told(Exception):  # noqa: N818
    """A message on one line, whatever the names and contents that it quotes; what cannot be printed is escaped."""

    def __init__(self, message: str) -> None:
        line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in " ".join(message.split()))
        super().__init__(line if len(line) <= LETTERS else f"{line[: LETTERS // 2]} ... {line[-LETTERS // 2 + 5 :]}")


class UsageError(_Told):
    """A wrong option, name or combination of settings. The command line prints it and exits with 2."""


class DataError(_Told):
    """A file or folder that cannot be used: names the file, what is wrong and what to do. Exits with 1."""


class Preempted(BaseException):
    """The machine is wanted back (SIGTERM). What is done is safe, and the same command goes on. Exits with 75.

    No Exception, since a signal may raise it anywhere, within code that mends what it can of its own.
    """


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception, Python's or XLA's, says that there is not enough memory."""
    told = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in told or "resource_exhausted" in told
