"""What one part of the package may ask of an object that another part made, as structural types."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["Exportable", "Fusable", "Progressive"]


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


@runtime_checkable
class Progressive(Protocol):
    """A module whose training changes with its progress."""

    def set_progress(self, fraction: float) -> None:
        """Tell how much of training is done, in [0, 1]."""
        ...


@runtime_checkable
class Exportable(Protocol):
    """A model that can become an artifact."""

    def infer(self, images: Tensor) -> tuple[Any, ...]:
        """Preprocessed images (B, 3, H, W) -> tensors for the outputs of the artifact, in order, or None."""
        ...
