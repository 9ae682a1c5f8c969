"""Switch fake quantization on during training."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from mmengine.hooks import EMAHook, Hook
from torch import nn

from efftasks.compression.quantization.part import quantized_parts
from efftasks.engine.wrapped import bare_model
from efftasks.registry import HOOKS
from efftasks.structures.errors import UserError

__all__ = ["QuantizationAware"]


@HOOKS.register_module()
class QuantizationAware(Hook):
    """Measure the ranges of activations, then round numbers to 8 bits, then keep the ranges.

    It needs the transform ``QuantizeAware``. Ranges of weights are always those of the current weights. The averaged
    model (EMA) gets the ranges of the trained one, not their average. The best score is forgotten when fake
    quantization begins: ``best.pth`` is of the quantized model.

    Epochs are counted from 0; in a config also as shares of training or points of ``schedule``.

    Args:
        observe: the first epoch in which ranges are measured.
        quantize: the first epoch with fake quantization.
        freeze: the first epoch in which ranges are not measured any more; None for never.

    Raises:
        ValueError: the epochs do not ascend.
    """

    linked_epochs: ClassVar[tuple[str, ...]] = ("observe", "quantize", "freeze")

    def __init__(self, observe: int = 0, quantize: int = 1, freeze: int | None = None) -> None:
        if not 0 <= observe < quantize or (freeze is not None and freeze < quantize):
            raise ValueError(
                f"QuantizationAware: got observe={observe}, quantize={quantize}, freeze={freeze}, expected epochs with "
                "0 <= observe < quantize <= freeze"
            )
        self.observe, self.quantize, self.freeze = observe, quantize, freeze

    def before_train(self, runner: Any) -> None:
        """Check the model and the length of training; after a resume, tell from when on scores count."""
        if not quantized_parts(bare_model(runner.model)):
            raise UserError(
                "QuantizationAware: the model has no quantized parts; add dict(type='QuantizeAware') to "
                "model_transforms, or remove the hook"
            )
        if self.quantize >= runner.max_epochs:
            runner.logger.warning(
                f"QuantizationAware: quantize is epoch {self.quantize} and training has {runner.max_epochs}: the model "
                "stays in float"
            )
        # best.pth of the float model would bring its score back; SafeCheckpointHook reads this.
        runner.message_hub.update_info("scores_after", self.quantize if runner.epoch > self.quantize else 0)

    def before_train_epoch(self, runner: Any) -> None:
        """Set the phase of the epoch, in the model and its EMA."""
        epoch = runner.epoch
        if epoch == self.quantize:  # scores of the float model are of another one
            runner.message_hub.pop_info("best_score", None)
        observe = self.observe <= epoch and (self.freeze is None or epoch < self.freeze)
        for model in (bare_model(runner.model), *_averages(runner)):
            for part in quantized_parts(model).values():
                part.set_phase(observe=observe, quantize=epoch >= self.quantize)

    def after_train_epoch(self, runner: Any) -> None:
        """Set the ranges of the EMA: an average that began without ranges would never have any."""
        parts = quantized_parts(bare_model(runner.model))
        for model in _averages(runner):
            for name, part in quantized_parts(model).items():
                part.copy_ranges(parts[name])
                part.measure_weights()


def _averages(runner: Any) -> Iterator[nn.Module]:
    return (hook.ema_model.module for hook in runner.hooks if isinstance(hook, EMAHook))
