"""What a feature map of a backbone or neck is, declared once by its maker and read by all others; a model's stages."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["EXIT_MODULE", "GUIDE_PREFIX", "FeatureSpec", "Stages"]

EXIT_MODULE = "early_exit"  # of a detector that answers early: a model without it may become one with it
GUIDE_PREFIX = "guide."  # of the names of weights that a model has for its teacher, and nothing else reads


class FeatureSpec(NamedTuple):
    """A feature map of shape (B, channels, H / stride, W / stride) for an input of (B, 3, H, W)."""

    channels: int
    stride: int


class Stages(NamedTuple):
    """What a model makes of images on the way to its answer."""

    features: tuple[Tensor, ...]  # the maps that its head sees: (B, C_i, H / s_i, W / s_i), finest first
    raw: Any  # the head's raw prediction: a NamedTuple of tensors, or logits
    recorded: Mapping[str, Any] = MappingProxyType({})  # name of a module -> its output, where a guide needs it
    model: Any = None  # the network itself, where a guide needs it
