"""Docstrings as Markdown: the roles of Sphinx become links to the API reference, where it has the name."""

from __future__ import annotations

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:func|class|meth|mod|attr|data|exc):`(?P<short>~?)(?P<name>[\w.]+)`")


def without_roles(text: str) -> str:
    """A docstring whose roles are links, without a warning where they lead nowhere."""

    def link(match: re.Match[str]) -> str:
        name = match["name"]
        shown = name.rpartition(".")[2] if name.startswith("efftasks.") else name
        return f'<autoref identifier="{name}" optional>`{shown}`</autoref>'

    return ROLE.sub(link, text)


class Roles(griffe.Extension):
    """Changes every docstring when it is read."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Called for each object with its docstring."""
        if obj.docstring is not None:
            obj.docstring.value = without_roles(obj.docstring.value)
