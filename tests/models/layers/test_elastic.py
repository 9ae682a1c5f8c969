"""An elastic layer is each of its choices, and can be taken out as one."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from efftasks.models.layers.elastic import ElasticKernelConv2d
from efftasks.structures.protocols import Elastic


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("bias", [True, False])
def test_each_choice_is_a_plain_convolution_with_the_middle_of_the_kernel(stride: int, groups: int, bias: bool) -> None:
    layer, x = ElasticKernelConv2d(4, 8, 5, stride, groups, bias), torch.randn(2, 4, 12, 8)
    assert isinstance(layer, Elastic) and not isinstance(nn.Conv2d(1, 1, 1), Elastic)
    assert layer.choices() == (5, 3, 1)
    for side, middle in ((5, slice(0, 5)), (3, slice(1, 4)), (1, slice(2, 3))):
        layer.activate(side)
        weight = layer.weight[:, :, middle, middle]
        expected = F.conv2d(F.pad(x, [side // 2] * 4), weight, layer.bias, stride, groups=groups)
        assert_close(layer(x), expected)
        plain = layer.extract()
        assert type(plain) is nn.Conv2d and plain.kernel_size == (side, side)
        assert torch.equal(plain(x), layer(x))
        plain.weight.data.zero_()
        assert bool(layer.weight.any())


def test_the_largest_is_active_at_first_and_gradients_reach_what_is_active_alone() -> None:
    layer, x = ElasticKernelConv2d(2, 2, 3), torch.randn(1, 2, 6, 6)
    assert torch.equal(layer(x), F.conv2d(x, layer.weight, layer.bias, padding=1))
    layer.activate(1)
    layer(x).sum().backward()
    assert layer.weight.grad is not None
    reached = layer.weight.grad.abs().sum((0, 1)) > 0
    assert reached.nonzero().tolist() == [[1, 1]]


def test_wrong_choices_are_named() -> None:
    with pytest.raises(ValueError, match="kernel_size: got 4"):
        ElasticKernelConv2d(2, 2, 4)
    with pytest.raises(ValueError, match=r"choice: got 2, allowed are \(3, 1\)"):
        ElasticKernelConv2d(2, 2, 3).activate(2)
