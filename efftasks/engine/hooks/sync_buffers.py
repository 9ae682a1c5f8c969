"""Keep the running statistics of several processes equal."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.dist import all_reduce_params
from mmengine.hooks import EMAHook, Hook

__all__ = ["SyncBuffers"]


class SyncBuffers(Hook):
    """At the end of each epoch, give all processes the mean of their buffers, the model's and its average's.

    The runner adds it wherever several processes train; it is no matter of the config.

    Parameters are equal in all processes anyway, the statistics of batch norms are not: each process sees its own
    images. Without this, processes would score different models, and the saved one would be that of the first.
    mmengine's SyncBuffersHook leaves out the average, which is the one that is scored.
    """

    def after_train_epoch(self, runner: Any) -> None:
        """Average."""
        models = [runner.model, *(hook.ema_model.module for hook in runner.hooks if isinstance(hook, EMAHook))]
        buffers = [buffer for model in models for buffer in model.buffers() if buffer.is_floating_point()]
        with torch.no_grad():
            all_reduce_params(buffers, op="mean")
