"""Parameter groups by patterns of parameter names, for the learning rates and weight decays of detection papers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIMIZERS
from torch import nn

from efftasks.engine.wrapped import bare_model
from efftasks.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS

__all__ = ["PatternConstructor"]

_ALLOWED = ("patterns", "backbone_lr_mult", "no_decay")
_RULE_KEYS = ("lr", "weight_decay")


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class PatternConstructor:
    """Build an optimizer wrapper with a parameter group for each pattern.

    Args:
        optim_wrapper_cfg: as in mmengine.
        paramwise_cfg: one of two forms. ``patterns``: regular expression -> ``lr`` and ``weight_decay`` of parameters
            whose name contains a match; the first matching pattern counts, other parameters have the values of the
            optimizer. Or, for query detectors, ``backbone_lr_mult``, a factor on the learning rate of the backbone, and
            ``no_decay``, a regular expression for parameters without weight decay. With a factor other than 1 only the
            norms of the backbone have no weight decay.

    Raises:
        ValueError: an unknown key, or a pattern that matches no parameter.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None) -> None:
        self.config = dict(optim_wrapper_cfg)
        rules = {key: value for key, value in (paramwise_cfg or {}).items() if value is not None}
        if not set(rules) <= set(_ALLOWED) or ("patterns" in rules and len(rules) > 1):
            raise ValueError(
                f"optim_wrapper.paramwise_cfg: got {', '.join(rules)}, allowed are patterns, or backbone_lr_mult and "
                "no_decay; set those of the base config to None"
            )
        self.patterns: dict[str, dict[str, float]] = dict(rules.get("patterns", {}))
        self.backbone_lr_mult: float = rules.get("backbone_lr_mult", 1.0)
        self.no_decay: str | None = rules.get("no_decay")
        for pattern, rule in self.patterns.items():
            if not set(rule) <= set(_RULE_KEYS):
                raise ValueError(
                    f"optim_wrapper.paramwise_cfg.patterns[{pattern!r}]: got {', '.join(rule)}, allowed are lr and "
                    "weight_decay"
                )

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """Build the wrapper for the trainable parameters of a model."""
        model = bare_model(model)
        names = [name for name, _ in model.named_parameters()]
        for key, pattern in self._needed_patterns():
            if not any(re.search(pattern, name) for name in names):
                raise ValueError(f"optim_wrapper.paramwise_cfg.{key}: got {pattern!r}, no parameter's name fits it")
        patterns = self.patterns or self._query_patterns()
        groups: dict[str | None, dict[str, Any]] = {None: dict(params=[])}
        groups.update((pattern, dict(params=[], **rule)) for pattern, rule in patterns.items())
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                matching = next((pattern for pattern in patterns if re.search(pattern, name)), None)
                groups[matching]["params"].append(parameter)
        arguments = dict(self.config["optimizer"], params=[group for group in groups.values() if group["params"]])
        optimizer = OPTIMIZERS.build(arguments)
        wrapper_cfg = {key: value for key, value in self.config.items() if key not in ("optimizer", "constructor")}
        return OPTIM_WRAPPERS.build({"type": "OptimWrapper", **wrapper_cfg}, default_args=dict(optimizer=optimizer))

    def _needed_patterns(self) -> Iterator[tuple[str, str]]:
        """Patterns that must match, with the keys that state them; a backbone need not have norms."""
        yield from (("patterns", pattern) for pattern in self.patterns)
        if self.backbone_lr_mult != 1:
            yield "backbone_lr_mult", r"^backbone\."
        if self.no_decay is not None:
            yield "no_decay", self.no_decay

    def _query_patterns(self) -> Mapping[str, dict[str, float]]:
        """The patterns of ``backbone_lr_mult`` and ``no_decay``."""
        patterns: dict[str, dict[str, float]] = {}
        if self.backbone_lr_mult != 1:
            rate = float(f"{self.config['optimizer']['lr'] * self.backbone_lr_mult:.12g}")  # 1e-4 * 0.01 is 1e-6
            patterns[r"^backbone\..*norm"] = dict(lr=rate, weight_decay=0.0)
            patterns[r"^backbone\."] = dict(lr=rate)
        if self.no_decay is not None:
            patterns[self.no_decay] = dict(weight_decay=0.0)
        return patterns
