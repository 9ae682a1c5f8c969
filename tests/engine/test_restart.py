"""The last epochs begin from the best weights."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace

import torch
from mmengine.hooks import EMAHook
from torch import nn

from efftasks.engine.hooks.restart import RestartFromBest


def run(tmp_path: Path, epoch: int) -> tuple[nn.Module, nn.Module]:
    model, average = nn.Linear(2, 1), nn.Linear(2, 1)
    ema = EMAHook()
    ema.ema_model = SimpleNamespace(module=average)  # type: ignore[assignment]
    runner = SimpleNamespace(
        epoch=epoch, work_dir=str(tmp_path), model=model, hooks=[ema], logger=logging.getLogger("test")
    )
    RestartFromBest(epoch=7).before_train_epoch(runner)
    return model, average


def test_model_and_average_begin_from_the_best(tmp_path: Path) -> None:
    best = nn.Linear(2, 1)
    torch.save(dict(state_dict=best.state_dict()), tmp_path / "best.pth")
    for epoch, same in ((6, False), (7, True), (8, False)):
        for module in run(tmp_path, epoch):
            assert torch.equal(module.weight, best.weight) == same  # type: ignore[arg-type]


def test_without_a_best_it_goes_on(tmp_path: Path) -> None:
    model, _ = run(tmp_path, epoch=7)
    assert bool(torch.isfinite(model.weight).all())  # type: ignore[arg-type]
