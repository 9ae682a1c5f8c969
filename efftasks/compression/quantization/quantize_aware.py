"""Quantization-aware training: parts of a model are replaced by graphs with fake quantizers.

Sources: Jacob et al. (arXiv 1712.05877, section 3) for training with fake quantization and batch norms folded in;
torchao's PT2E flow for the graphs.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from efftasks.compression.folding import fold_model
from efftasks.compression.plan import architecture_digest
from efftasks.compression.transform import DecideContext, ModelTransform, refuse_early_exit, replace_modules
from efftasks.registry import MODEL_TRANSFORMS
from efftasks.structures.errors import UserError
from efftasks.structures.protocols import Bounded, Quantizable

__all__ = ["QuantizeAware"]


@MODEL_TRANSFORMS.register_module()
class QuantizeAware(ModelTransform):
    """Folds the model, and gives parts of it fake quantizers, which the hook ``QuantizationAware`` switches on.

    Batch norms are folded, and so frozen. It must be the last transform. It needs the extra ``compress``, also to load
    its checkpoints.

    Args:
        parts: names of modules, in the order in which they run, that are called with tensors alone and do the same in
            training and evaluation but for norms. None for those that the model declares
            (:class:`~efftasks.structures.protocols.Quantizable`).
        float_layers: shell patterns of names of layers in them that stay in float, beside those that the model
            declares: ``backbone.stem.*``.
        weight_bits: 7 or 8. Without VNNI a processor adds pairs of products in 16 bits, which saturate with 8 bits: the
            same file is worse there. 7 bits fit everywhere.
        linear: whether linear layers are quantized, and not convolutions alone.
        momentum: the share of a batch in the moving averages of the ranges of activations.

    Raises:
        ValueError: an argument is not in its range.
    """

    def __init__(
        self,
        parts: Sequence[str] | None = None,
        float_layers: Sequence[str] = (),
        weight_bits: int = 7,
        linear: bool = False,
        momentum: float = 0.01,
    ) -> None:
        for key, value in (("parts", parts), ("float_layers", float_layers)):
            if isinstance(value, str):
                raise ValueError(f"QuantizeAware.{key}: got {value!r}, expected a list of names")
        if weight_bits not in (7, 8):
            raise ValueError(f"QuantizeAware.weight_bits: got {weight_bits!r}, allowed are 7 and 8")
        if not 0 < momentum <= 1:
            raise ValueError(f"QuantizeAware.momentum: got {momentum}, allowed are numbers above 0, at most 1")
        self.parts, self.float_layers = parts, tuple(float_layers)
        self.numbers = dict(weight_bits=weight_bits, linear=linear, momentum=momentum)

    def decide(self, model: nn.Module, context: DecideContext) -> dict[str, Any]:
        """``{"parts": {name: [layers in float, named below it]}, "bounds": {name of a clamp: [low, high]}, ...}``.

        ``folded`` is a digest of the folded model: the plan is of its layers, and another version may fold differently.

        Raises:
            UserError: the model declares no parts, or a name or pattern names nothing.
        """
        refuse_early_exit(model, "model_transforms: QuantizeAware")
        declared, patterns = _declared(model)
        names = declared if self.parts is None else list(self.parts)
        if not names:
            raise UserError(
                f"model_transforms: QuantizeAware: {type(model).__name__} declares no part that can be quantized; name "
                "some in `parts`"
            )
        folded = fold_model(model)
        modules = dict(folded.named_modules())
        for name in names:
            if name not in modules:
                raise UserError(f"model_transforms: QuantizeAware.parts: got {name!r}, the model has no such module")
        layers = {name: _layers(modules[name]) for name in names}
        everything = [f"{name}.{key}" for name, keys in layers.items() for key in keys]
        for pattern in self.float_layers:
            if not any(fnmatchcase(key, pattern) for key in everything):
                raise UserError(
                    f"model_transforms: QuantizeAware.float_layers: got {pattern!r}, which names no layer of "
                    f"{', '.join(names)}; there are {', '.join(everything[:3])}, ..."
                )
        patterns += self.float_layers
        return dict(
            parts={
                name: [key for key in keys if any(fnmatchcase(f"{name}.{key}", pattern) for pattern in patterns)]
                for name, keys in layers.items()
            },
            folded=architecture_digest(folded),
            bounds={name: [module.low, module.high] for name, module in modules.items() if isinstance(module, Bounded)},
            **self.numbers,
        )

    @staticmethod
    def apply(model: nn.Module, plan: Mapping[str, Any]) -> nn.Module:
        """A folded copy with quantized parts, in float until the hook switches them.

        Raises:
            UserError: torchao is missing, or the plan does not fit the model.
        """
        if importlib.util.find_spec("torchao") is None:
            raise UserError("QuantizeAware: torchao is not installed; pip install 'efftasks[compress]'")
        from efftasks.compression.quantization.capture import captured_parts
        from efftasks.compression.quantization.quantizer import QuantizerSettings

        folded = fold_model(model)
        if architecture_digest(folded) != plan["folded"]:
            raise UserError(
                "QuantizeAware: the model of the plan was folded to other layers; load it with the efftasks of its "
                "training, or train again from the float checkpoint"
            )
        modules = dict(folded.named_modules())
        for name, (low, high) in plan["bounds"].items():
            clamp = modules.get(name)
            if not isinstance(clamp, Bounded):
                raise UserError(f"QuantizeAware: the plan has bounds for {name!r}, which is no clamp of the model")
            clamp.low, clamp.high = low, high
        settings = QuantizerSettings(plan["weight_bits"], plan["linear"], plan["momentum"])
        replace_modules(folded, captured_parts(folded, plan["parts"], settings))
        return folded.train(model.training)


def _layers(part: nn.Module) -> list[str]:
    """Names of the convolutions and linear layers of a folded part."""
    return [name for name, module in part.named_modules() if isinstance(module, (nn.Conv2d, nn.Linear))]


def _declared(model: nn.Module) -> tuple[list[str], list[str]]:
    """The parts that a model and its modules declare, and patterns of their layers in float."""
    parts, layers = [], []
    for name, module in model.named_modules():
        if isinstance(module, Quantizable):
            prefix = f"{name}." if name else ""
            parts += [prefix + part for part in module.integer_parts]
            layers += [prefix + layer for layer in module.float_layers]
    return parts, layers
