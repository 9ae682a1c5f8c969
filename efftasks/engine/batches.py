"""Losses of training batches before training, for the decisions of compression."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mmengine.device import get_device
from torch import Tensor, nn
from torch.utils.data import DataLoader

__all__ = ["training_losses"]


def training_losses(
    dataloader: Mapping[str, Any], build: Callable[..., DataLoader], seed: int | None
) -> Callable[[nn.Module, int], Iterator[Tensor]]:
    """The ``batches`` of a :class:`~efftasks.compression.transform.DecideContext`.

    Args:
        dataloader: config of the training data, which are read without workers when the first batch is asked for.
        build: makes a loader of it.
        seed: of the sampler.
    """

    def losses(model: nn.Module, count: int) -> Iterator[Tensor]:
        network: Any = model
        loader = build({**dataloader, "num_workers": 0, "persistent_workers": False}, seed=seed)
        home = next(network.parameters()).device
        network.to(get_device())
        try:
            done = 0
            while done < count:
                for data in loader:
                    if done == count:
                        break
                    done += 1
                    batch = network.data_preprocessor(data, True)
                    yield network.parse_losses(network(**batch, mode="loss"))[0]
        finally:
            network.to(home)

    return losses
