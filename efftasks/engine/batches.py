"""Losses of training batches before training, for the decisions of compression."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mmengine.device import get_device
from torch import Tensor, nn
from torch.utils.data import DataLoader

from efftasks.structures.protocols import Progressive

__all__ = ["training_losses"]

# Settings of a loader that PyTorch or mmengine refuse without workers.
_OF_WORKERS = ("num_workers", "persistent_workers", "prefetch_factor", "timeout")


def training_losses(
    dataloader: Mapping[str, Any], build: Callable[..., DataLoader], seed: int | None
) -> Callable[[nn.Module, int], Iterator[Tensor]]:
    """The ``batches`` of a :class:`~efftasks.compression.transform.DecideContext`.

    The losses are those of the last epoch: at the start of training an ``o2o`` head weights its one-to-many branch,
    which prediction does not have, four times as high as the other, and channels that prediction needs would count for
    little.

    Args:
        dataloader: config of the training data, which are read without workers when the first batch is asked for.
        build: makes a loader of it.
        seed: of the sampler.
    """

    def losses(model: nn.Module, count: int) -> Iterator[Tensor]:
        network: Any = model
        config = {key: value for key, value in dataloader.items() if key not in _OF_WORKERS}
        loader = build({**config, "num_workers": 0}, seed=seed)
        home = next(network.parameters()).device
        network.to(get_device())
        if isinstance(network, Progressive):
            network.set_progress(1.0)
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
            if isinstance(network, Progressive):
                network.set_progress(0.0)  # training begins

    return losses
