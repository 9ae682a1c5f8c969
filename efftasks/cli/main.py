"""The ``efftasks`` command: parses the command line, runs the subcommand, and prints errors as one sentence."""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from collections.abc import Sequence

from efftasks.cli import (
    benchmark,
    compare,
    convert,
    dataset,
    export,
    predict,
    quickstart,
    runtimes,
    scale,
    test,
    train,
    zoo,
)
from efftasks.cli.errors import explain
from efftasks.cli.parser import parser_of
from efftasks.cli.quiet import quiet

__all__ = ["build_parser", "main", "parse_args"]

# In the order of the help. Importing these modules imports only the standard library.
COMMANDS = (train, test, compare, predict, export, benchmark, runtimes, scale, convert, zoo, dataset, quickstart)


def build_parser() -> argparse.ArgumentParser:
    """The parser with all subcommands."""
    return parser_of(COMMANDS)


def parse_args(argv: Sequence[str]) -> argparse.Namespace:
    """Parse a command line; on errors print a message and exit with code 2, as argparse does."""
    parser = build_parser()
    words = [word for word in argv if word != "--debug"]
    names = [command.__name__.rpartition(".")[2] for command in COMMANDS]
    if words and not words[0].startswith("-") and words[0] not in names:
        near = difflib.get_close_matches(words[0], names, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names)}"
        parser.error(f"unknown command {words[0]!r}; {hint}")
    args = parser.parse_args(words)
    args.debug = len(words) < len(argv)
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line.

    Args:
        argv: the arguments; None for those of the process.

    Returns:
        The exit code: 0 success, 1 failure, 2 wrong input, 130 interrupted.

    Raises:
        SystemExit: for ``--help`` and ``--version`` (code 0), and if the command line is wrong (code 2).
        Exception: any error, with ``--debug``.
    """
    args = parse_args(sys.argv[1:] if argv is None else argv)
    try:
        with quiet(not args.debug):
            return args.run(args)
    except BrokenPipeError:
        # The reader of the output has ended (`... | head`); keep the interpreter from writing to it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (Exception, KeyboardInterrupt) as error:
        if args.debug:
            raise
        failure = explain(error)
        print(failure.sentence if failure.code == 130 else f"error: {failure.sentence}", file=sys.stderr)
        return failure.code
