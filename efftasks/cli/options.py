"""Options of several commands: overrides of config values, whether data are checked first, and the width."""

from __future__ import annotations

import argparse
import ast
from typing import Any

__all__ = ["add_options", "add_skip_check", "add_width", "parse_options"]


def add_skip_check(parser: argparse.ArgumentParser) -> None:
    """Add ``--skip-check``."""
    parser.add_argument(
        "--skip-check",
        action="store_true",
        help="do not check the annotations before the first step (it takes seconds)",
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--cfg-options``."""
    parser.add_argument(
        "--cfg-options", nargs="+", metavar="K=V", default=[], help="override values of the config, keys with dots"
    )


def add_width(parser: argparse.ArgumentParser) -> None:
    """Add ``--width``."""
    parser.add_argument(
        "--width",
        type=float,
        metavar="W",
        help="which width of a checkpoint of several (Slimmable), such as 0.5 (default: the largest)",
    )


def parse_options(pairs: list[str]) -> dict:
    """``["a.b=1", "c=[2,3]"]`` -> ``{"a.b": 1, "c": [2, 3]}``.

    Values are Python literals; strings may have no quotes: ``classes=(cat,dog)``, ``classes=cat,dog``.
    """
    from efftasks.structures.errors import UserError

    options = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise UserError(f"--cfg-options: got {pair!r}, expected KEY=VALUE")
        try:
            options[key] = _value(value.strip())
        except ValueError as error:
            raise UserError(f"--cfg-options: {key}: got {value!r}, {error}") from error
    return options


def _value(text: str) -> Any:
    """Parse a value; lists and tuples may be nested."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        pass
    if text[:1] in ("[", "("):
        if text[-1] != {"[": "]", "(": ")"}[text[0]]:
            raise ValueError("a bracket is not closed")
        items = [_value(part) for part in _parts(text[1:-1]) if part]
        return items if text[0] == "[" else tuple(items)
    if "," in text:
        return [_value(part) for part in _parts(text) if part]
    return {"true": True, "false": False}.get(text.lower(), text.strip("'\""))


def _parts(text: str) -> list[str]:
    """Split at commas that are not inside brackets or quotes."""
    parts, depth, quote = [""], 0, ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"" and not parts[-1].strip():
            quote = character
        depth += (character in "([{") - (character in ")]}") if not quote else 0
        if depth < 0:
            raise ValueError("a bracket is closed that was not opened")
        if character == "," and depth == 0 and not quote:
            parts.append("")
        else:
            parts[-1] += character
    if depth:
        raise ValueError("a bracket is not closed")
    return [part.strip() for part in parts]
