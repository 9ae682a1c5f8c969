"""The models of toys.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def toys(module_at: Callable[[Path], ModuleType]) -> ModuleType:
    """The module toys.py beside this file; the test is skipped without torchao."""
    pytest.importorskip("torchao")
    return module_at(Path(__file__).with_name("toys.py"))
