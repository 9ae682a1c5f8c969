import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from efftasks.datasets.shapes import write_shapes


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set small enough to train on in a test."""
    return write_shapes(tmp_path_factory.mktemp("data") / "shapes", train=16, val=4, size=64, seed=1)


@pytest.fixture(scope="session")
def toy() -> ModuleType:
    """The module toy.py beside this file; it also runs as a program, in other processes."""
    name = "efftasks_tests_engine_toy"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name("toy.py"))
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]
