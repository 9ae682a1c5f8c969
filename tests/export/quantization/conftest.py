from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def networks(module_at: Callable[[Path], ModuleType]) -> ModuleType:
    """The module networks.py beside this file."""
    return module_at(Path(__file__).with_name("networks.py"))
