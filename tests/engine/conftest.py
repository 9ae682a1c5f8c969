from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from efftasks.datasets.shapes import write_shapes


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set small enough to train on in a test."""
    return write_shapes(tmp_path_factory.mktemp("data") / "shapes", train=16, val=4, size=64, seed=1)


@pytest.fixture(scope="session")
def toy(module_at: Callable[[Path], ModuleType]) -> ModuleType:
    """The module toy.py beside this file; it also runs as a program, in other processes."""
    return module_at(Path(__file__).with_name("toy.py"))
