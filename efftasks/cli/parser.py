"""The argument parser, from the modules of the commands."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Protocol

from efftasks import __version__

__all__ = ["Command", "parser_of"]

EPILOG = """CONFIG is a path, or the name of a config that ships with the package.
Exit code: 0 success, 1 the work failed, 2 a wrong call or input.
"""


class Command(Protocol):
    """A module with a command."""

    def add_parser(self, subparsers: argparse._SubParsersAction) -> None:
        """Add the subcommand. Its parser sets ``run``, which takes the parsed arguments and returns an exit code."""
        ...


def parser_of(commands: Sequence[Command]) -> argparse.ArgumentParser:
    """Build the parser with these subcommands, in the order of the help."""
    parser = argparse.ArgumentParser(
        prog="efftasks",
        description="NMS-free vision models for small hardware, from one config to a verified file.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"efftasks {__version__}")
    parser.add_argument(
        "--debug",
        action="store_true",
        help="show tracebacks of errors, and everything that libraries print and log (anywhere in the command line)",
    )
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command in commands:
        command.add_parser(subparsers)
    return parser
