"""What griffe calls while it reads docstrings for the API reference."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import griffe

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # griffe loads this file by its path

from tools.docs.docstring_roles import without_roles


class Roles(griffe.Extension):
    """Changes every docstring when it is read."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Called for each object with its docstring."""
        if obj.docstring is not None:
            obj.docstring.value = without_roles(obj.docstring.value)
