"""A model with an early exit, as it is exported: whole, with the decision inside, or in two parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from efftasks.structures.protocols import ExitsEarly, MayExitEarly
from efftasks.structures.spec import OutputSpec

__all__ = ["EarlyGraph", "IfGraph", "RestGraph", "WholeGraph", "blank_tensors", "exit_of"]

_DTYPES = {"float32": torch.float32, "int64": torch.int64, "uint8": torch.uint8, "bool": torch.bool}


def exit_of(model: Any) -> ExitsEarly | None:
    """A model as one that answers at its exit or after it; None of models without an exit."""
    if isinstance(model, MayExitEarly):
        return model.exits_early
    return model if isinstance(model, ExitsEarly) else None


class WholeGraph(nn.Module):
    """The network without its exit: every image takes all of it.

    Args:
        model: with an exit, as those of the other graphs.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Preprocessed images (B, 3, H, W) -> what the whole network predicts."""
        parts = _parts(self.model)
        return _given(parts.infer_late(parts.infer_early(images).carried))


class EarlyGraph(nn.Module):
    """The network up to its exit."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Preprocessed images (B, 3, H, W) -> the early predictions, their score (B,), and what the rest needs."""
        answer = _parts(self.model).infer_early(images)
        return (*_given(answer.detections), answer.score, *answer.carried)


class RestGraph(nn.Module):
    """The network from its exit on."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, *carried: Tensor) -> tuple[Tensor, ...]:
        """What the exit carried -> what the whole network predicts."""
        return _given(_parts(self.model).infer_late(carried))


class IfGraph(nn.Module):
    """The network that decides itself whether to go on, of one image: the part behind the exit is a branch."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, exit_threshold: Tensor) -> tuple[Tensor, ...]:
        """An image (1, 3, H, W) and a threshold (1,) -> predictions, and the score (1,) of the early ones."""
        parts = _parts(self.model)
        answer = parts.infer_early(images)
        early, carried = _given(answer.detections), tuple(answer.carried)

        def stop(*tensors: Tensor) -> tuple[Tensor, ...]:
            return tuple(tensor.clone() for tensor in tensors[: len(early)])  # a branch must not return its inputs

        def go_on(*tensors: Tensor) -> tuple[Tensor, ...]:
            return _given(parts.infer_late(tensors[len(early) :]))

        is_enough = (answer.score >= exit_threshold).reshape(())
        return (*torch.cond(is_enough, stop, go_on, (*early, *carried)), answer.score)


def blank_tensors(outputs: Sequence[OutputSpec], batch: int) -> tuple[Tensor, ...]:
    """Zeros of the shapes and types of outputs; axes with names, which are those of the batch, have this length."""
    return tuple(
        torch.zeros([side if isinstance(side, int) else batch for side in output.shape], dtype=_DTYPES[output.dtype])
        for output in outputs
    )


def _parts(model: nn.Module) -> ExitsEarly:
    parts = exit_of(model)
    assert parts is not None
    return parts


def _given(predictions: tuple[Tensor | None, ...]) -> tuple[Tensor, ...]:
    """Predictions without what the model does not give."""
    return tuple(part for part in predictions if part is not None)
