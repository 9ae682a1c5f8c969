"""From the model that trains to the one that ships: every part that can fuse is replaced by its fused form."""

from __future__ import annotations

import copy
import inspect

from torch import nn

from efftasks.structures.protocols import Fusable

__all__ = ["fuse_model"]


def fuse_model(module: nn.Module) -> nn.Module:
    """A fused copy of ``module`` in evaluation mode; the module itself is not touched.

    Top-down: what is :class:`~efftasks.structures.protocols.Fusable` is replaced by its ``fuse()`` (a head may drop
    its training branch there), then the children of the result are treated likewise. A part that is used in several
    places stays shared. Fusing twice equals fusing once.
    """
    return _fused(copy.deepcopy(module).eval(), {}).eval()


def _fused(module: nn.Module, done: dict[int, tuple[nn.Module, nn.Module]]) -> nn.Module:
    if id(module) in done:
        return done[id(module)][1]
    result = module
    # A *child* named "fuse" would satisfy the protocol too: it is callable. Only a method counts.
    if isinstance(module, Fusable) and inspect.ismethod(module.fuse):
        result = module.fuse()
    # The module is kept along with its result: its id must not be given to another object meanwhile.
    done[id(module)] = (module, result)
    done[id(result)] = (result, result)
    # Not named_children(): it names a module that is registered twice only once.
    for name, child in list(result._modules.items()):
        if child is not None:
            replacement = _fused(child, done)
            if replacement is not child:
                setattr(result, name, replacement)
    return result
