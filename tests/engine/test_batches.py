"""Losses of training batches for decisions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from efftasks.engine.batches import training_losses


class Mean(nn.Module):
    """Its loss is the mean of a batch times a weight of 2."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(2.0))

    def data_preprocessor(self, data: Tensor, training: bool) -> dict[str, Tensor]:
        return dict(inputs=data)

    def forward(self, inputs: Tensor, mode: str) -> Tensor:
        return (inputs * self.weight).mean()

    def parse_losses(self, loss: Tensor) -> tuple[Tensor]:
        return (loss,)


def test_settings_of_workers_do_not_count() -> None:
    """As many batches as asked for, in rounds through the data, whatever the config sets for its workers."""
    config = dict(num_workers=4, persistent_workers=True, prefetch_factor=4, timeout=30, batch_size=2)

    def build(settings: dict[str, Any], seed: int | None) -> DataLoader:
        return DataLoader([torch.tensor(float(i)) for i in range(4)], **settings)  # type: ignore[arg-type]

    losses = list(training_losses(config, build, seed=None)(Mean(), 3))
    assert [loss.item() for loss in losses] == [1.0, 5.0, 1.0]


class Fading(Mean):
    """Its loss is weighted by the training progress."""

    progress = 0.0

    def set_progress(self, fraction: float) -> None:
        self.progress = fraction

    def forward(self, inputs: Tensor, mode: str) -> Tensor:
        return super().forward(inputs, mode) * self.progress


def test_losses_are_those_of_the_last_epoch() -> None:
    """What fades out during training does not count, and training begins as if nothing had been computed."""
    model = Fading()
    data: Any = [torch.tensor(3.0)]
    losses = list(training_losses({}, lambda settings, seed: DataLoader(data), seed=None)(model, 2))
    assert [loss.item() for loss in losses] == [6.0, 6.0]
    assert model.progress == 0
