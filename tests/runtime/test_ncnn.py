"""Files of ncnn as the runtime loads them; the convolution is written by hand, as ncnn's own documents have it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from efftasks import Predictor
from efftasks.runtime.backends.ncnn import BACKEND
from efftasks.structures.errors import UserError

pytest.importorskip("ncnn", reason="the extra ncnn is not installed")

# A 1x1 convolution of 3 to 2 channels with biases; its output twice, the second one first in the file.
GRAPH = """7767517
4 5
Input images 0 1 images
Convolution conv 1 1 images a 0=2 1=1 5=1 6=6
Split split 1 2 a b sums
Sigmoid last 1 1 b chances
"""
WEIGHTS = np.array([[1, 10, 100], [-1, 0.001, 0]], np.float32)
BIASES = np.array([0.5, 0.25], np.float32)


def write(folder: Path) -> Path:
    path = folder / "model.param"
    path.write_text(GRAPH)
    path.with_suffix(".bin").write_bytes(bytes(4) + WEIGHTS.tobytes() + BIASES.tobytes())
    return path


@pytest.mark.parametrize("threads", [None, 1, 2])
def test_outputs_by_name_in_32_bits(threads, tmp_path):
    session = BACKEND.open(write(tmp_path), threads)
    assert session.inputs == ("images",) and set(session.outputs) == {"sums", "chances"} and session.metadata is None
    images = np.random.default_rng(0).random((3, 3, 5, 7), dtype=np.float32)
    expected = np.einsum("oc,nchw->nohw", WEIGHTS.astype(np.float64), images) + BIASES[:, None, None]
    outputs = session.run(images)  # three images, one by one
    np.testing.assert_allclose(outputs["sums"], expected, rtol=1e-6)  # numbers of 16 bits are 5e-4 off
    np.testing.assert_allclose(outputs["chances"], 1 / (1 + np.exp(-expected)), atol=1e-6)
    again = session.run(images[:1] + 1)
    np.testing.assert_allclose(outputs["sums"], expected, rtol=1e-6)  # what it gave stays
    assert not np.allclose(again["sums"], expected[:1])


@pytest.mark.parametrize(
    ("part", "content"),
    [(".param", b"no graph"), (".param", b""), (".param", GRAPH[:60].encode()), (".bin", b""), (".bin", bytes(9))],
)
def test_a_broken_file_is_named(part, content, tmp_path):
    path = write(tmp_path)
    path.with_suffix(part).write_bytes(content)
    fault = "corrupt, or not a file that ncnn reads" if content else r"the file is empty \(0 bytes\)"
    with pytest.raises(UserError, match=rf"model\{part}: {fault}"):
        BACKEND.open(path)


def test_a_missing_file_is_named(tmp_path):
    path = write(tmp_path)
    with pytest.raises(UserError, match=r"model\.param: neither metadata 'efftasks' inside nor model\.json beside it"):
        Predictor(path)
    path.with_suffix(".bin").unlink()
    with pytest.raises(UserError, match=r"model\.bin: no such file"):
        Predictor(path)
