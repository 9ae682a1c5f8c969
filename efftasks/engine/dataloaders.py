"""mmengine's data loaders, with a number of workers that fits the machine, and never without a batch."""

from __future__ import annotations

from collections.abc import Sized

from mmengine.dataset import InfiniteSampler
from mmengine.dist import get_world_size
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from efftasks.engine.threads import free_workers

__all__ = ["build_dataloader"]


def build_dataloader(
    dataloader: DataLoader | dict, seed: int | None = None, diff_rank_seed: bool = False
) -> DataLoader:
    """Build a data loader.

    ``num_workers=None`` takes the number of :func:`free_workers`. A loader whose only batch would be dropped, because
    it is not full, keeps it, with a warning.
    """
    if isinstance(dataloader, dict) and dataloader.get("num_workers", 0) is None:
        workers = free_workers(get_world_size())
        is_persistent = bool(dataloader.get("persistent_workers")) and workers > 0
        dataloader = {**dataloader, "num_workers": workers, "persistent_workers": is_persistent}
    loader = Runner.build_dataloader(dataloader, seed, diff_rank_seed)
    samples = _samples_per_process(loader)
    if not isinstance(dataloader, dict) or samples is None or not 0 < samples < (loader.batch_size or 0):
        return loader
    if not loader.drop_last:
        return loader
    MMLogger.get_current_instance().warning(
        f"dataloader: the data set has {samples} samples{' a process' * (get_world_size() > 1)}, fewer than a "
        f"batch of {loader.batch_size}: every step takes all {samples}"
    )
    return Runner.build_dataloader({**dataloader, "drop_last": False}, seed, diff_rank_seed)


def _samples_per_process(loader: DataLoader) -> int | None:
    """Number of samples per epoch and process; None for samplers without end."""
    endless = isinstance(loader.sampler, InfiniteSampler)
    return None if endless or not isinstance(loader.sampler, Sized) else len(loader.sampler)
