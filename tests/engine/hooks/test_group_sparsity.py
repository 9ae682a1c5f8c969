"""Group sparsity in a training: when it shrinks, by how much, and what it does to channels that are not needed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import efftasks.compat  # noqa: F401

# isort: split
import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.optim import OptimWrapper
from torch import nn

from efftasks.engine.hooks.group_sparsity import GroupSparsity
from efftasks.structures.errors import UserError


def runner_of(model: nn.Module, lr: float = 0.1, size: Any = (8, 8)) -> Any:
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=lr))
    wrapper.param_groups[0]["initial_lr"] = lr
    logger = MMLogger.get_instance("group_sparsity")
    return SimpleNamespace(model=model, optim_wrapper=wrapper, cfg={"image_size": size}, logger=logger, iter=0)


def net() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 8, 1, bias=False), nn.ReLU(), nn.Conv2d(8, 2, 1, bias=False))


def norms(model: nn.Sequential) -> torch.Tensor:
    first, last = model[0].weight.flatten(1), model[2].weight.flatten(1)  # type: ignore[operator, union-attr]
    return (first.square().sum(1) + last.square().sum(0)).sqrt().detach()


def test_it_shrinks_every_few_steps_with_the_learning_rate() -> None:
    model = net()
    runner, hook = runner_of(model), GroupSparsity(strength=0.01, interval=2)
    hook.before_train(runner)
    before = norms(model)
    hook.after_train_iter(runner, 0)
    assert torch.equal(norms(model), before)  # the first of two steps
    runner.iter = 1
    hook.after_train_iter(runner, 1)
    after = norms(model)
    torch.testing.assert_close(after, before - 0.02 * before.mean())
    runner.optim_wrapper.param_groups[0]["lr"] = 0.05  # half of the initial rate
    runner.iter = 3
    hook.after_train_iter(runner, 3)
    torch.testing.assert_close(norms(model), after - 0.01 * after.mean())


def test_channels_that_the_loss_does_not_need_go_to_zero() -> None:
    model = net()
    runner, hook = runner_of(model), GroupSparsity(strength=0.005, interval=1)
    images = torch.rand(16, 3, 4, 4)
    target = images[:, :2] * 2  # two channels suffice
    hook.before_train(runner)
    for step in range(400):
        loss = (model(images) - target).square().mean()
        runner.optim_wrapper.update_params(loss)
        runner.iter = step
        hook.after_train_iter(runner, step)
    assert loss < 0.1 * target.square().mean()
    assert (norms(model) == 0).sum() >= 2 and (norms(model) > 0.3).sum() >= 2


def test_what_it_cannot_do_is_said() -> None:
    with pytest.raises(ValueError, match="got strength 0"):
        GroupSparsity(strength=0)
    with pytest.raises(UserError, match="no image_size"):
        GroupSparsity().before_train(runner_of(net(), size=None))
    with pytest.raises(UserError, match="no layer of the model may lose channels; remove the hook"):
        GroupSparsity().before_train(runner_of(nn.Sequential(nn.Conv2d(3, 2, 1))))
