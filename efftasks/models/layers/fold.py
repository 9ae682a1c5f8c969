"""From the model that trains to the one that ships, in two steps that also stand alone: strip, and fold.

A part says itself what it can do: see :mod:`efftasks.structures.protocols`.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable

from torch import nn

from efftasks.structures.protocols import Foldable, Strippable

__all__ = ["fold_model", "inference_model", "strip_model"]


def fold_model(module: nn.Module) -> nn.Module:
    """A copy of ``module``, in evaluation mode, in which every :class:`Foldable` part is replaced by its folded form.

    It infers the same up to rounding and can be trained on: nothing that training needs is gone. Parts none of whose
    parameters had a gradient have none afterwards. Folding twice equals folding once.
    """
    return _copy_with(_folded, module)


def strip_model(module: nn.Module) -> nn.Module:
    """A copy of ``module``, in evaluation mode, whose :class:`Strippable` parts have dropped what only training has.

    It infers the same to the last bit. Stripping twice equals stripping once.
    """
    return _copy_with(_stripped, module)


def inference_model(module: nn.Module) -> nn.Module:
    """A copy of ``module`` for inference: stripped, then folded."""
    return fold_model(strip_model(module))


# A *child* named "fold" would satisfy the protocol too: it is callable. Only a method counts.
def _folded(module: nn.Module) -> nn.Module:
    if not (isinstance(module, Foldable) and inspect.ismethod(module.fold)):
        return module
    folded = module.fold()
    if not any(parameter.requires_grad for parameter in module.parameters()):
        folded.requires_grad_(False)
    return folded


def _stripped(module: nn.Module) -> nn.Module:
    return module.strip() if isinstance(module, Strippable) and inspect.ismethod(module.strip) else module


def _copy_with(change: Callable[[nn.Module], nn.Module], module: nn.Module) -> nn.Module:
    return _changed(change, copy.deepcopy(module).eval(), {}).eval()


def _changed(
    change: Callable[[nn.Module], nn.Module], module: nn.Module, done: dict[int, tuple[nn.Module, nn.Module]]
) -> nn.Module:
    """Top-down: a part is changed, then the children of the result. A part used in several places stays shared."""
    if id(module) in done:
        return done[id(module)][1]
    result = change(module)
    # The module is kept along with its result: its id must not be given to another object meanwhile.
    done[id(module)] = (module, result)
    done[id(result)] = (result, result)
    # Not named_children(): it names a module that is registered twice only once.
    for name, child in list(result._modules.items()):
        if child is not None:
            replacement = _changed(change, child, done)
            if replacement is not child:
                setattr(result, name, replacement)
    return result
