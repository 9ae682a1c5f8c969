"""An exit between two layers of the decoder of a query detector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from efftasks.models.det_heads.layered_decoder import LayeredDecoder
from efftasks.models.det_heads.query_head import QueryHead
from efftasks.models.exits.base import EarlyExit
from efftasks.registry import MODELS
from efftasks.structures.instances import DetectionTensors, EarlyAnswer, PaddedTargets

__all__ = ["DecoderExit"]


@MODELS.register_module()
class DecoderExit(EarlyExit):
    """Answers after the first layers of the decoder, which deep supervision trains anyway: only the gate is new.

    Args:
        model: the detector, with a :class:`~efftasks.models.det_heads.query_head.QueryHead`; given by it.
        layers: the number of decoder layers before the exit, fewer than are used at inference.
        gate: see :class:`~efftasks.models.exits.base.EarlyExit`; it pools the queries after these layers.
        threshold: see :class:`~efftasks.models.exits.base.EarlyExit`.
        train_only: see :class:`~efftasks.models.exits.base.EarlyExit`.

    Raises:
        ValueError: the head has no such decoder, or no such layer.
    """

    def __init__(
        self, model: Any, layers: int, gate: Mapping[str, Any], threshold: float = 0.5, train_only: str | None = None
    ) -> None:
        head: Any = model.head
        if not isinstance(head, QueryHead) or not isinstance(head.decoder, LayeredDecoder):
            raise ValueError(f"DecoderExit: got {type(head).__name__}, expected a QueryHead, whose decoder has layers")
        most = head.decoder.eval_layers - 1
        if not 1 <= layers <= most:
            raise ValueError(f"DecoderExit.layers: got {layers}, allowed are 1 to {most}, fewer than the decoder has")
        if train_only == "exit":
            raise ValueError(
                "DecoderExit.train_only: got 'exit', expected 'gate' or None: it has nothing else to train"
            )
        super().__init__(model, gate, [head.selection.score_head.in_features], threshold, train_only)
        self.layers = layers
        head.decoder.exit_layers = layers

    def infer_early(self, model: Any, images: Tensor) -> EarlyAnswer:
        """See :meth:`EarlyExit.infer_early`; it carries the maps of the head and the state of the queries."""
        raw, queries, carried = model.head.first_layers(model.features(images), self.layers)
        detections = model.head.decode(raw)
        score, _ = self.gate([queries.transpose(1, 2)], detections)
        return EarlyAnswer(detections, score, carried)

    def infer_late(self, model: Any, carried: tuple[Tensor, ...]) -> DetectionTensors:
        """See :meth:`EarlyExit.infer_late`."""
        return model.head.decode(model.head.further_layers(carried, self.layers))

    def losses(self, model: Any, maps: Sequence[Tensor], raw: Any, targets: PaddedTargets) -> dict[str, Tensor]:
        """See :meth:`EarlyExit.losses`."""
        early, queries = model.head.layer_answer(raw, self.layers)
        return self.gate_losses([queries.transpose(1, 2)], (model.head, early), (model.head, raw), targets)

    def losses_alone(self, model: Any, images: Tensor, targets: PaddedTargets) -> dict[str, Tensor]:
        """See :meth:`EarlyExit.losses_alone`."""
        with torch.no_grad():
            early, queries, carried = model.head.first_layers(model.features(images), self.layers)
            late = model.head.further_layers(carried, self.layers)
        return self.gate_losses([queries.transpose(1, 2)], (model.head, early), (model.head, late), targets)
