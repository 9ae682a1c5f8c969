"""A training loop whose epochs can end early."""

from __future__ import annotations

from mmengine.runner import EpochBasedTrainLoop

from efftasks.registry import LOOPS

__all__ = ["CutEpochLoop"]


@LOOPS.register_module()
class CutEpochLoop(EpochBasedTrainLoop):
    """mmengine's loop; a hook that sets ``ends_epoch`` ends the current epoch after its step."""

    ends_epoch = False

    def run_epoch(self) -> None:
        """Run one epoch."""
        self.ends_epoch = False
        self.runner.call_hook("before_train_epoch")
        self.runner.model.train()
        for index, batch in enumerate(self.dataloader):
            self.run_iter(index, batch)
            if self.ends_epoch:
                break
        self.runner.call_hook("after_train_epoch")
        self._epoch += 1
