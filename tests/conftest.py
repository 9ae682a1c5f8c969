"""What all tests share: one thread, the same seed, the siblings importable, and the folder of real data."""

from __future__ import annotations

import os
from pathlib import Path

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


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of small real data sets that EFFTASKS_TEST_DATA names; the test is skipped where it is unset."""
    folder = os.environ.get("EFFTASKS_TEST_DATA")
    if not folder:
        pytest.skip("EFFTASKS_TEST_DATA is not set: no real data here")
    if not Path(folder).is_dir():
        pytest.fail(f"EFFTASKS_TEST_DATA: {folder} is not a folder")
    return Path(folder)


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
