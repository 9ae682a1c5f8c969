"""Validate all widths of a network, not the widest alone."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.runner import autocast

from efftasks.engine.wrapped import bare_model
from efftasks.structures.protocols import Elastic

__all__ = ["ValidateWidths"]


class ValidateWidths(Hook):
    """Add the metrics of narrower widths to those of the widest, as ``width0.25/mIoU``.

    The runner adds it to trainings of models with several widths; configs do not name it. A width takes one pass over
    the validation data.
    """

    priority = "HIGHEST"  # before metrics are logged and averaged weights are exchanged

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Validate the other widths, with the weights of the validation."""
        model: Any = bare_model(runner.model)
        if metrics is None or not isinstance(model, Elastic):
            return
        widest, *others = model.choices()
        for width in others:
            model.activate(width)
            scores = _evaluated(runner, runner.val_loop)
            metrics.update({f"width{width:g}/{name}": value for name, value in scores.items()})
        model.activate(widest)


@torch.no_grad()
def _evaluated(runner: Any, loop: Any) -> dict[str, float]:
    for batch in loop.dataloader:
        with autocast(enabled=loop.fp16):
            samples = runner.model.val_step(batch)
        loop.evaluator.process(data_samples=samples, data_batch=batch)
    scores: dict[str, float] = loop.evaluator.evaluate(len(loop.dataloader.dataset))
    return scores
