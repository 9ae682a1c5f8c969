"""What the tests of timm's networks written anew share."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import efftasks.compat  # noqa: F401

import pytest
import torch
from torch import nn


@pytest.fixture(scope="session")
def timm() -> ModuleType:
    return pytest.importorskip("timm", exc_type=ImportError)


@pytest.fixture(scope="session")
def randomised() -> Callable[[Any], Any]:
    """As after training: statistics, scales and shifts that a mistake in loading or fusing would show."""

    def change(net: Any) -> Any:
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for part in net.modules():
                if isinstance(part, nn.BatchNorm2d):
                    assert part.running_mean is not None
                    assert part.running_var is not None
                    part.running_mean.normal_(0, 0.1, generator=generator)
                    part.running_var.uniform_(0.5, 1.5, generator=generator)
                    part.weight.uniform_(0.5, 1.0, generator=generator)
                elif isinstance(part, nn.Conv2d):
                    fan_in = part.weight[0].numel()
                    part.weight.normal_(0, fan_in**-0.5, generator=generator)
            for parameter in net.parameters():
                if parameter.dim() == 1:
                    parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        return net.eval()

    return change


@pytest.fixture(scope="session")
def check_equal() -> Callable[..., None]:
    """The same number of parameters, but for the classifier, and the same maps of the strides 4 to 32."""

    def check(ours: Any, reference: Any, head: tuple[str, ...] = ("head.",)) -> None:
        body = sum(value.numel() for key, value in reference.named_parameters() if not key.startswith(head))
        assert sum(value.numel() for value in ours.parameters()) == body
        x = torch.randn(1, 3, 64, 96)
        with torch.no_grad():
            expected = reference.forward_intermediates(x, indices=4, intermediates_only=True)
            for got, want in zip(ours(x), expected, strict=True):
                assert want.std() > 0.01  # or anything would be equal
                torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)

    return check
