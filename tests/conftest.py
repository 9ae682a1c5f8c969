"""What all tests share: one thread, the same seed, the siblings importable, and the folder of real data."""

from __future__ import annotations

import gc
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

# Before torch and numpy: threads beyond one make small tests slower and sums differ.
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import efftasks.compat  # noqa: F401

import cv2
import numpy as np
import pytest
import torch

torch.set_num_threads(1)
cv2.setNumThreads(0)


@pytest.fixture(autouse=True)
def _seed() -> None:
    """Every test starts from the same random state, whatever ran before it."""
    torch.manual_seed(0)
    np.random.seed(0)


@pytest.fixture(scope="module", autouse=True)
def _small_heap() -> None:
    """Leave what is there out of later collections of garbage.

    mmengine collects garbage for each data set that it builds: a third of a second with all the packages of a test.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of small real data sets that EFFTASKS_TEST_DATA names; the test is skipped where it is unset."""
    folder = os.environ.get("EFFTASKS_TEST_DATA")
    if not folder:
        pytest.skip("EFFTASKS_TEST_DATA is not set: no real data here")
    if not Path(folder).is_dir():
        pytest.fail(f"EFFTASKS_TEST_DATA: {folder} is not a folder")
    return Path(folder)


@pytest.fixture(scope="session")
def module_at() -> Callable[[Path], ModuleType]:
    """Imports a Python file that is no test; the same module when asked for it again."""

    def imported(path: Path) -> ModuleType:
        name = "efftasks_tests_" + "_".join(path.relative_to(Path(__file__).parent).with_suffix("").parts)
        if name not in sys.modules:
            spec = importlib.util.spec_from_file_location(name, path)
            assert spec is not None and spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules[name] = module
            spec.loader.exec_module(module)
        return sys.modules[name]

    return imported


@pytest.fixture(scope="session")
def authors(module_at: Callable[[Path], ModuleType]) -> ModuleType:
    """The checkpoints and outputs that were recorded from the authors' code."""
    return module_at(Path(__file__).parent / "models" / "published" / "authors.py")


@pytest.fixture(scope="session")
def families(module_at: Callable[[Path], ModuleType]) -> ModuleType:
    """Models of all base configs, and batches for them: see tests/models/families.py."""
    return module_at(Path(__file__).parent / "models" / "families.py")


@pytest.fixture(scope="session")
def write_sized(module_at: Callable[[Path], ModuleType]) -> Callable[..., Path]:
    """Writes a file whose answers are known by hand, of one size or of any: see tests/runtime/sized_model.py."""
    write: Callable[..., Path] = module_at(Path(__file__).parent / "runtime" / "sized_model.py").write_sized
    return write


@pytest.fixture
def server(module_at: Callable[[Path], ModuleType], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """A server in the place of the authors' addresses, and a cache of its own: see tests/zoo/file_server.py."""
    with module_at(Path(__file__).parent / "zoo" / "file_server.py").serving() as server:
        monkeypatch.setenv("EFFTASKS_ZOO_MIRROR", server.url)
        monkeypatch.setenv("EFFTASKS_CACHE", str(tmp_path / "cache"))
        yield server


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """A video of three frames of 48 x 32, grey at 0, 80 and 160; the test is skipped where OpenCV writes none."""
    path = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 5, (48, 32))
    if not writer.isOpened():
        pytest.skip("this OpenCV writes no video")
    for i in range(3):
        writer.write(np.full((32, 48, 3), 80 * i, np.uint8))
    writer.release()
    return path
