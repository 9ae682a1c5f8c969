"""Quantization of a network in two files, up to its early exit and from there on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from efftasks.export.quantization.layers import matches
from efftasks.export.quantization.recipe import CalibrationImages, Recipe

if TYPE_CHECKING:
    import numpy as np

    from efftasks.export.exporters.base import Quantizer
    from efftasks.structures.spec import ExitSpec

__all__ = ["SplitQuantizer", "carried_images"]


class SplitQuantizer:
    """Two networks that are quantized alike.

    Args:
        first: up to the exit.
        rest: from there on.
        early_exit: names the file of the second, beside that of the first.
    """

    def __init__(self, first: Quantizer, rest: Quantizer, early_exit: ExitSpec) -> None:
        self._first, self._rest = first, rest
        assert early_exit.rest is not None
        self._name = early_exit.rest

    @property
    def names(self) -> tuple[str, ...]:
        """As :class:`efftasks.export.exporters.base.Quantizer` has it, of both."""
        return (*self._first.names, *self._rest.names)

    def write(self, path: Path, recipe: Recipe) -> tuple[str, ...]:
        """As :class:`efftasks.export.exporters.base.Quantizer` has it, of both files."""
        of_rest = tuple(
            pattern for pattern in recipe.float_layers if any(matches(name, (pattern,)) for name in self._rest.names)
        )
        of_first = tuple(
            pattern
            for pattern in recipe.float_layers
            if pattern not in of_rest or any(matches(name, (pattern,)) for name in self._first.names)
        )
        kept = self._first.write(path, replace(recipe, float_layers=of_first))
        return (*kept, *self._rest.write(path.with_name(self._name), replace(recipe, float_layers=of_rest)))


@dataclass(frozen=True)
class _Carried(CalibrationImages):
    """The tensors that an exit carries on of images."""

    model: Any = None
    names_of_tensors: tuple[str, ...] = ()

    def feed(self, index: int, name: str) -> dict[str, np.ndarray]:
        """As :meth:`CalibrationImages.feed`, by the names of the tensors."""
        import torch

        from efftasks.export.exit_graphs import exit_of

        parts = exit_of(self.model)
        assert parts is not None
        with torch.no_grad():
            answer = parts.infer_early(torch.from_numpy(self.load(index)))
        return {key: tensor.numpy() for key, tensor in zip(self.names_of_tensors, answer.carried, strict=True)}


def carried_images(images: CalibrationImages, model: Any, early_exit: ExitSpec) -> CalibrationImages:
    """Images for the calibration of what is behind an exit: the tensors that the network in float carries on.

    Args:
        images: for the network up to the exit.
        model: with the exit, in evaluation mode.
        early_exit: of the file.
    """
    names = tuple(output.name for output in early_exit.carried)
    return _Carried(images.names, images.load, model=model, names_of_tensors=names)
