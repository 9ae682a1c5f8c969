"""Train towards channels that can be removed."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper

from efftasks.compression.pruning.groups import find_groups
from efftasks.compression.pruning.shrinking import GroupShrinker
from efftasks.compression.transform import refuse_early_exit
from efftasks.engine.wrapped import bare_model
from efftasks.registry import HOOKS
from efftasks.structures.errors import UserError

__all__ = ["GroupSparsity"]


@HOOKS.register_module()
class GroupSparsity(Hook):
    """Shrink the channels that :class:`~efftasks.compression.pruning.prune.Prune` can remove.

    Every ``interval`` steps the norm of all weights of a channel, in all layers that have it, becomes smaller by
    ``interval * strength`` of the mean norm in its group; channels that the loss needs grow back. The strength follows
    the learning rate: it is multiplied by the rate of the first parameter group over its initial one.

    Args:
        strength: share of the mean norm per step.
        interval: steps between two changes.
    """

    priority = "ABOVE_NORMAL"  # before averages of weights

    def __init__(self, strength: float = 1e-4, interval: int = 10) -> None:
        if strength <= 0 or interval < 1:
            raise ValueError(f"GroupSparsity: got strength {strength}, interval {interval}, expected positive numbers")
        self.strength, self.interval = strength, interval
        self._shrinker: GroupShrinker | None = None

    def before_train(self, runner: Any) -> None:
        """Find the groups of the model.

        Raises:
            UserError: the config has no image size, or there are none.
        """
        size = runner.cfg.get("image_size")
        if size is None:
            raise UserError("GroupSparsity: the config has no image_size, expected (height, width) in pixels")
        model = bare_model(runner.model)
        refuse_early_exit(model, "GroupSparsity")
        groups = find_groups(model, (size[0], size[1])).groups
        if not groups:
            raise UserError("GroupSparsity: no layer of the model may lose channels; remove the hook")
        self._shrinker = GroupShrinker(model, groups)
        runner.logger.info(f"GroupSparsity: {len(groups)} groups of channels")

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Shrink them."""
        if self._shrinker is not None and self.every_n_train_iters(runner, self.interval):
            self._shrinker.shrink(self.interval * self.strength * _rate(runner.optim_wrapper))


def _rate(wrapper: Any) -> float:
    """The learning rate of the first parameter group, over its initial one."""
    if not isinstance(wrapper, OptimWrapper):
        return 1.0
    first = wrapper.param_groups[0]
    initial = first.get("initial_lr", first["lr"])
    return first["lr"] / initial if initial else 1.0
