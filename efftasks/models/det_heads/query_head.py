"""The head of query detectors: selection, denoising, decoder, criterion.

Sources: RT-DETR (arXiv 2304.08069), RT-DETRv2 (arXiv 2407.17140), D-FINE (arXiv 2410.13842), DEIM (arXiv 2412.04234),
DEIMv2 (arXiv 2509.20787). They differ in the configs of the parts.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efftasks.models.det_heads.layered_decoder import DecoderOutputs
from efftasks.models.det_heads.query_decoder import inverse_sigmoid, score_rows
from efftasks.models.det_heads.query_raw import LayerOutput, QueryRaw, QueryTargets, TrainingOutputs
from efftasks.models.det_heads.query_selection import SelectedQueries
from efftasks.models.layers.conv import ConvNormAct
from efftasks.ops.boxes import cxcywh_to_xyxy, xyxy_to_cxcywh
from efftasks.ops.branches import either
from efftasks.ops.topk import top_pairs
from efftasks.registry import MODELS
from efftasks.structures.features import FeatureSpec
from efftasks.structures.instances import MASK_STRIDE, MASKS_MEANING, DetectionTensors, PaddedTargets
from efftasks.structures.spec import OutputSpec

__all__ = ["QueryHead", "input_size"]

_NO_LOGIT = -200.0  # of queries that were not decoded: its sigmoid is 0 in float32
_WAYS = {"few queries": 2.0, "all queries": 0.0}  # -> ``few_below`` that always takes it


@MODELS.register_module()
class QueryHead(nn.Module):
    """Predicts a set of detections, one for each query.

    Args:
        in_specs: the feature maps, finest first; given by the detector.
        num_classes: C, passed to every part.
        selection: config of the query selection, without ``num_classes`` and ``channels``.
        decoder: config of the decoder, without them.
        denoising: config of the denoising, without them; None for none.
        criterion: config of the criterion.
        max_detections: K, the number of top pairs of query and class; a query may give several classes.
        channels: of a query; the maps are projected to them.
        project: project maps that already have ``channels`` too, as RT-DETR does.
        masks: config of the mask branch, without ``in_specs`` and ``channels``; None for boxes alone.
    """

    float_parts = ("selection", "decoder")  # attention, sampling and boxes refined through logits
    candidate_decoder = "top-pairs"
    selects_inside = "they select its queries before its decoder runs"

    def __init__(
        self,
        in_specs: Sequence[FeatureSpec],
        num_classes: int,
        selection: dict,
        decoder: dict,
        denoising: dict | None,
        criterion: dict,
        max_detections: int = 300,
        channels: int = 256,
        project: bool = False,
        masks: dict | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(num_classes, int) or num_classes < 1:
            raise ValueError(f"num_classes: got {num_classes!r}, allowed are integers from 1")
        self.num_classes, self.max_detections = num_classes, max_detections
        self.strides = tuple(spec.stride for spec in in_specs)
        common = dict(num_classes=num_classes, channels=channels)
        self.input_proj = nn.ModuleList(
            ConvNormAct(spec.channels, channels, 1, act=None) if project or spec.channels != channels else nn.Identity()
            for spec in in_specs
        )
        self.selection = MODELS.build({**selection, **common})
        self.decoder = MODELS.build({**decoder, **common})
        self.denoising: nn.Module | None = None if denoising is None else MODELS.build({**denoising, **common})
        self.criterion = MODELS.build(criterion)
        specs = [FeatureSpec(channels, stride) for stride in self.strides]
        self.masks: Any = None if masks is None else MODELS.build(dict(masks, in_specs=specs, channels=channels))

    def set_progress(self, fraction: float) -> None:
        """Set training progress, in [0, 1]."""
        self.criterion.set_progress(fraction)

    def forward(self, features: Sequence[Tensor], targets: QueryTargets | None = None) -> QueryRaw:
        """Features (B, C_i, H_i, W_i), finest first -> raw prediction; with ``targets`` also the outputs for losses."""
        maps = [project(x) for project, x in zip(self.input_proj, features)]
        scale = input_size(features[0], self.strides[0])
        selected = self.selection(maps)
        content, box_logits = selected.content.detach(), selected.box_logits.detach()
        denoising = None
        blocked = None
        if targets is None and self._may_decode_few(selected):
            return self._decode_few_or_all(selected, maps, scale)
        if targets is not None and self.denoising is not None:
            denoising = self.denoising(targets, content.shape[1])
            blocked = denoising.blocked
            content = torch.cat([denoising.content, content], dim=1)
            box_logits = torch.cat([inverse_sigmoid(denoising.boxes), box_logits], dim=1)
        decoded: DecoderOutputs = self.decoder(content, box_logits, maps, blocked)
        layers = decoded.layers
        if self.masks is not None:
            masks = self.masks([layer.content for layer in layers], maps)
            layers = tuple(layer._replace(masks=factors) for layer, factors in zip(layers, masks))
        if targets is None:
            return QueryRaw(layers[-1].logits, layers[-1].boxes, scale, None, layers[-1].masks)
        training = TrainingOutputs(layers, decoded.first, selected.proposals(), denoising)
        last = layers[-1].queries(slice(0 if denoising is None else denoising.boxes.shape[1], None))
        return QueryRaw(last.logits, last.boxes, scale, training, last.masks)

    @property
    def ways(self) -> tuple[str, ...]:
        """As :class:`efftasks.structures.protocols.Branches` has it."""
        return () if self.selection.few_queries is None else tuple(_WAYS)

    def force(self, way: str) -> None:
        """As :class:`efftasks.structures.protocols.Branches` has it."""
        if way not in self.ways:
            raise ValueError(f"way: got {way!r}, allowed {self.ways}")
        self.selection.few_below = _WAYS[way]

    def _may_decode_few(self, selected: SelectedQueries) -> bool:
        few = self.selection.few_queries
        return few is not None and not self.training and few < selected.content.shape[1]

    def _decode_few_or_all(self, selected: SelectedQueries, maps: Sequence[Tensor], scale: Tensor) -> QueryRaw:
        """Decode the first queries alone where they suffice; the others then have a score of 0."""
        few, count = self.selection.few_queries, selected.content.shape[1]

        def decode(content: Tensor, box_logits: Tensor, *maps: Tensor) -> tuple[Tensor, ...]:
            layer = self.decoder(content, box_logits, maps, None).layers[-1]
            return (layer.logits, layer.boxes, *(() if self.masks is None else (layer.content,)))

        def decode_few(content: Tensor, box_logits: Tensor, *maps: Tensor) -> tuple[Tensor, ...]:
            logits, *others = decode(content[:, :few], box_logits[:, :few], *maps)
            rest = (0, 0, 0, count - few)
            return (F.pad(logits, rest, value=_NO_LOGIT), *(F.pad(other, rest) for other in others))

        inputs = (selected.content, selected.box_logits, *maps)
        logits, boxes, *content = either(self.selection.few_suffice(selected), decode_few, decode, inputs)
        masks = None if self.masks is None else self.masks(content, maps)[-1]
        return QueryRaw(logits, boxes, scale, None, masks)

    def first_layers(self, features: Sequence[Tensor], count: int) -> tuple[QueryRaw, Tensor, tuple[Tensor, ...]]:
        """Run the first decoder layers at inference.

        Args:
            features: maps (B, C_i, H_i, W_i), finest first.
            count: of the layers.

        Returns:
            The answer after them, the queries (B, Q, channels), and what :meth:`further_layers` needs, batch first.
        """
        maps = [project(x) for project, x in zip(self.input_proj, features)]
        selected = self.selection(maps)
        state, output = self.decoder.run(self.decoder.begin(selected.content, selected.box_logits), 0, count, maps)
        return self._answer(output, maps), output.content, (*maps, *self.decoder.carried(state))

    def further_layers(self, carried: Sequence[Tensor], count: int) -> QueryRaw:
        """Run the decoder layers after the first ``count``, from what :meth:`first_layers` carried."""
        levels = len(self.strides)
        maps = carried[:levels]
        state = self.decoder.restored(carried[levels:])
        return self._answer(self.decoder.run(state, count, self.decoder.eval_layers, maps)[1], maps)

    def layer_answer(self, raw: QueryRaw, count: int) -> tuple[QueryRaw, Tensor]:
        """The answer after the first ``count`` layers of a prediction made with targets, and the queries behind it."""
        assert raw.training is not None, "the raw prediction was made without targets"
        denoising = raw.training.denoising
        part = slice(0 if denoising is None else denoising.boxes.shape[1], None)
        layer = raw.training.layers[count - 1].queries(part)
        assert layer.content is not None
        return QueryRaw(layer.logits, layer.boxes, raw.scale, None, layer.masks), layer.content

    def _answer(self, layer: LayerOutput, maps: Sequence[Tensor]) -> QueryRaw:
        masks = None if self.masks is None else self.masks([layer.content], maps)[0]
        return QueryRaw(layer.logits, layer.boxes, input_size(maps[0], self.strides[0]), None, masks)

    def count_detections(self, height: int, width: int) -> int:
        """K for an input of this size in pixels."""
        return min(self.max_detections, self._count_queries(height, width) * self.num_classes)

    def _count_queries(self, height: int, width: int) -> int:
        cells = sum((height // stride) * (width // stride) for stride in self.strides)
        return min(cells, self.selection.num_queries)

    def part_outputs(self, height: int, width: int) -> tuple[OutputSpec, ...]:
        """The outputs of :meth:`decode` beside boxes, scores and labels, for an input of this size in pixels."""
        if self.masks is None:
            return ()
        shape = ("N", self.count_detections(height, width), height // MASK_STRIDE, width // MASK_STRIDE)
        return (OutputSpec("masks", shape, "float32", MASKS_MEANING),)

    def decode(self, raw: QueryRaw) -> DetectionTensors:
        """Raw prediction -> the K best detections. Pure tensors, the same when exported."""
        count = min(self.max_detections, raw.logits.shape[1] * raw.logits.shape[2])
        logits, labels, index = top_pairs(raw.logits.float(), count)
        boxes = cxcywh_to_xyxy(raw.boxes.float().gather(1, index[..., None].expand(-1, -1, 4))) * raw.scale
        masks = None if raw.masks is None else self.masks.decode(raw.masks, index)
        return DetectionTensors(boxes, logits.sigmoid(), labels, masks)

    def candidates(self, raw: QueryRaw) -> tuple[Tensor, ...]:
        """Raw prediction -> what :meth:`decode` selects from: boxes (B, Q, 4), scores (B, Q, C), factors of masks."""
        boxes = cxcywh_to_xyxy(raw.boxes.float()) * raw.scale
        factors = () if raw.masks is None else self.masks.candidates(raw.masks)
        return (boxes, raw.logits.float().sigmoid(), *factors)

    def candidate_outputs(self, height: int, width: int) -> tuple[OutputSpec, ...]:
        """The tensors of :meth:`candidates` for an input of this size in pixels."""
        count = self._count_queries(height, width)
        return (
            OutputSpec("boxes", ("N", count, 4), "float32", "xyxy of every query, pixels of the network input"),
            OutputSpec("scores", ("N", count, self.num_classes), "float32", "probability in [0, 1] of every class"),
            *(() if self.masks is None else self.masks.candidate_outputs(height, width, count)),
        )

    def loss(self, features: Sequence[Tensor], targets: PaddedTargets) -> dict[str, Tensor]:
        """Losses of features (B, C_i, H_i, W_i) against the objects; see :meth:`raw_and_loss`."""
        return self.raw_and_loss(features, targets)[1]

    def raw_and_loss(self, features: Sequence[Tensor], targets: PaddedTargets) -> tuple[QueryRaw, dict[str, Tensor]]:
        """The raw prediction of features, and its losses against the objects; crowd regions are left out.

        Raises:
            ValueError: the head predicts masks and the targets have none.
        """
        if self.masks is not None and targets.masks is None:
            raise ValueError("targets.masks: got None, expected masks: the head predicts them")
        scale = input_size(features[0], self.strides[0])
        boxes = xyxy_to_cxcywh(targets.boxes / scale)
        query_targets = QueryTargets(targets.labels, boxes, targets.valid & ~targets.ignored, targets.masks)
        raw = self(features, query_targets)
        return raw, self.loss_by_feat(raw, query_targets)

    @property
    def reg_scale(self) -> float | None:
        """The scale of the distributions of box sides; None where boxes are not distributions."""
        bins = self.decoder.bins()
        return None if bins is None else bins.reg_scale

    def class_rows(self) -> dict[str, str]:
        """See :class:`~efftasks.structures.protocols.HasClassRows`; the embedding of denoising has one row more."""
        return dict.fromkeys(
            [*score_rows(self), *(["denoising.embedding.weight"] if self.denoising else [])], "classes"
        )

    def loss_by_feat(self, raw: QueryRaw, targets: QueryTargets) -> dict[str, Tensor]:
        """Losses of a raw prediction that was made with ``targets``."""
        assert raw.training is not None, "the raw prediction was made without targets"
        return self.criterion(raw.training, targets, self.decoder.bins())

    def image_losses(self, raw: QueryRaw, targets: PaddedTargets) -> Tensor:
        """The loss (B,) of the classes and boxes of an answer for each image; crowd regions are left out."""
        boxes = xyxy_to_cxcywh(targets.boxes / raw.scale)
        query_targets = QueryTargets(targets.labels, boxes, targets.valid & ~targets.ignored)
        return self.criterion.image_losses(LayerOutput(raw.logits, raw.boxes), query_targets)

    def strip(self) -> QueryHead:
        """A copy without denoising and criterion."""
        stripped = copy.deepcopy(self)
        stripped.denoising = None
        stripped.criterion = nn.Identity()
        return stripped


def input_size(finest: Tensor, stride: int) -> Tensor:
    """(4,) width, height, width, height of the network input, from its finest map."""
    height, width = finest.shape[-2:]
    sides = [torch.full((1,), side * stride, dtype=torch.float32, device=finest.device) for side in (width, height)]
    return torch.cat(sides * 2)
