"""What a quantizer is given: images as the network takes them, and how to quantize."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

__all__ = ["CalibrationImages", "Recipe"]


@dataclass(frozen=True)
class CalibrationImages:
    """The images on which ranges are measured.

    Attributes:
        names: of the images, in order: paths, of objects with their boxes.
        load: index -> network input float32 (1, 3, H, W), preprocessed as the exported file states it.
        value_range: the least and the largest value that an image can have there; None if it is not known.
    """

    names: Sequence[str]
    load: Callable[[int], np.ndarray]
    value_range: tuple[float, float] | None = None

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[np.ndarray]:
        """Network inputs, loaded when asked for, as often as asked for."""
        return (self.load(i) for i in range(len(self)))

    def feed(self, index: int, name: str) -> dict[str, np.ndarray]:
        """What a network is given for an image, by the names of its inputs.

        Args:
            index: of the image.
            name: of the network's first input.
        """
        return {name: self.load(index)}

    @property
    def digest(self) -> str:
        """SHA-256 of the names, one per line."""
        return hashlib.sha256("\n".join(self.names).encode()).hexdigest()

    def first(self, count: int) -> CalibrationImages:
        """Some of them, evenly spaced."""
        step = max(1, len(self.names) // count)
        chosen = list(range(0, len(self.names), step))[:count]
        return CalibrationImages([self.names[i] for i in chosen], lambda i: self.load(chosen[i]), self.value_range)


@dataclass(frozen=True)
class Recipe:
    """How a float network is quantized.

    Attributes:
        method: one of the exporter's methods for ranges of activations.
        weight_bits: 7 or 8, see :class:`~efftasks.structures.quantization.QuantizationSettings`.
        float_layers: patterns of names of layers that stay in float, too.
    """

    method: str
    weight_bits: int = 7
    float_layers: tuple[str, ...] = ()
