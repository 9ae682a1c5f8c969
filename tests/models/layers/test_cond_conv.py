"""A conditional convolution is, for each image, a plain one with a kernel mixed by hand."""

from __future__ import annotations

import copy
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from efftasks.bench.complexity import count_complexity
from efftasks.compression.folding import fold_model
from efftasks.export.exporters.onnx import write_graph
from efftasks.export.quantization.layers import Layers
from efftasks.models.layers.cond_conv import CondConv2d
from efftasks.models.layers.conv import ConvNormAct
from efftasks.structures.protocols import FoldsNorm, HasExperts, HasExportForm

KINDS: dict[str, dict[str, Any]] = {
    "pointwise": {},
    "pointwise, stride 2": dict(stride=(2, 2)),
    "dense": dict(kernel_size=(3, 3), padding=(1, 1)),
    "depthwise": dict(kernel_size=(3, 3), padding=(1, 1), stride=(2, 2), groups=8),
}


def layer(kind: str = "pointwise", temperature: float | None = 1.0, experts: int = 3, bias: bool = True) -> CondConv2d:
    torch.manual_seed(0)
    new = CondConv2d(8, 16, bias=bias, experts=experts, temperature=temperature, **KINDS[kind])
    for parameter in new.parameters():
        nn.init.normal_(parameter)
    return new


def kernels_of(conv: CondConv2d) -> list[Tensor]:
    return [expert.reshape(16, *conv.kernel_shape) for expert in conv.weight]


def by_hand(conv: CondConv2d, x: Tensor) -> Tensor:
    """The outputs of single experts, weighted by gates that are written out."""
    logits = x.mean((2, 3)) @ conv.router.T + conv.router_bias
    if conv.temperature is None:
        gates = 1 / (1 + torch.exp(-logits))
    else:
        powers = torch.exp(logits / conv.temperature)
        gates = powers / powers.sum(1, keepdim=True)
    outputs = [F.conv2d(x, kernel, None, conv.stride, conv.padding, groups=conv.groups) for kernel in kernels_of(conv)]
    mixed = sum(gate[:, None, None, None] * output for gate, output in zip(gates.T, outputs, strict=True))
    assert isinstance(mixed, Tensor)
    return mixed if conv.bias is None else mixed + conv.bias[:, None, None]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("temperature", "bias"), [(1.0, False), (4.0, True), (None, True)])
def test_it_is_the_sum_of_the_experts_for_each_image(kind: str, temperature: float | None, bias: bool) -> None:
    conv = layer(kind, temperature, bias=bias)
    x = torch.randn(3, 8, 6, 10)
    out = conv(x)
    assert_close(out, by_hand(conv, x), atol=1e-4, rtol=1e-4)
    for i in range(len(x)):
        assert_close(conv(x[i : i + 1]), out[i : i + 1], atol=1e-5, rtol=1e-4)
    assert_close(conv(x.contiguous(memory_format=torch.channels_last)), out, atol=1e-5, rtol=1e-4)
    conv.use_export_form()
    assert_close(conv(x), out, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_one_expert_is_a_plain_convolution(kind: str) -> None:
    conv, x = layer(kind, experts=1), torch.randn(2, 8, 6, 10)
    assert_close(conv(x), F.conv2d(x, kernels_of(conv)[0], conv.bias, conv.stride, conv.padding, groups=conv.groups))


@pytest.mark.parametrize("temperature", [1.0, None])
@pytest.mark.parametrize("groups", [1, 8])
def test_at_the_start_it_is_the_convolution_that_it_replaces(temperature: float | None, groups: int) -> None:
    plain = nn.Conv2d(8, 16, 3, 2, 1, groups=groups)
    conv, x = CondConv2d.of_conv(plain, 4, temperature, noise=0.1), torch.randn(2, 8, 9, 7)
    assert_close(conv(x), plain(x), atol=1e-5, rtol=1e-5)
    assert_close(conv.weight.std(0).mean() / conv.weight.std(), torch.tensor(0.1), atol=0.03, rtol=0)
    with torch.no_grad():
        conv.router_bias[0] = 9  # nearly the first expert alone: not the same any more
    assert (conv(x) - plain(x)).abs().max() > 0.01
    assert not CondConv2d.of_conv(plain.requires_grad_(False), 2, 1.0, 0.1).weight.requires_grad


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_every_expert_and_the_router_from_the_start(kind: str) -> None:
    torch.manual_seed(0)
    block = ConvNormAct(8, 16)
    block.conv = CondConv2d(8, 16, bias=False, experts=3, **KINDS[kind])  # type: ignore[assignment]
    block(torch.randn(4, 8, 6, 10)).square().sum().backward()
    conv: Any = block.conv
    assert all(bool(expert.abs().sum() > 0) for expert in conv.weight.grad)
    assert bool((conv.router.grad.abs().sum(1) > 0).all()) and bool((conv.router_bias.grad != 0).all())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("temperature", [1.0, None])
def test_the_norm_folds_into_every_expert(kind: str, temperature: float | None) -> None:
    block = ConvNormAct(8, 16, act="silu")
    block.conv = layer(kind, temperature, bias=kind == "dense")  # type: ignore[assignment]
    assert isinstance(block.norm.running_mean, Tensor) and isinstance(block.norm.running_var, Tensor)
    for tensor in (block.norm.running_mean, block.norm.weight.data, block.norm.bias.data):
        tensor.normal_()
    block.norm.running_var.uniform_(0.5, 2)
    block, x = block.double().eval(), torch.randn(3, 8, 6, 10, dtype=torch.float64)
    before = copy.deepcopy(block.state_dict())
    folded = fold_model(block)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in folded.modules())
    assert_close(folded(x), block(x), atol=1e-12, rtol=1e-12)
    assert_close(fold_model(folded)(x), folded(x), atol=0, rtol=0)
    for parameter in folded.parameters():
        parameter.data.zero_()  # nothing is shared
    assert all(torch.equal(value, before[key]) for key, value in block.state_dict().items())


def test_state_loads_into_another_one_and_protocols_are_met() -> None:
    one, x = layer("dense"), torch.randn(2, 8, 5, 5)
    other = CondConv2d(8, 16, (3, 3), padding=(1, 1), bias=True, experts=3)
    assert set(one.state_dict()) == {"weight", "bias", "router", "router_bias"}
    other.load_state_dict(one.state_dict())
    assert torch.equal(one(x), other(x))
    one.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # as training does
    assert torch.equal(one(x), other(x))
    assert isinstance(one, FoldsNorm) and isinstance(one, HasExperts) and isinstance(one, HasExportForm)
    assert not isinstance(nn.Conv2d(1, 1, 1), (FoldsNorm, HasExperts))


class Net(nn.Module):
    """A stem, a pointwise and a depthwise conditional convolution, and a last layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.wide = layer("pointwise")
        self.deep = layer("depthwise", None)
        self.last = nn.Linear(16 + 16 * 4 * 6, 4)

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images)
        return self.last(torch.cat([self.wide(x).mean((2, 3)), self.deep(x).flatten(1)], 1))


def test_files_equal_pytorch_for_any_batch_and_mixed_kernels_stay_in_float(tmp_path: Path) -> None:
    import onnx
    import onnxruntime
    import openvino

    net, images = Net().eval(), torch.randn(3, 3, 16, 24)
    with torch.no_grad():
        expected = net(images)
    for part in (net.wide, net.deep):
        part.use_export_form()
    named = nn.Sequential(OrderedDict(model=net))  # as a file has it
    path = write_graph(named, images, tmp_path / "net.onnx", dynamic={0: torch.export.Dim("batch", min=1)})
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    network = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for count in (1, 3):
        for outputs in (session.run(None, {"images": images[:count].numpy()}), network([images[:count].numpy()])):
            assert_close(torch.tensor(outputs[0]), expected[:count], atol=1e-4, rtol=1e-4)
    assert Layers(onnx.load(str(path))).names == ("stem", "deep")  # can be quantized


def test_operations_are_those_of_the_mixed_kernel_the_mixture_and_the_router() -> None:
    for kind, cells in (("pointwise", 16 * 24), ("depthwise", 8 * 12)):
        net = nn.Sequential(nn.Conv2d(3, 8, 1, bias=False), layer(kind)).eval()
        kernel = 16 * 8 if kind == "pointwise" else 16 * 9
        stem, router, mixture = 3 * 8 * 16 * 24, 3 * 8, 3 * kernel
        counted = count_complexity(net, net, (16, 24))
        assert counted.gmacs * 1e9 == stem + router + mixture + cells * kernel
        assert counted.params_m * 1e6 == 3 * 8 + 3 * kernel + 16 + 3 * 8 + 3
