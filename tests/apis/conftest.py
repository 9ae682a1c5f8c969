from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def painted(module_at: Callable[[Path], ModuleType]) -> ModuleType:
    """The module painted.py beside this file."""
    return module_at(Path(__file__).with_name("painted.py"))
