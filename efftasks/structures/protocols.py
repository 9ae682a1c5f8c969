"""What one part of the package may ask of an object that another part made, as structural types."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["Exportable", "Foldable", "Progressive", "Strippable"]


@runtime_checkable
class Foldable(Protocol):
    """A module with an equivalent of fewer operations: norms in convolutions, parallel branches in one.

    ``fold()`` returns a *new* module, which gives the same outputs in evaluation mode up to rounding, and can be
    trained. The module itself stays as it is.
    """

    def fold(self) -> nn.Module:
        """The equivalent, in evaluation mode, sharing no tensor with this module."""
        ...


@runtime_checkable
class Strippable(Protocol):
    """A module with parts that only training has: branches, denoising, criteria, auxiliary heads, teachers.

    ``strip()`` returns a *new* module without them, which gives the same outputs in evaluation mode to the last bit.
    The module itself stays as it is.
    """

    def strip(self) -> nn.Module:
        """A copy for inference, sharing no tensor with this module."""
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
