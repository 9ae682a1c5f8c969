"""From the training model to the inference model in two independent steps: strip, and fold.

The protocols of parts are in :mod:`efftasks.structures.protocols`.
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

    Outputs are equal up to rounding, and the copy can be trained further. Parts whose parameters were all frozen stay
    frozen. Folding twice equals folding once.
    """
    return _copy_with(_folded, module)


def strip_model(module: nn.Module) -> nn.Module:
    """A copy of ``module``, in evaluation mode, whose :class:`Strippable` parts have no training-only modules.

    Outputs are equal bit by bit. Stripping twice equals stripping once.
    """
    return _copy_with(_stripped, module)


def inference_model(module: nn.Module) -> nn.Module:
    """A copy of ``module`` for inference: stripped, then folded."""
    return fold_model(strip_model(module))


# A child module named "fold" is callable and would satisfy the protocol too; only methods count.
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
    """Change a module, then the children of the result. Shared modules stay shared."""
    if id(module) in done:
        return done[id(module)][1]
    result = change(module)
    # The reference to the module keeps its id from being reused by another object.
    done[id(module)] = (module, result)
    done[id(result)] = (result, result)
    # Not named_children(), which yields a module with two names only once.
    for name, child in list(result._modules.items()):
        if child is not None:
            replacement = _changed(change, child, done)
            if replacement is not child:
                setattr(result, name, replacement)
    return result
