"""Keep buffers equal in all processes of distributed training."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.dist import all_reduce_params
from mmengine.hooks import EMAHook, Hook

__all__ = ["SyncBuffers"]


class SyncBuffers(Hook):
    """Average the buffers of the model and its EMA over all processes at the end of each epoch.

    The runner adds it to distributed training; configs do not name it.

    Parameters are equal in all processes, but running statistics of batch norms are not, since each process has other
    images. Without this hook the processes would evaluate different models, and the saved one would be that of rank 0.
    mmengine's SyncBuffersHook leaves out the EMA, which is the model that is evaluated.
    """

    def after_train_epoch(self, runner: Any) -> None:
        """Average the buffers."""
        models = [runner.model, *(hook.ema_model.module for hook in runner.hooks if isinstance(hook, EMAHook))]
        buffers = [buffer for model in models for buffer in model.buffers() if buffer.is_floating_point()]
        with torch.no_grad():
            all_reduce_params(buffers, op="mean")
