"""The last layer of a prediction branch, whatever compression has made of it."""

from __future__ import annotations

from torch import nn

__all__ = ["outputs_of"]


def outputs_of(branch: nn.Module, name: str) -> list[str]:
    """Names of the tensors with a row for each output of a branch.

    They are those of its last layer, which low rank makes two of. A graph (quantization) has no layers, and none.

    Args:
        branch: a layer or a sequence of layers.
        name: of the branch below the module that declares the rows.
    """
    if isinstance(branch, nn.Sequential):
        last, layer = list(branch.named_children())[-1]
        return outputs_of(layer, f"{name}.{last}")
    return [f"{name}.{tensor}" for tensor in branch.state_dict()] if isinstance(branch, (nn.Linear, nn.Conv2d)) else []
