"""The model that a training starts with: dense or compressed, as its config or the checkpoint it starts from says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from efftasks.checkpoints.files import MatchReport, load_matching, read_checkpoint, weights_of
from efftasks.checkpoints.loading import fitting_weights
from efftasks.compression.building import build_model
from efftasks.compression.plan import CompressionPlan, plan_of
from efftasks.structures.errors import UserError

__all__ = ["StartingModel", "starting_model"]


class StartingModel(NamedTuple):
    """A model, and how it came to its layers."""

    model: nn.Module
    plan: CompressionPlan | None  # None for a dense model
    decided: bool = True  # by the config's transforms, or by nobody; else the plan is that of a checkpoint
    # What transforms made of the dense weights to start from, and how those fitted.
    fitted: tuple[dict[str, Tensor], MatchReport] | None = None


def starting_model(
    config: Mapping[str, Any], transforms: Sequence[Mapping[str, Any]], checkpoint: str | Path | None, resume: bool
) -> StartingModel:
    """Build the model of a config.

    A plan in the checkpoint wins over the config's transforms. Transforms decide from the weights of a dense
    checkpoint, and from shapes alone where there is none.

    Args:
        config: of the dense model.
        transforms: the config's ``model_transforms``.
        checkpoint: the file whose weights are loaded later; None where training starts from scratch.
        resume: it is to be resumed, not only to be started from.

    Raises:
        UserError: the file cannot be read, is of another architecture, or is of a dense model and to be resumed with
            transforms.
    """
    if checkpoint is None:
        return StartingModel(*build_model(config, transforms))
    data = read_checkpoint(checkpoint)
    plan = plan_of(data, checkpoint)
    if plan is not None or not transforms:
        return StartingModel(*build_model(config, plan=plan, source=checkpoint), decided=plan is None)
    if resume:
        raise UserError(
            f"{checkpoint}: it is of a dense model and the config has model_transforms, so that training cannot be "
            "resumed from it; to compress it, set load_from"
        )
    reports = []

    def load(model: nn.Module) -> None:
        weights, report = fitting_weights(model, weights_of(data, checkpoint), str(checkpoint), True)
        load_matching(model, weights, name=str(checkpoint))
        reports.append(report)

    model, plan = build_model(config, transforms, load=load)
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    return StartingModel(model, plan, fitted=(weights, reports[0]))
