"""The two ways a command can fail that are the reader's to mend; each is one line and an exit code."""


class UsageError(Exception):
    """A wrong option, name or combination of settings. The command line prints it and exits with 2."""


class DataError(Exception):
    """A file or folder that cannot be used: names the file, what is wrong and what to do. Exits with 1."""
