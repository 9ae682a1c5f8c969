"""Models of configs are built here: the dense model, then the steps of compression."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from torch import nn

from efftasks.compression.plan import CompressionPlan, Step, architecture_digest
from efftasks.compression.transform import ModelTransform
from efftasks.registry import MODEL_TRANSFORMS, MODELS
from efftasks.structures.errors import UserError

__all__ = ["BuiltModel", "build_model"]


class BuiltModel(NamedTuple):
    """A model, with the record of its compression."""

    model: Any
    plan: CompressionPlan | None  # None for a dense one


def build_model(
    model: Mapping[str, Any],
    transforms: Sequence[Mapping[str, Any]] = (),
    plan: CompressionPlan | None = None,
    load: Callable[[nn.Module], object] | None = None,
    source: Any = "the compression plan",
) -> BuiltModel:
    """Build a model and apply the transforms of a plan, or else those of a config.

    Args:
        model: config of the dense model.
        transforms: configs of :class:`~efftasks.compression.transform.ModelTransform`, in order; not used if
            there is a plan.
        plan: of a checkpoint, whose weights the caller loads into the result.
        load: loads trained weights into the dense model before the transforms decide; not called if there is a plan.
        source: of the plan, for messages.

    Raises:
        UserError: the plan is of another dense model than the config's, or names a transform that is not registered.
    """
    built: Any = MODELS.build(copy.deepcopy(model))
    if plan is not None:
        return BuiltModel(_replayed(built, plan, source), plan)
    if load is not None:
        load(built)
    if not transforms:
        return BuiltModel(built, None)
    dense = architecture_digest(built)
    steps = []
    for config in transforms:
        transform: ModelTransform = MODEL_TRANSFORMS.build(copy.deepcopy(config))
        step = Step(type(transform).__name__, transform.decide(built, has_weights=load is not None))
        built = transform.apply(built, step.plan)
        steps.append(step)
    return BuiltModel(built, CompressionPlan(dense, tuple(steps)))


def _replayed(model: nn.Module, plan: CompressionPlan, source: Any) -> nn.Module:
    if architecture_digest(model) != plan.dense:
        raise UserError(
            f"{source}: its compression plan was made for another dense model than the config's; expected the config "
            "that it was trained with (training left it in the work dir)"
        )
    for step in plan.steps:
        kind: type[ModelTransform] | None = MODEL_TRANSFORMS.get(step.type)
        if kind is None:
            raise UserError(
                f"{source}: its compression plan has a step {step.type!r}, which is not registered; import what "
                "registers it with custom_imports, or use the efftasks that it was trained with"
            )
        model = kind.apply(model, step.plan)
    return model
