"""The ways a command ends early; each is one line and an exit code."""


class UsageError(Exception):
    """A wrong option, name or combination of settings. The command line prints it and exits with 2."""


class DataError(Exception):
    """A file or folder that cannot be used: names the file, what is wrong and what to do. Exits with 1."""


class Preempted(BaseException):
    """The machine is wanted back (SIGTERM). What is done is safe, and the same command goes on. Exits with 75.

    No Exception, since a signal may raise it anywhere, within code that mends what it can of its own.
    """
