"""Models of configs are built here: the dense model, then the steps of compression."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from mmengine.dist import broadcast_object_list
from torch import nn

from efftasks.compression.plan import CompressionPlan, Step, architecture_digest, plain, undecided
from efftasks.compression.transform import DecideContext, ModelTransform
from efftasks.registry import MODEL_TRANSFORMS, MODELS
from efftasks.structures.errors import UserError
from efftasks.structures.protocols import Elastic

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
    context: DecideContext = DecideContext(),  # noqa: B008  (frozen)
) -> BuiltModel:
    """Build a model, apply the steps of a plan, then the transforms of a config that the plan does not have.

    Args:
        model: config of the dense model.
        transforms: configs of :class:`~efftasks.compression.transform.ModelTransform`, in order. The first are those of
            the plan, see :func:`~efftasks.compression.plan.undecided`.
        plan: of the checkpoint that ``load`` loads; None for a dense one.
        load: loads trained weights after the steps of the plan, before further transforms are decided.
        source: of the plan, for messages.
        context: what transforms decide from; whether there are weights is set here.

    Raises:
        UserError: the plan is of another dense model than the config's, has a step that the config does not list, or
            names a transform that is not registered; or a transform follows one that makes several networks of one.
    """
    left = undecided(plan, transforms, source)
    built: Any = MODELS.build(copy.deepcopy(model))
    dense = architecture_digest(built) if plan is None else plan.dense
    steps = [] if plan is None else list(plan.steps)
    if plan is not None:
        built = _replayed(built, plan, source)
    if load is not None:
        load(built)
    context = replace(context, has_weights=load is not None)
    for config in left:
        if isinstance(built, Elastic):
            raise UserError(
                f"model_transforms: {plain(config['type'])} comes after {steps[-1].type}, which makes several networks "
                f"of one; expected {steps[-1].type} as the last step"
            )
        transform: ModelTransform = MODEL_TRANSFORMS.build(copy.deepcopy(config))
        decided = [transform.decide(built, context)]
        broadcast_object_list(decided)  # processes see other batches and times, and need the same layers
        built = transform.apply(built, decided[0])
        transform.refine(built, context)
        steps.append(Step(type(transform).__name__, decided[0], plain(config)))
    return BuiltModel(built, CompressionPlan(dense, tuple(steps)) if steps else None)


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
