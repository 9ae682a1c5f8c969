"""Learning rates and weight decays by patterns of parameter names, as detection papers' tables state them."""

from __future__ import annotations

import re
from typing import Any

from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIMIZERS
from torch import nn

from efftasks.engine.wrapped import bare_model
from efftasks.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS

__all__ = ["PatternConstructor"]

_ALLOWED = {"lr", "weight_decay"}


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class PatternConstructor:
    """Build an optimizer wrapper with a parameter group for each pattern.

    Args:
        optim_wrapper_cfg: as mmengine has it.
        paramwise_cfg: ``patterns``: regular expression -> ``lr`` and ``weight_decay`` of the parameters whose name it
            is found in; the first that fits counts, what fits none has the optimizer's own.

    Raises:
        ValueError: another key, or a pattern that no parameter fits.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None) -> None:
        self.config = dict(optim_wrapper_cfg)
        rules = dict(paramwise_cfg or {})
        self.patterns: dict[str, dict[str, float]] = dict(rules.pop("patterns", {}))
        if rules:
            raise ValueError(f"optim_wrapper.paramwise_cfg: got {', '.join(rules)}, allowed is patterns")
        for pattern, rule in self.patterns.items():
            if not set(rule) <= _ALLOWED:
                raise ValueError(
                    f"optim_wrapper.paramwise_cfg.patterns[{pattern!r}]: got {', '.join(rule)}, allowed are lr and "
                    "weight_decay"
                )

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """The wrapper for a model's trainable parameters."""
        model = bare_model(model)
        groups: dict[str | None, dict[str, Any]] = {None: dict(params=[])}
        groups.update((pattern, dict(params=[], **rule)) for pattern, rule in self.patterns.items())
        seen_names = [name for name, _ in model.named_parameters()]
        for pattern in self.patterns:
            if not any(re.search(pattern, name) for name in seen_names):
                raise ValueError(f"optim_wrapper.paramwise_cfg.patterns: got {pattern!r}, no parameter's name fits it")
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                fitting = next((pattern for pattern in self.patterns if re.search(pattern, name)), None)
                groups[fitting]["params"].append(parameter)
        arguments = dict(self.config["optimizer"], params=[group for group in groups.values() if group["params"]])
        optimizer = OPTIMIZERS.build(arguments)
        rest = {key: value for key, value in self.config.items() if key not in ("optimizer", "constructor")}
        return OPTIM_WRAPPERS.build({"type": "OptimWrapper", **rest}, default_args=dict(optimizer=optimizer))
