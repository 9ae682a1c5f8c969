"""One of two ways through a network, as the input says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["either"]


def either(
    condition: Tensor, if_true: Callable[..., Any], if_false: Callable[..., Any], inputs: tuple[Any, ...]
) -> Any:
    """``if_true(*inputs)`` or ``if_false(*inputs)``; only the one that is taken is computed, in exported files as well.

    Args:
        condition: bool, a single element: one decision for the whole batch.
        if_true: gives tensors of the shapes and types of those of ``if_false``, none of them a view of an input.
        if_false: the other way.
        inputs: what both get.

    Raises:
        RuntimeError: the network is traced: a trace has one way only.
    """
    if torch.compiler.is_exporting():
        return torch.cond(condition, if_true, if_false, inputs)
    if torch.jit.is_tracing():
        raise RuntimeError("a network with two ways cannot be traced: a trace has one of them only")
    return (if_true if bool(condition) else if_false)(*inputs)
