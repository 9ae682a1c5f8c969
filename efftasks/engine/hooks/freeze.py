"""Parts of the model that do not learn, for a part of the training or all of it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from mmengine.hooks import Hook
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from efftasks.engine.wrapped import bare_model
from efftasks.registry import HOOKS
from efftasks.structures.errors import UserError

__all__ = ["Freeze"]


@HOOKS.register_module()
class Freeze(Hook):
    """Freeze parts of the model: their parameters get no gradient, and their batch norms keep their statistics.

    Whether a part is frozen depends on the epoch alone, so that a resumed training is equal to an uninterrupted one.
    The optimizer has the parameters all the time, and does not change those without a gradient. What a model has frozen
    itself (``frozen`` of a backbone) stays so.

    Args:
        parts: names of modules as in ``model.named_modules()``: ``backbone``, ``backbone.stages.0``.
        until: the first epoch in which they learn, counted from 0; None for never. In a config also a share of training
            or a point of ``schedule``.
    """

    linked_epochs: ClassVar[tuple[str, ...]] = ("until",)

    def __init__(self, parts: Sequence[str], until: int | None = None) -> None:
        if isinstance(parts, str) or not parts or not all(isinstance(part, str) for part in parts):
            raise ValueError(f"Freeze.parts: got {parts!r}, expected a list of names of modules")
        if until is not None and (not isinstance(until, int) or until < 0):
            raise ValueError(f"Freeze.until: got {until!r}, expected an epoch from 0, or None")
        self.parts, self.until = tuple(parts), until
        self._parameters: list[nn.Parameter] = []
        self._norms: list[nn.Module] = []
        self._is_frozen: bool | None = None  # None before training

    def before_train(self, runner: Any) -> None:
        """Find the parts.

        Raises:
            UserError: there is no such part, nothing is left to train, or distributed training expects all gradients.
        """
        model = bare_model(runner.model)
        modules = [_module(model, part) for part in self.parts]
        self._parameters = _unique(p for module in modules for p in module.parameters() if p.requires_grad)
        self._norms = _unique(m for module in modules for m in module.modules() if isinstance(m, _BatchNorm))
        left = sum(p.requires_grad for p in model.parameters()) - len(self._parameters)
        if not left:
            raise UserError(f"freeze: {', '.join(self.parts)} is all that learns; leave a part of the model out")
        wrapped = runner.model
        if isinstance(wrapped, DistributedDataParallel) and not wrapped.find_unused_parameters:
            raise UserError("freeze: distributed training needs find_unused_parameters=True beside it")
        self._is_frozen = None

    def before_train_epoch(self, runner: Any) -> None:
        """Freeze the parts, or let them learn again."""
        frozen = self.until is None or runner.epoch < self.until
        if frozen == self._is_frozen:
            return
        for parameter in self._parameters:
            parameter.requires_grad_(not frozen)
            parameter.grad = None
        if frozen:
            count = sum(parameter.numel() for parameter in self._parameters) / 1e6
            end = "" if self.until is None else f" for the first {self.until} epochs"
            runner.logger.info(
                f"frozen{end}: {', '.join(self.parts)}, {count:.2f} M parameters and {len(self._norms)} batch norms"
            )
        elif self._is_frozen:
            runner.logger.info(f"no longer frozen from epoch {runner.epoch + 1} on: {', '.join(self.parts)}")
        self._is_frozen = frozen

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Keep the batch norms in evaluation mode, which the training loop ends at the start of each epoch."""
        if self._is_frozen:
            for norm in self._norms:
                norm.training = False

    def after_train(self, runner: Any) -> None:
        """Leave the model as it was."""
        for parameter in self._parameters:
            parameter.requires_grad_(True)


def _module(model: nn.Module, name: str) -> nn.Module:
    names = dict(model.named_modules())
    if not name or name not in names:
        near = difflib.get_close_matches(name, [x for x in names if x.count(".") <= name.count(".") + 1], n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"its parts are {', '.join(dict(model.named_children()))}"
        raise UserError(f"freeze: the model has no part {name!r}; {hint}")
    return names[name]


def _unique(items: Iterable[Any]) -> list[Any]:
    return list({id(item): item for item in items}.values())
