"""The base of necks: like backbones they declare specs of their maps, with the channels of their layers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn

from efftasks.structures.features import FeatureSpec

__all__ = ["Neck", "output_channels"]


class Neck(nn.Module, ABC):
    """A network from maps to maps, finest first.

    Args:
        strides: of its output maps, in pixels.
    """

    def __init__(self, strides: Sequence[int]) -> None:
        super().__init__()
        self.strides = tuple(strides)

    @property
    def specs(self) -> tuple[FeatureSpec, ...]:
        """Channels and stride of each output map; the channels are read from the layers."""
        return tuple(map(FeatureSpec, map(output_channels, self.last_parts()), self.strides))

    @abstractmethod
    def last_parts(self) -> Sequence[nn.Module]:
        """The last module of each output map."""

    @abstractmethod
    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Maps (B, C_i, H_i, W_i) -> maps as declared in ``specs``."""


def output_channels(part: nn.Module) -> int:
    """Output channels of a module: those of its last convolution or linear layer, in the order of registration."""
    last = [module for module in part.modules() if isinstance(module, (nn.Conv2d, nn.Linear))][-1]
    return last.out_channels if isinstance(last, nn.Conv2d) else last.out_features
