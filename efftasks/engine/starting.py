"""The model at the start of training: dense, or compressed by the config or the checkpoint to start from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from efftasks.checkpoints.class_rows import CarriedClasses, ClassCarry
from efftasks.checkpoints.files import MatchReport, dataset_meta_of, load_matching, read_checkpoint, weights_of
from efftasks.checkpoints.loading import fitting_weights
from efftasks.compression.building import build_model
from efftasks.compression.plan import CompressionPlan, plan_of, undecided
from efftasks.compression.transform import DecideContext
from efftasks.structures.errors import UserError

__all__ = ["StartingModel", "check_rows_known", "starting_model"]


class StartingModel(NamedTuple):
    """A model, and how it was compressed."""

    model: nn.Module
    plan: CompressionPlan | None  # None for a dense model
    decided: bool = True  # false if the plan is that of a checkpoint
    # The weights after the transforms, how the dense weights of the checkpoint matched, and their classes; None without
    # both.
    fitted: tuple[dict[str, Tensor], MatchReport, CarriedClasses] | None = None


def starting_model(
    config: Mapping[str, Any],
    transforms: Sequence[Mapping[str, Any]],
    checkpoint: str | Path | None,
    resume: bool,
    context: DecideContext = DecideContext(),  # noqa: B008  (frozen)
    classes: ClassCarry = ClassCarry(),  # noqa: B008  (frozen)
) -> StartingModel:
    """Build the model of a config.

    The plan of the checkpoint is replayed. Transforms that it does not have are decided from the weights of the
    checkpoint, or from shapes alone without one.

    Args:
        config: of the dense model.
        transforms: the config's ``model_transforms``, which begin with the steps of the checkpoint's plan.
        checkpoint: the file whose weights are loaded later; None for training from scratch.
        resume: to resume from the checkpoint, not only to start from its weights.
        context: what transforms decide from, see :class:`~efftasks.compression.transform.DecideContext`.
        classes: which rows of prediction layers are taken from the checkpoint.

    Raises:
        UserError: the file cannot be read, is of another architecture, or was compressed by other steps; or it has not
            all transforms, and is to be resumed.
    """
    if checkpoint is None:
        return StartingModel(*build_model(config, transforms, context=context))
    data = read_checkpoint(checkpoint)
    plan = plan_of(data, checkpoint)
    if not undecided(plan, transforms, checkpoint):
        return StartingModel(*build_model(config, plan=plan, source=checkpoint), decided=plan is None)
    if resume:
        raise UserError(
            f"{checkpoint}: it is of a {'dense model' if plan is None else 'less compressed model'} and the config has "
            "model_transforms, so that training cannot be resumed from it; to compress it, set load_from"
        )
    reports = []

    def load(model: nn.Module) -> None:
        meta = dataset_meta_of(data, checkpoint)
        carried = classes.apply(model, weights_of(data, checkpoint), meta, checkpoint)
        weights, report = fitting_weights(model, carried.weights, str(checkpoint), True)
        load_matching(model, weights, name=str(checkpoint))
        reports.append((report, carried))

    model, plan = build_model(config, transforms, plan, load, checkpoint, context)
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    return StartingModel(model, plan, fitted=(weights, *reports[0]))


def check_rows_known(plan: CompressionPlan, trained_on: Mapping[str, Any], classes: ClassCarry, source: Any) -> None:
    """Refuse other classes than those of a checkpoint of quantization-aware training: its graphs do not name rows.

    Raises:
        UserError: they are others, or in another order.
    """
    if not any(step.type == "QuantizeAware" for step in plan.steps):
        return
    changed = classes.first_change(trained_on)
    if changed is not None:
        raise UserError(
            f"{source}: it is of quantization-aware training, whose {changed.kind} cannot be changed ({changed}); "
            "start from the checkpoint before it"
        )
