"""How much each layer adds to the error of a quantized network: a sweep that quantizes one layer at a time.

One layer at a time, and not all but one: the errors of layers are nearly independent, so that their powers add up, and
what a layer adds alone is exact, while what it takes away from all is lost in the others. The error is measured where
the quantized part ends and the float part begins, relative to the values there: a few background logits of -380, or a
pair of queries that change places behind it, do not count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from efftasks.export.quantization.qdq import QdqQuantizer, cut
from efftasks.export.quantization.recipe import Recipe

if TYPE_CHECKING:
    from efftasks.export.quantization.recipe import CalibrationImages

__all__ = ["LayerError", "layers_to_keep", "sweep"]

LEAST_SHARE = 0.1  # of the error of all layers: what is worth a layer in float


@dataclass(frozen=True)
class LayerError:
    """What one layer adds.

    Attributes:
        name: of the module.
        weights: their number.
        noise: power of the error over power of the values, mean of the tensors at the end of the quantized part.
        share: of the noise of all layers together.
    """

    name: str
    weights: int
    noise: float
    share: float

    @property
    def decibels(self) -> float:
        """Signal to noise ratio."""
        return float(-10 * np.log10(max(self.noise, 1e-20)))


def sweep(quantizer: QdqQuantizer, recipe: Recipe, images: CalibrationImages) -> list[LayerError]:
    """Quantize each layer alone, and compare with the float network.

    Args:
        quantizer: of the network.
        recipe: ``float_layers`` are left out.
        images: a few are enough.

    Returns:
        One row for each layer, the largest error first.
    """
    chosen = quantizer.layers.choose(recipe.float_layers)
    probe = cut(quantizer.model, chosen.boundary)
    expected = _outputs(probe, images)
    noises = {}
    for name in tqdm(chosen.layers, desc="sensitivity", unit="layer", disable=None, leave=False):
        alone = quantizer.layers.choose(recipe.float_layers, only=(name,))
        outputs = _outputs(quantizer.quantized(probe, alone, recipe), images)
        noises[name] = float(np.mean([_noise(a, b) for a, b in zip(expected, outputs)]))
    total = sum(noises.values()) or 1.0
    rows = [LayerError(name, quantizer.layers.cost(name), noise, noise / total) for name, noise in noises.items()]
    return sorted(rows, key=lambda row: -row.noise)


def layers_to_keep(rows: Sequence[LayerError]) -> tuple[str, ...]:
    """Names of the layers that alone make at least a tenth of the error: those worth their time in float."""
    return tuple(row.name for row in rows if row.share >= LEAST_SHARE)


def _outputs(model: Any, images: CalibrationImages) -> list[list[np.ndarray]]:
    """By output, by image."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    values = [session.run(None, {name: image}) for image in images]
    return [list(column) for column in zip(*values)]


def _noise(expected: Sequence[np.ndarray], values: Sequence[np.ndarray]) -> float:
    error = sum(float(np.square(a - b, dtype=np.float64).sum()) for a, b in zip(expected, values))
    return error / max(sum(float(np.square(a, dtype=np.float64).sum()) for a in expected), 1e-20)
