"""An exit inside the backbone, with a neck and a head of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from efftasks.models.backbones.staged import StagedBackbone
from efftasks.models.exits.base import EarlyExit, GivesImageLosses, padded
from efftasks.registry import MODELS
from efftasks.structures.instances import DetectionTensors, EarlyAnswer, PaddedTargets

__all__ = ["BackboneExit"]


@MODELS.register_module()
class BackboneExit(EarlyExit):
    """Answers from the finest maps of the backbone; the stages after them, the neck and the head run for the others.

    Args:
        model: the detector; given by it.
        after: stride of the last map of the backbone that the exit sees, in pixels.
        neck: config without ``in_specs``, of a small neck on these maps, or on the coarsest of them.
        head: config without ``in_specs``, of a head with the outputs of the detector's.
        gate: see :class:`~efftasks.models.exits.base.EarlyExit`.
        levels: the number of maps that the neck reads: the coarsest ones up to ``after``; None for all.
        threshold: see :class:`~efftasks.models.exits.base.EarlyExit`.
        train_only: see :class:`~efftasks.models.exits.base.EarlyExit`.
        loss_weight: of the losses of the head of the exit.

    Raises:
        ValueError: ``after`` is not the stride of a map before the last, the backbone cannot be computed in two parts,
            or the head predicts something else than the detector's.
    """

    def __init__(
        self,
        model: Any,
        after: int,
        neck: Mapping[str, Any],
        head: Mapping[str, Any],
        gate: Mapping[str, Any],
        levels: int | None = None,
        threshold: float = 0.5,
        train_only: str | None = None,
        loss_weight: float = 1.0,
    ) -> None:
        backbone = model.backbone
        if not isinstance(backbone, StagedBackbone):
            raise ValueError(f"BackboneExit: got {type(backbone).__name__}, which runs as a whole; expected stages")
        strides = [spec.stride for spec in backbone.specs]
        if after not in strides[:-1]:
            raise ValueError(f"BackboneExit.after: got {after}, allowed are strides of maps but the last: {strides}")
        count = strides.index(after) + 1
        levels = count if levels is None else levels
        if not 1 <= levels <= count:
            raise ValueError(f"BackboneExit.levels: got {levels}, allowed are 1 to {count}, the maps up to {after}")
        own_neck = MODELS.build(dict(neck, in_specs=backbone.specs[count - levels : count]))
        super().__init__(model, gate, [spec.channels for spec in own_neck.specs], threshold, train_only)
        self.count, self.levels, self.loss_weight = count, levels, loss_weight
        self.neck = own_neck
        self.head = MODELS.build(dict(head, in_specs=own_neck.specs))
        _check_heads(self.head, model, self.gate)

    def set_progress(self, fraction: float) -> None:
        """Set training progress, in [0, 1]."""
        self.head.set_progress(fraction)

    def _features(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return self.neck(maps[self.count - self.levels : self.count])

    def infer_early(self, model: Any, images: Tensor) -> EarlyAnswer:
        """See :meth:`EarlyExit.infer_early`; it carries the maps of the backbone up to the exit."""
        carried = model.backbone.first_maps(images, self.count)
        features = self._features(carried)
        detections = self.head.decode(self.head(features))
        score, _ = self.gate(features, detections)
        count = model.head.count_detections(images.shape[2], images.shape[3])
        return EarlyAnswer(padded(detections, count), score, carried)

    def infer_late(self, model: Any, carried: tuple[Tensor, ...]) -> DetectionTensors:
        """See :meth:`EarlyExit.infer_late`."""
        maps = (*carried, *model.backbone.further_maps(carried))
        return model.head.decode(model.head(model.neck(maps)))

    def losses(self, model: Any, maps: Sequence[Tensor], raw: Any, targets: PaddedTargets) -> dict[str, Tensor]:
        """See :meth:`EarlyExit.losses`."""
        features = self._features(maps)
        if self.train_only == "gate":
            return self.gate_losses(features, (self.head, self.head(features)), (model.head, raw), targets)
        early, losses = self.head.raw_and_loss(features, targets)
        weighted = {name: self.loss_weight * value for name, value in losses.items()}
        return {**weighted, **self.gate_losses(features, (self.head, early), (model.head, raw), targets)}

    def losses_alone(self, model: Any, images: Tensor, targets: PaddedTargets) -> dict[str, Tensor]:
        """See :meth:`EarlyExit.losses_alone`; the rest of the network runs for gates that compare both answers."""
        raw = None
        with torch.no_grad():
            maps = model.backbone.first_maps(images, self.count)
            if self.gate.compares:
                raw = model.head(model.neck((*maps, *model.backbone.further_maps(maps))))
        return self.losses(model, maps, raw, targets)


def _check_heads(own: Any, model: Any, gate: Any) -> None:
    """Check that the head of an exit answers as that of the detector does."""
    if own.num_classes != model.head.num_classes:
        raise ValueError(
            f"BackboneExit.head.num_classes: got {own.num_classes}, expected {model.head.num_classes}, as the head has"
        )
    ours, theirs = (
        [part.name for part in head.part_outputs(model.divisor, model.divisor)] for head in (own, model.head)
    )
    if ours != theirs:
        raise ValueError(f"BackboneExit.head: it predicts {ours} beside boxes, expected {theirs}, as the head does")
    if gate.compares and not (isinstance(own, GivesImageLosses) and isinstance(model.head, GivesImageLosses)):
        raise ValueError(
            f"BackboneExit.gate: {type(gate).__name__} compares losses of images, which {type(own).__name__} or "
            f"{type(model.head).__name__} does not give; expected a ConfidenceGate"
        )
