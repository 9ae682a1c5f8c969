"""What a step of compression is, and how a module is put in another's place."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from efftasks.structures.protocols import ReadsParts

__all__ = ["ModelTransform", "called_modules", "replace_modules"]


class ModelTransform(ABC):
    """A change of a model's layers, in two halves: what to do is decided once, and done as often as models are built.

    A config lists transforms in ``model_transforms``. What :meth:`decide` gives is kept in checkpoints, and whoever
    loads one calls :meth:`apply` alone, on a model with random weights: nothing that depends on weights or data may be
    left to it.
    """

    @abstractmethod
    def decide(self, model: nn.Module, has_weights: bool) -> dict[str, Any]:
        """The plan for a model, which is not changed.

        Args:
            model: as the transforms before this one left it.
            has_weights: its weights are trained ones; else only shapes mean something.

        Returns:
            Strings, numbers, booleans, lists and dicts with string keys.
        """

    @staticmethod
    @abstractmethod
    def apply(model: nn.Module, plan: Mapping[str, Any]) -> nn.Module:
        """The model as a plan says, with what its weights become; ``model`` itself may be changed.

        Raises:
            UserError: the plan does not fit the model.
        """


def called_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Named modules that are only ever called: another module may take the place of each.

    Left out are those whose tensors or attributes a module above them reads, see
    :class:`~efftasks.structures.protocols.ReadsParts`.
    """
    read = {
        id(module.get_submodule(name))
        for module in model.modules()
        if isinstance(module, ReadsParts)
        for name in module.reads_parts
    }
    yield from ((name, module) for name, module in model.named_modules() if name and id(module) not in read)


def replace_modules(model: nn.Module, replacements: Mapping[str, nn.Module]) -> None:
    """Put modules in the place of others, by name, everywhere they are used."""
    new = {id(model.get_submodule(name)): module for name, module in replacements.items()}
    for parent in list(model.modules()):
        for key, child in list(parent._modules.items()):
            if id(child) in new:
                parent._modules[key] = new[id(child)]
