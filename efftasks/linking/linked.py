"""The type of a config in which every value has reached its places."""

from __future__ import annotations

from mmengine.config import Config

__all__ = ["LinkedConfig"]


class LinkedConfig(Config):
    """A config that is linked: what it states once is where it is needed, and its numbers mean epochs and pixels.

    :func:`efftasks.config.load_config` makes it, nothing else does. Models, data sets and runners are built of what
    stands in it; what is set afterwards is taken as it stands, and ``load_config`` of it links anew.
    """

    @classmethod
    def of(cls, cfg: Config) -> LinkedConfig:
        """The same config, of this type; for whoever has linked it."""
        linked = cls.__new__(cls)
        linked.__setstate__(cfg.__getstate__())
        return linked
