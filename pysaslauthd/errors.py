"""The faults this package raises on purpose; a refusal is a value (see `model`)."""


class MalformedMessage(Exception):
    """A peer sent bytes that are no message; the text is safe to log."""


class CannotCheck(Exception):
    """A stored password cannot be compared here; the text says why, and has no part of it."""


class StoreError(Exception):
    """A file of secrets cannot be used: *path* says which, *problem* what is wrong with it."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path = path
        self.problem = problem


class StoreMissing(StoreError):
    """There is no file at *path*."""


class StoreCorrupt(StoreError):
    """The bytes at *path* are not a whole database of a kind we can read."""


class StartupError(Exception):
    """The daemon cannot start; the lines say what is wrong and what to do.

    *status* is the exit code: 1, or 2 where another instance already runs
    (protocols/saslauthd-cli.md section 2).
    """

    def __init__(self, *lines: str, status: int = 1) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines
        self.status = status
