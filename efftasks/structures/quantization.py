"""How a file is quantized after training: the top-level key ``quantization`` of a config, and options of the export.

Standard library only.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from efftasks.structures.errors import UserError
from efftasks.structures.field_checks import check_choice, check_integer, check_texts

__all__ = ["METHODS", "QuantizationSettings"]

METHODS = ("auto", "minmax", "mean-minmax", "percentile", "entropy")
WEIGHT_BITS = (7, 8)


@dataclass(frozen=True)
class QuantizationSettings:
    """How a float network becomes one of 8-bit integers.

    Attributes:
        method: how the ranges of activations are taken from calibration images. ``auto`` takes the one whose file has
            the best metric on training images that calibration did not use.
        images: number of training images for calibration.
        subset: number of other training images on which ``auto`` compares methods.
        weight_bits: 8, or 7. Without VNNI instructions a CPU adds pairs of products of 8 bits in 16 bits, which
            saturates, so that a file with 8 bits may be worse there than where it was verified. 7 bits fit.
        float_layers: names of layers, or of modules with all below them, that stay in float, beside those that the
            model declares; ``*`` matches anything.

    Raises:
        UserError: a value is not allowed.
    """

    method: str = "auto"
    images: int = 256
    subset: int = 128
    weight_bits: int = 7
    float_layers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_choice("quantization.method", self.method, METHODS)
        for name in ("images", "subset"):
            check_integer(f"quantization.{name}", getattr(self, name))
        if type(self.weight_bits) is not int or self.weight_bits not in WEIGHT_BITS:
            raise UserError(f"quantization.weight_bits: got {self.weight_bits!r}, expected 7 or 8")
        layers = (self.float_layers,) if isinstance(self.float_layers, str) else self.float_layers
        check_texts("quantization.float_layers", layers)
        object.__setattr__(self, "float_layers", tuple(layers))

    @classmethod
    def from_config(cls, value: Mapping[str, Any] | None) -> QuantizationSettings:
        """From the ``quantization`` of a config; the defaults where there is none.

        Raises:
            UserError: it is no dict, or a key or value is not allowed.
        """
        if not isinstance(value or {}, Mapping):
            raise UserError(f"quantization: got {value!r}, expected a dict")
        names = [entry.name for entry in fields(cls)]
        for key in value or {}:
            if key not in names:
                near = difflib.get_close_matches(str(key), names, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else f", expected one of {', '.join(names)}"
                raise UserError(f"quantization.{key}: there is no such key{hint}")
        return cls(**(value or {}))
