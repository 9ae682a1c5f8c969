"""What the tests of pose heads share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def reference(module_at: Callable[[Path], ModuleType]) -> ModuleType:
    """The head and the inputs that were recorded with the authors' code."""
    return module_at(Path(__file__).parent / "reference.py")
