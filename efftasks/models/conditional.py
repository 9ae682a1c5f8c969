"""Conditional convolutions in the place of plain ones, as a step of a config.

See :class:`~efftasks.models.layers.cond_conv.CondConv2d` for the layer and its sources.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from efftasks.compression.transform import DecideContext, ModelTransform, called_modules, replace_modules
from efftasks.models.layers.cond_conv import CondConv2d
from efftasks.models.layers.conv import DepthwiseConv2d
from efftasks.registry import MODEL_TRANSFORMS
from efftasks.structures.errors import UserError

__all__ = ["ConditionalConv"]

# Differences of the experts at the start, relative to the kernel: enough for their gradients to differ in a network
# whose weights are random anyway, and little in a trained one.
NOISE, NOISE_OF_TRAINED = 1.0, 0.1


@MODEL_TRANSFORMS.register_module()
class ConditionalConv(ModelTransform):
    """Replaces convolutions by mixtures of several kernels, which a router chooses for each image.

    Each expert starts as the kernel of the convolution and a little noise, with equal gates: a network with trained
    weights computes the same as before.

    Args:
        layers: shell patterns of names of convolutions: ``backbone.stages.3.*``. Those with dilation or another padding
            than zeros are not replaced, nor are those whose weights other parts read.
        experts: number of kernels; at least 2.
        temperature: of the softmax over experts (arXiv 1912.03458): the higher, the more equal the gates. None for
            a sigmoid of each (arXiv 1904.04971).

    Raises:
        ValueError: an argument is not in its range.
    """

    def __init__(self, layers: Sequence[str], experts: int = 4, temperature: float | None = 1.0) -> None:
        if isinstance(layers, str) or not layers:
            raise ValueError(f"ConditionalConv.layers: got {layers!r}, expected a list of patterns of module names")
        if experts < 2:
            raise ValueError(f"ConditionalConv.experts: got {experts}, allowed are integers from 2")
        if temperature is not None and temperature <= 0:
            raise ValueError(f"ConditionalConv.temperature: got {temperature}, allowed are numbers above 0, and None")
        self.layers, self.experts, self.temperature = tuple(layers), experts, temperature

    def decide(self, model: nn.Module, context: DecideContext) -> dict[str, Any]:
        """``{"layers": [names], "experts": ..., "temperature": ..., "noise": ...}``.

        Raises:
            UserError: a pattern matches no convolution that could be replaced.
        """
        candidates = [name for name, module in called_modules(model) if _is_replaceable(module)]
        for pattern in self.layers:
            if not any(fnmatchcase(name, pattern) for name in candidates):
                raise UserError(
                    f"model_transforms: ConditionalConv.layers: got {pattern!r}, which names no convolution of the "
                    f"model that can be replaced; it has {', '.join(candidates[:3])}, ..."
                )
        return dict(
            layers=[name for name in candidates if any(fnmatchcase(name, pattern) for pattern in self.layers)],
            experts=self.experts,
            temperature=self.temperature,
            noise=NOISE_OF_TRAINED if context.has_weights else NOISE,
        )

    @staticmethod
    def apply(model: nn.Module, plan: Mapping[str, Any]) -> nn.Module:
        """The model with conditional convolutions."""
        modules = dict(called_modules(model))
        new: dict[str, nn.Module] = {}
        for name in plan["layers"]:
            layer = modules.get(name)
            if not isinstance(layer, nn.Conv2d) or not _is_replaceable(layer):
                raise UserError(f"ConditionalConv: the plan has {name!r}, which the model has no convolution for")
            new[name] = CondConv2d.of_conv(layer, plan["experts"], plan["temperature"], plan["noise"])
        replace_modules(model, new)
        return model


def _is_replaceable(module: nn.Module) -> bool:
    if type(module) not in (nn.Conv2d, DepthwiseConv2d):  # exact types: other subclasses may have another forward
        return False
    assert isinstance(module, nn.Conv2d)
    return module.dilation == (1, 1) and module.padding_mode == "zeros" and not isinstance(module.padding, str)
