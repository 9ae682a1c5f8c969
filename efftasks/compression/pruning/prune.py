"""Structured pruning as a step of a config."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from mmengine.logging import MMLogger
from torch import nn

from efftasks.compression.pruning.checking import failing_groups
from efftasks.compression.pruning.groups import ChannelGroup, ModelGroups, find_groups
from efftasks.compression.pruning.importance import Scores, bn_scale, first_ones, magnitude, taylor
from efftasks.compression.pruning.ratios import SCHEMES, removed_units
from efftasks.compression.pruning.slicing import cut, kept_plan
from efftasks.compression.pruning.targets import Target, count_flops, count_parameters, smallest_ratio
from efftasks.compression.pruning.tracing import keeps_modes, train_quietly
from efftasks.compression.transform import DecideContext, ModelTransform, refuse_early_exit
from efftasks.registry import MODEL_TRANSFORMS
from efftasks.structures.errors import UserError
from efftasks.structures.features import GUIDE_PREFIX

__all__ = ["Prune"]

IMPORTANCES = ("magnitude", "bn_scale", "taylor")


@MODEL_TRANSFORMS.register_module()
class Prune(ModelTransform):
    """Removes the channels that a network needs least.

    Feature maps that heads read, outputs, and the dimensions of attention and queries keep their channels; so do parts
    that only training has. Of feed-forward networks the inner channels are removed. What may be removed is found by
    following the channels through a run of the model, and every cut is checked by another run.

    Exactly one of ``ratio``, ``flops``, ``parameters`` and ``latency`` is given.

    Args:
        ratio: share of the channels to remove, in (0, 1).
        flops: share of the FLOPs that is left at most, in (0, 1).
        parameters: share of the parameters of the inference model that is left at most, in (0, 1).
        latency: time of the exported model: ``backend`` (``onnxruntime``), and either ``factor``, the share of the time
            that is left at most, or ``ms``.
        importance: ``magnitude`` of weights, ``bn_scale``: scales of batch norms, or ``taylor``: change of the loss.
            Without trained weights the first channels of each layer stay.
        scheme: how the ratio is spread over layers, see :func:`~efftasks.compression.pruning.ratios.removed_units`.
        round_to: layers that lose channels have a multiple of this left.
        batches: of the training data, for ``taylor``.
        recalibrate: batches of the training data for new statistics of the batch norms, if there are trained weights; 0
            keeps the old ones.
        layers: shell patterns of names of layers whose outputs may lose channels.
        ignore: of those whose outputs may not. Layers whose maps are added lose the same channels, or none does.

    Raises:
        ValueError: an argument is not in its range.
    """

    def __init__(
        self,
        ratio: float | None = None,
        flops: float | None = None,
        parameters: float | None = None,
        latency: Mapping[str, Any] | None = None,
        importance: str = "magnitude",
        scheme: str = "uniform",
        round_to: int = 8,
        batches: int = 16,
        recalibrate: int = 0,
        layers: Sequence[str] = ("*",),
        ignore: Sequence[str] = (),
    ) -> None:
        shares = dict(ratio=ratio, flops=flops, parameters=parameters)
        given = [name for name, value in {**shares, "latency": latency}.items() if value is not None]
        if len(given) != 1:
            raise ValueError(
                f"Prune: got {', '.join(given) or 'no target'}, expected one of ratio, flops, parameters, latency"
            )
        for name, share in shares.items():
            if share is not None and not 0 < share < 1:
                raise ValueError(f"Prune.{name}: got {share}, allowed are numbers between 0 and 1")
        for name, value, allowed in (("importance", importance, IMPORTANCES), ("scheme", scheme, SCHEMES)):
            if value not in allowed:
                raise ValueError(f"Prune.{name}: got {value!r}, allowed are {', '.join(allowed)}")
        for name, number, least in (
            ("round_to", round_to, 1),
            ("batches", batches, 1),
            ("recalibrate", recalibrate, 0),
        ):
            if number < least:
                raise ValueError(f"Prune.{name}: got {number}, allowed are integers from {least}")
        if isinstance(layers, str) or isinstance(ignore, str) or not layers:
            raise ValueError("Prune.layers, Prune.ignore: expected lists of patterns of names of layers")
        self.ratio, self.flops, self.parameters, self.latency = ratio, flops, parameters, _checked(latency)
        self.importance, self.scheme, self.round_to = importance, scheme, round_to
        self.batches, self.recalibrate = batches, recalibrate
        self.layers, self.ignore = tuple(layers), tuple(ignore)

    def decide(self, model: nn.Module, context: DecideContext) -> dict[str, Any]:
        """``{"axes": ..., "kept": ...}``, see :mod:`~efftasks.compression.pruning.slicing`.

        Raises:
            UserError: there is nothing to prune, the target cannot be met, or the context lacks batches or a runtime.
        """
        refuse_early_exit(model, "Prune")
        if context.image_size is None:
            raise UserError("Prune: the config has no image_size, expected (height, width) in pixels")
        logger = MMLogger.get_current_instance()
        logger.info("Prune: follows the channels of the network, and checks the cuts by running it; this takes a while")
        model_groups = find_groups(model, context.image_size)
        groups = self._chosen(model, model_groups, context.image_size)
        scores = self._scores(model, groups, context)

        def plan_at(ratio: float) -> dict[str, Any]:
            removed = removed_units(model, groups, scores, self.scheme, ratio, self.round_to)
            return kept_plan(model, groups, removed)

        if self.ratio is not None:
            ratio, result = self.ratio, ""
        else:
            target = self._target(model, context, model_groups)
            ratio, reached = smallest_ratio(model, plan_at, target)
            result = f"; {target.name} {reached:.4g}, limit {target.limit:.4g}"
        plan = plan_at(ratio)
        if not plan["axes"] and self.ratio is None:
            logger.info(f"Prune: the network meets its target already and keeps all channels{result}")
            return plan
        if not plan["axes"]:
            raise UserError(
                f"Prune: a ratio of {ratio} removes nothing: all layers keep a multiple of round_to={self.round_to}; "
                "lower round_to or raise the ratio"
            )
        logger.info(
            f"Prune: ratio {ratio} of {len(groups)} groups of channels{result}; "
            f"{len(model_groups.excluded)} layers keep theirs"
        )
        return plan

    @staticmethod
    def apply(model: nn.Module, plan: Mapping[str, Any]) -> nn.Module:
        """The model without the channels that the plan does not keep."""
        cut(model, plan)
        return model

    def refine(self, model: nn.Module, context: DecideContext) -> None:
        """Compute the statistics of batch norms anew, from training batches."""
        if not self.recalibrate or not context.has_weights:
            return
        losses = self._batches(context, "recalibrate")
        with keeps_modes(model), torch.no_grad():
            model.train()
            norms = _trained_norms(model)
            momenta = [norm.momentum for norm in norms]
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = None  # the mean over all batches
            for _ in losses(model, self.recalibrate):
                pass
            for norm, momentum in zip(norms, momenta):
                norm.momentum = momentum

    def _chosen(self, model: nn.Module, model_groups: ModelGroups, size: tuple[int, int]) -> list[ChannelGroup]:
        """The groups that the patterns allow and that pass the check.

        Raises:
            UserError: there are none, or a pattern names no layer.
        """
        names = [name for group in model_groups.groups for name in group.producers] + list(model_groups.excluded)
        for key, patterns in (("layers", self.layers), ("ignore", self.ignore)):
            for pattern in patterns:
                if not any(fnmatchcase(name, pattern) for name in names):
                    raise UserError(
                        f"model_transforms: Prune.{key}: got {pattern!r}, which names no convolution or linear layer "
                        f"that the model runs; it has {', '.join(names[:3])}, ..."
                    )
        groups = [group for group in model_groups.groups if self._allows(group)]
        failing = failing_groups(model, groups, size)
        for name, reason in failing.items():
            MMLogger.get_current_instance().warning(f"Prune: {name} keeps its channels: {reason}")
        groups = [group for group in groups if group.name not in failing]
        if not groups:
            reasons = [f"{name}: {reason}" for name, reason in {**model_groups.excluded, **failing}.items()]
            raise UserError(
                f"Prune: no layer of the model may lose channels (layers={list(self.layers)}, "
                f"ignore={list(self.ignore)}); {'; '.join(reasons[:3])}"
            )
        return groups

    def _allows(self, group: ChannelGroup) -> bool:
        return all(
            any(fnmatchcase(name, pattern) for pattern in self.layers)
            and not any(fnmatchcase(name, pattern) for pattern in self.ignore)
            for name in group.producers
        )

    def _scores(self, model: nn.Module, groups: list[ChannelGroup], context: DecideContext) -> Scores:
        if not context.has_weights:
            MMLogger.get_current_instance().warning(
                "Prune: the network has no trained weights, so that the first channels of each layer stay whatever "
                f"importance={self.importance!r} says; set load_from to decide from weights"
            )
            return first_ones(groups)
        if self.importance == "magnitude":
            return magnitude(model, groups)
        if self.importance == "bn_scale":
            return bn_scale(model, groups)
        losses = self._batches(context, "importance='taylor'")
        with keeps_modes(model), torch.enable_grad():
            train_quietly(model)
            return taylor(model, groups, losses(model, self.batches))

    @staticmethod
    def _batches(context: DecideContext, argument: str) -> Any:
        if context.batches is None:
            raise UserError(
                f"Prune: {argument} needs batches of the training data, which are not at hand here; start a training "
                "with load_from, then test or export its checkpoint"
            )
        return context.batches

    def _target(self, model: nn.Module, context: DecideContext, model_groups: ModelGroups) -> Target:
        size = context.image_size
        assert size is not None
        if self.flops is not None:
            return Target("FLOPs", self.flops * count_flops(model, size), lambda network: count_flops(network, size))
        if self.parameters is not None:
            unused = model_groups.training_only
            limit = self.parameters * count_parameters(model, unused)
            return Target("parameters", limit, lambda network: count_parameters(network, unused))
        assert self.latency is not None
        measure, backend = context.latency, self.latency["backend"]
        if measure is None:
            raise UserError(
                "Prune.latency: the model cannot be exported and timed here; train with `efftasks train` or apis.train"
            )
        limit = self.latency.get("ms") or self.latency["factor"] * measure(model, backend)
        return Target(f"milliseconds on {backend}", limit, lambda network: measure(network, backend))


def _trained_norms(model: nn.Module) -> list[nn.BatchNorm2d]:
    """The batch norms whose statistics training computes; a warning counts the others."""
    norms = [
        part
        for name, part in model.named_modules()
        if isinstance(part, nn.BatchNorm2d) and not name.startswith(GUIDE_PREFIX)
    ]
    trained = [norm for norm in norms if norm.training]
    if len(trained) < len(norms):
        MMLogger.get_current_instance().warning(
            f"Prune.recalibrate: {len(norms) - len(trained)} of {len(norms)} batch norms are frozen and keep the "
            "statistics of the network before; remove 'norms' from `frozen` of the backbone to compute them anew"
        )
    return trained


def _checked(latency: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if latency is None:
        return None
    value = latency.get("ms", latency.get("factor"))
    one = {"backend", "ms"} == set(latency) or {"backend", "factor"} == set(latency)
    if not one or not isinstance(value, (int, float)) or value <= 0 or ("factor" in latency and value >= 1):
        raise ValueError(
            f"Prune.latency: got {dict(latency)}, expected backend and either ms (above 0) or factor (between 0 and 1)"
        )
    return dict(latency)
