"""One of two ways: only the one that is taken runs, and an exported file has both."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from efftasks.export.exporters.onnx import write_graph
from efftasks.ops.branches import either


class TwoWays(nn.Module):
    """Doubles or convolves, as the mean of the images says."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, images: Tensor) -> Tensor:
        def convolve(x: Tensor) -> tuple[Tensor, ...]:
            return (self.conv(x),)

        (result,) = either(images.mean((0, 1, 2, 3)) < 0.5, lambda x: (x * 2,), convolve, (images,))
        return result


def test_only_the_one_that_is_taken_runs() -> None:
    module, calls = TwoWays(), []
    module.conv.register_forward_hook(lambda *_: calls.append(1))
    dark = torch.full((2, 3, 4, 4), 0.2)
    assert torch.equal(module(dark), dark * 2) and not calls
    bright = module(dark + 0.5)
    assert calls == [1] and torch.equal(bright, module.conv(dark + 0.5))


def test_a_file_has_both(tmp_path: Path) -> None:
    module = TwoWays().eval()
    path = write_graph(module, torch.zeros(1, 3, 4, 4), tmp_path / "model.onnx")
    assert [node.op_type for node in onnx.load(path).graph.node].count("If") == 1
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for value in (0.2, 0.7):
        images = torch.full((1, 3, 4, 4), value)
        (result,) = session.run(None, {"images": images.numpy()})
        np.testing.assert_allclose(result, module(images).detach().numpy(), atol=1e-6)


def test_a_trace_is_refused() -> None:
    with pytest.raises(RuntimeError, match="cannot be traced"):
        torch.jit.trace(TwoWays(), torch.zeros(1, 3, 4, 4))
