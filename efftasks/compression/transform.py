"""The base of compression steps, and the replacement of modules."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from efftasks.structures.errors import UserError
from efftasks.structures.protocols import MayExitEarly, ReadsParts

__all__ = ["DecideContext", "ModelTransform", "called_modules", "refuse_early_exit", "replace_modules"]


@dataclass(frozen=True)
class DecideContext:
    """What a transform may use to decide, beside the model.

    Attributes:
        has_weights: whether the model's weights are trained; if not, only shapes are meaningful.
        image_size: (height, width) of the network input in pixels; None if the config states none.
        batches: ``(model, count)`` -> the sum of the losses of ``count`` training batches, one after the other, with
            gradients. The model is run as it is, in the modes it has. None without training data.
        latency: ``(model, backend)`` -> median milliseconds of the exported model on a runtime, at ``image_size`` and a
            batch of one. None where nothing can be exported.
    """

    has_weights: bool = False
    image_size: tuple[int, int] | None = None
    batches: Callable[[nn.Module, int], Iterator[Tensor]] | None = None
    latency: Callable[[nn.Module, str], float] | None = None


class ModelTransform(ABC):
    """A change of a model's layers in two parts: a plan is decided once and applied whenever the model is built.

    A config lists transforms in ``model_transforms``. The plan of :meth:`decide` is stored in checkpoints. Loading one
    calls :meth:`apply` alone, on a model with random weights: it must not depend on weights or data.
    """

    @abstractmethod
    def decide(self, model: nn.Module, context: DecideContext) -> dict[str, Any]:
        """The plan for a model, which is not changed.

        Args:
            model: the result of the transforms before this one.
            context: what it may be decided from.

        Returns:
            Strings, numbers, booleans, lists and dicts with string keys.

        Raises:
            UserError: the context lacks what the transform needs.
        """

    @staticmethod
    @abstractmethod
    def apply(model: nn.Module, plan: Mapping[str, Any]) -> nn.Module:
        """The model after a plan, with transformed weights; ``model`` itself may be changed.

        Raises:
            UserError: the plan does not fit the model.
        """

    def refine(self, model: nn.Module, context: DecideContext) -> None:  # noqa: B027  (most have nothing to improve)
        """Improve the weights of a model after :meth:`apply`, in place, without changing layers.

        Called once, after :meth:`decide`; a model from a checkpoint has those weights.
        """


def refuse_early_exit(model: nn.Module, step: str) -> None:
    """Refuse a model with an early exit, for steps that follow the network as a whole and would miss it.

    Raises:
        UserError: the model has one.
    """
    if isinstance(model, MayExitEarly) and model.exits_early is not None:
        raise UserError(
            f"{step}: got a model with an early exit, which it does not follow; expected one without: compress the "
            "static model first, and train an exit on it with load_from"
        )


def called_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Named modules that are only called, so that each can be replaced by another module.

    Modules whose tensors or attributes are read by a module above them are left out, see
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
    """Replace modules by name, everywhere they are used."""
    new = {id(model.get_submodule(name)): module for name, module in replacements.items()}
    for parent in list(model.modules()):
        for key, child in list(parent._modules.items()):
            if id(child) in new:
                parent._modules[key] = new[id(child)]
