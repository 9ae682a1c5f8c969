from pathlib import Path

import pytest

from efftasks.datasets.shapes import write_shapes


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set small enough to train on in a test."""
    return write_shapes(tmp_path_factory.mktemp("data") / "shapes", train=16, val=4, size=64, seed=1)
