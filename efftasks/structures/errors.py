"""The two kinds of failure a command reports in one sentence, without a traceback."""


class UserError(ValueError):
    """A wrong call or a wrong input: exit code 2. The message names the file, the field and what was expected."""


class WorkError(RuntimeError):
    """The call was right and the work failed (a full disk, a verification that does not hold): exit code 1."""
