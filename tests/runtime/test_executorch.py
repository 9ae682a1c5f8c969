"""Files of ExecuTorch as the runtime loads them, written by ExecuTorch's own functions."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from efftasks import Predictor
from efftasks.runtime.backends.executorch import BACKEND
from efftasks.structures.errors import UserError

pytest.importorskip("executorch", reason="the extra executorch is not installed")

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = np.array([[1, 10, 100], [-1, 0.001, 0]], np.float32)
BIASES = np.array([0.5, 0.25], np.float32)
NAMES = {"input": {"name": "images"}, "outputs": [{"name": "sums"}, {"name": "best"}]}


class Network(nn.Module):
    """A 1x1 convolution of 3 to 2 channels, and where its first channel is largest."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1)
        self.conv.weight.data = torch.from_numpy(WEIGHTS)[..., None, None]
        self.conv.bias.data = torch.from_numpy(BIASES)  # type: ignore[union-attr]

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        sums = self.conv(images)
        return sums, sums[:, 0].flatten(1).topk(1, dim=1).indices


@pytest.fixture(scope="module")
def contents() -> dict[bool, bytes]:
    """The file without a description, and with names of input and outputs."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    files = {}
    for named in (False, True):
        program = torch.export.export(Network().eval(), (torch.zeros(1, 3, 5, 7),))
        methods = {"efftasks": json.dumps(NAMES)} if named else None
        lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()], constant_methods=methods)
        files[named] = lowered.to_executorch().buffer
    return files


@pytest.fixture
def path(contents, tmp_path) -> Path:
    path = tmp_path / "model.pte"
    path.write_bytes(contents[True])
    return path


def test_outputs_by_the_names_of_the_description(path, contents):
    session = BACKEND.open(path)
    assert session.inputs == ("images",) and session.outputs == ("sums", "best")
    assert session.metadata is not None and json.loads(session.metadata) == NAMES
    images = np.random.default_rng(0).random((3, 3, 5, 7), dtype=np.float32)
    expected = np.einsum("oc,nchw->nohw", WEIGHTS.astype(np.float64), images) + BIASES[:, None, None]
    outputs = session.run(images)  # three images, one by one
    np.testing.assert_allclose(outputs["sums"], expected, rtol=1e-6, atol=1e-6)
    assert outputs["best"].dtype == np.int64
    assert outputs["best"].ravel().tolist() == expected[:, 0].reshape(3, -1).argmax(1).tolist()
    again = session.run(images[:1] + 1)
    np.testing.assert_allclose(outputs["sums"], expected, rtol=1e-6, atol=1e-6)  # what it gave stays
    assert not np.allclose(again["sums"], expected[:1])

    path.write_bytes(contents[False])
    session = BACKEND.open(path)
    assert session.metadata is None and session.inputs == ("input0",) and session.outputs == ("output0", "output1")
    np.testing.assert_array_equal(session.run(images)["output0"], outputs["sums"])
    with pytest.raises(UserError, match=r"model\.pte: neither metadata 'efftasks' inside nor model\.json beside it"):
        Predictor(path)


@pytest.mark.parametrize("keep", [3, 100, -200])
def test_a_broken_file_is_named(path, keep):
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match=r"model\.pte: corrupt, or not a file that ExecuTorch reads"):
        BACKEND.open(path)


THREADS = """
import sys
from efftasks.runtime.backends.executorch import BACKEND
from executorch.extension.pybindings import portable_lib
path = sys.argv[1]
for threads in (1, 3):  # what was loaded is no longer
    session = BACKEND.open(path, threads)
    assert portable_lib._threadpool_get_thread_count() == threads
    del session
first, same, any_number = BACKEND.open(path, 2), BACKEND.open(path, 2), BACKEND.open(path)
try:
    BACKEND.open(path, 1)
except Exception as error:
    print(type(error).__name__, error)
assert portable_lib._threadpool_get_thread_count() == 2
"""


def test_a_process_has_one_number_of_threads(path):
    """In a process of its own: others may have files loaded."""
    done = subprocess.run([sys.executable, "-c", THREADS, str(path)], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("UserError threads: got 1, expected 2: ExecuTorch has one number of threads")
