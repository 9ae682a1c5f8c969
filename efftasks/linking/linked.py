"""The type of a linked config."""

from __future__ import annotations

from mmengine.config import Config

__all__ = ["LinkedConfig"]


class LinkedConfig(Config):
    """A config whose open values are filled in, with all numbers in epochs and pixels.

    Only ``load_config`` and ``config_of_checkpoint`` of :mod:`efftasks.config` link one. Models, data sets and runners
    are built from its values as they are, also those that were changed afterwards; ``load_config`` of it links again.
    """

    @classmethod
    def of(cls, cfg: Config) -> LinkedConfig:
        """The same config as a LinkedConfig, for the code that has linked it."""
        linked = cls.__new__(cls)
        linked.__setstate__(cfg.__getstate__())
        return linked
