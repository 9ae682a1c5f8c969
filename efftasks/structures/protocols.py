"""What one part of the package may ask of an object that another part made, as structural types."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Fusable"]


@runtime_checkable
class Fusable(Protocol):
    """A module with a smaller equivalent for inference.

    ``fuse()`` returns a *new* module that gives the same outputs in evaluation mode: batch norms folded into
    convolutions, branches that only training needs left out. The module itself stays as it is. Fusing a fused module
    changes nothing.
    """

    def fuse(self) -> nn.Module:
        """The equivalent for inference, in evaluation mode, sharing no tensor with this module."""
        ...
