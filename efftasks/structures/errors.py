"""The two kinds of failure a command reports in one sentence, without a traceback."""

__all__ = ["UserError", "WorkError", "first_line"]


class UserError(ValueError):
    """A wrong call or a wrong input: exit code 2. The message names the file, the field and what was expected."""


class WorkError(RuntimeError):
    """The call was right and the work failed (a full disk, a verification that does not hold): exit code 1."""


def first_line(error: Exception) -> str:
    """The first line of a library's error that is not empty, for a message; "no message" where there is none."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "no message")
