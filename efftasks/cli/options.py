"""Options that several commands have: overrides of a config's values, and whether the data are looked at first."""

from __future__ import annotations

import argparse
import ast
from typing import Any

__all__ = ["add_options", "add_skip_check", "parse_options"]


def add_skip_check(parser: argparse.ArgumentParser) -> None:
    """Add ``--skip-check``."""
    parser.add_argument(
        "--skip-check", action="store_true", help="do not look at the annotations before the first step (seconds)"
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--cfg-options``."""
    parser.add_argument(
        "--cfg-options", nargs="+", metavar="K=V", default=[], help="override values of the config, keys with dots"
    )


def parse_options(pairs: list[str]) -> dict:
    """``["a.b=1", "c=[2,3]"]`` -> ``{"a.b": 1, "c": [2, 3]}``.

    A value is read as Python writes it; names may stand without quotes: ``classes=(cat,dog)``, ``classes=cat,dog``.
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
    """What a value stands for; lists and tuples may nest."""
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
    """The text cut at the commas that are not inside of brackets or quotes."""
    parts, depth, quote = [""], 0, ""
    for sign in text:
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "'\"" and not parts[-1].strip():
            quote = sign
        depth += (sign in "([{") - (sign in ")]}") if not quote else 0
        if depth < 0:
            raise ValueError("a bracket is closed that was not opened")
        if sign == "," and depth == 0 and not quote:
            parts.append("")
        else:
            parts[-1] += sign
    if depth:
        raise ValueError("a bracket is not closed")
    return [part.strip() for part in parts]
