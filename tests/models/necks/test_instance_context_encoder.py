"""SparseInst's neck: the authors' outputs, pooling against PyTorch's, shapes, gradients, fusing, export."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efftasks.compression.folding import inference_model
from efftasks.models.necks.instance_context_encoder import InstanceContextEncoder, part_means
from efftasks.structures.features import FeatureSpec

SPECS = (FeatureSpec(8, 8), FeatureSpec(12, 16), FeatureSpec(16, 32))


def maps(height: int, width: int, batch: int = 2) -> list[Tensor]:
    return [torch.randn(batch, channels, height // stride, width // stride) for channels, stride in SPECS]


def trained(net: nn.Module) -> nn.Module:
    """Statistics, scales and shifts as after training, in evaluation mode."""
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            assert part.running_mean is not None and part.running_var is not None
            part.running_mean.normal_(0, 0.5)
            part.running_var.uniform_(0.5, 2.0)
            part.weight.data.uniform_(0.5, 1.5)
            part.bias.data.normal_(0, 0.5)
    return net.eval()


def test_equals_the_authors(module_at: Callable[[Path], Any], authors: Any) -> None:
    record = module_at(Path(__file__).parents[1] / "insseg_heads" / "sparse_inst_record.py")
    neck = record.take_weights(InstanceContextEncoder(record.SPECS, 32), "encoder.", record.NECK, authors.fill)
    with torch.no_grad():
        (outputs,) = neck(record.features())
    expected = torch.tensor(record.RECORD["encoded"])
    torch.testing.assert_close(outputs[:, ::5, ::6, ::7], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("parts", [1, 2, 3, 6])
@pytest.mark.parametrize("size", [(6, 12), (8, 8), (10, 15), (20, 20), (7, 5), (1, 4), (13, 1)])
def test_parts_are_those_of_adaptive_pooling(parts: int, size: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    torch.testing.assert_close(part_means(x, parts), F.adaptive_avg_pool2d(x, parts), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", [(64, 96), (32, 32), (160, 224)])
def test_one_map_of_the_finest_stride(size: tuple[int, int]) -> None:
    neck = InstanceContextEncoder(SPECS, channels=20).eval()
    assert neck.specs == (FeatureSpec(20, 8),)
    with torch.no_grad():
        (outputs,) = neck(maps(*size))
    assert outputs.shape == (2, 20, size[0] // 8, size[1] // 8)


def test_context_reaches_everywhere() -> None:
    neck = InstanceContextEncoder(SPECS, channels=16).double().eval()
    features = [x.double().requires_grad_() for x in maps(320, 320, batch=1)]
    neck(features)[0][0, :, 0, 0].sum().backward()
    assert features[2].grad is not None and features[0].grad is not None
    assert bool(features[2].grad[0].abs().sum(0).gt(0).all())  # every cell of the coarsest map
    assert not bool(features[0].grad[0].abs().sum(0)[8:, 8:].any())


@pytest.mark.parametrize("batch", [1, 2])
def test_every_parameter_gets_a_gradient(batch: int) -> None:
    neck = InstanceContextEncoder(SPECS, channels=16).train()
    neck(maps(96, 64, batch))[0].square().mean().backward()
    for name, parameter in neck.named_parameters():
        assert parameter.grad is not None and bool(torch.isfinite(parameter.grad).all()), name
        assert bool(parameter.grad.any()) or name.endswith("norm.bias"), name


def test_parameters_by_hand() -> None:
    c, q = 16, 4
    plain = sum(spec.channels * c for spec in SPECS) + 3 * 9 * c * c + (c + 4 * q) * c + 3 * c * c
    biased = 4 * (c * q + q)  # the pooled branches
    norms = 8 * 2 * c
    neck = InstanceContextEncoder(SPECS, channels=c)
    assert sum(parameter.numel() for parameter in neck.parameters()) == plain + biased + norms


def test_fused_equals_unfused() -> None:
    neck = trained(InstanceContextEncoder(SPECS, channels=16)).double()
    fused = inference_model(neck)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in fused.modules())
    features = [x.double() for x in maps(96, 64)]
    with torch.no_grad():
        torch.testing.assert_close(fused(features), neck(features), rtol=1e-9, atol=1e-9)


class Exported(nn.Module):
    """Maps as one list, for the exporter."""

    def __init__(self, neck: nn.Module) -> None:
        super().__init__()
        self.neck = neck

    def forward(self, fine: Tensor, middle: Tensor, coarse: Tensor) -> Tensor:
        return self.neck([fine, middle, coarse])[0]


def assert_same(path: str, net: nn.Module, inputs: Sequence[Tensor]) -> None:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]
    (outputs,) = session.run(None, {name: x.numpy() for name, x in zip(names, inputs)})
    with torch.no_grad():
        torch.testing.assert_close(torch.tensor(outputs), net(*inputs), rtol=1e-4, atol=1e-5)


def test_exported_it_is_the_same(tmp_path: Path) -> None:
    net = Exported(inference_model(trained(InstanceContextEncoder(SPECS, channels=16)))).eval()
    path = str(tmp_path / "neck.onnx")
    axes = ({0: torch.export.Dim("batch", min=1)},) * 3
    with torch.no_grad():
        torch.onnx.export(
            net, tuple(maps(320, 480)), path, dynamo=True, opset_version=18, dynamic_shapes=axes, verbose=False
        )
    for batch in (1, 3):
        assert_same(path, net, maps(320, 480, batch=batch))
    # What pools are products with constants: nothing computes them at run time.
    kinds = [node.op_type for node in onnx.load(path).graph.node]
    assert kinds.count("MatMul") == 6 and not {"Range", "Gather", "AveragePool"} & set(kinds)


@pytest.mark.slow
def test_exported_for_any_size(tmp_path: Path) -> None:
    net = Exported(inference_model(trained(InstanceContextEncoder(SPECS, channels=16)))).eval()
    path = str(tmp_path / "neck.onnx")
    rows, columns = torch.export.Dim("rows", min=2), torch.export.Dim("columns", min=2)
    axes = tuple({2: factor * rows, 3: factor * columns} for factor in (4, 2, 1))
    with torch.no_grad():
        torch.onnx.export(
            net, tuple(maps(96, 128)), path, dynamo=True, opset_version=18, dynamic_shapes=axes, verbose=False
        )
    for size in ((256, 256), (320, 480), (64, 416)):
        assert_same(path, net, maps(*size))


@pytest.mark.parametrize(
    ("specs", "channels", "message"),
    [
        ((FeatureSpec(8, 8), FeatureSpec(8, 32)), 16, r"in_specs: got strides \[8, 32\], expected each to be twice"),
        (SPECS, 3, "channels: got 3, allowed are integers from 4"),
    ],
)
def test_mistakes_are_named(specs: tuple[FeatureSpec, ...], channels: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        InstanceContextEncoder(specs, channels)
