"""The pose head as an ONNX graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from efftasks.compression.folding import inference_model
from efftasks.export.exporters.onnx import write_graph

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


class Answer(torch.nn.Module):
    """From images to detections, with average pooling for a backbone."""

    def __init__(self, head: Any) -> None:
        super().__init__()
        self.head = head

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        finest = torch.nn.functional.avg_pool2d(images, 16).repeat(1, 43, 1, 1)[:, :128]
        detections = self.head.decode(self.head((finest, torch.nn.functional.avg_pool2d(finest, 2))))
        return tuple(part for part in detections if part is not None)


@pytest.mark.slow
def test_the_exported_graph_answers_the_same_without_suppression(reference: Any, tmp_path: Path) -> None:
    changes = dict(decoder__num_layers=2, selection__num_queries=10)
    model = Answer(inference_model(reference.small(**changes))).eval()
    path = write_graph(
        model, torch.zeros(2, 3, 64, 96), tmp_path / "pose.onnx", dynamic={0: torch.export.Dim("batch", min=1)}
    )
    operators = {node.op_type for node in onnx.load(str(path)).graph.node}
    assert "NonMaxSuppression" not in operators and "NonZero" not in operators
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for batch in (1, 3):
        images = torch.rand(batch, 3, 64, 96)
        outputs = session.run(None, {"images": images.numpy()})
        with torch.no_grad():
            expected = model(images)
        assert [part.shape for part in outputs] == [(batch, 20, 4), (batch, 20), (batch, 20), (batch, 20, 2, 3)]
        for a, b in zip(outputs, expected):
            torch.testing.assert_close(torch.from_numpy(a), b, atol=1e-3, rtol=0)
