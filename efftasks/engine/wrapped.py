"""The model inside a wrapper of distributed training, and the networks inside a model."""

from __future__ import annotations

from collections.abc import Iterator

from mmengine.model import is_model_wrapper
from torch import nn

from efftasks.structures.protocols import Elastic

__all__ = ["bare_model", "networks_of"]


def bare_model(model: nn.Module) -> nn.Module:
    """Unwrap a model, so that its parameters have the names that configs and checkpoints use."""
    return model.module if is_model_wrapper(model) else model  # type: ignore[return-value]


def networks_of(model: nn.Module) -> Iterator[nn.Module]:
    """The networks that a model is: itself, or a copy of each where it is several; the largest is active afterwards."""
    model = bare_model(model)
    if not isinstance(model, Elastic):
        yield model
        return
    for choice in reversed(model.choices()):
        model.activate(choice)
        yield model.extract()
