"""The model inside a wrapper of distributed training."""

from __future__ import annotations

from mmengine.model import is_model_wrapper
from torch import nn

__all__ = ["bare_model"]


def bare_model(model: nn.Module) -> nn.Module:
    """Unwrap a model, so that its parameters have the names that configs and checkpoints use."""
    return model.module if is_model_wrapper(model) else model  # type: ignore[return-value]
