"""The loss of a query detector: matching, terms, decoder layers and denoising.

Sources: DETR (arXiv 2005.12872) for a loss after every layer, DINO (arXiv 2203.03605) for denoising, D-FINE (arXiv
2410.13842, section 4.3) for box losses on the union of the matchings of all layers.
"""

from __future__ import annotations

import torch
from mmengine.dist import all_reduce
from torch import Tensor, nn

from efftasks.models.assigners.hungarian import Matching, union_of
from efftasks.models.det_heads.query_raw import Bins, LayerOutput, QueryTargets, TrainingOutputs
from efftasks.models.losses.mask_terms import MaskSampler
from efftasks.models.losses.set_terms import Matched, Teacher
from efftasks.ops.boxes import box_iou, cxcywh_to_xyxy
from efftasks.ops.distribution import BinTargets, bin_targets
from efftasks.registry import MODELS, TASK_UTILS

__all__ = ["SetCriterion", "denoising_matching", "match_boxes"]


@MODELS.register_module()
class SetCriterion(nn.Module):
    """Losses of all layers, of the first boxes, of the selection and of denoising.

    Args:
        matcher: config of the matcher.
        class_term: the classification term, on the matching of each output.
        box_terms: name -> box term.
        side_terms: name -> term of the distributions of sides; only for layers with distributions.
        distillation: the term that distills the distributions of the last layer into the others; None for none.
        union: box and side terms use the union of all matchings instead of the matching of each output.
        mask_terms: name -> mask term, on the matching of each output; only for outputs with masks.
        mask_sampler: arguments of :class:`MaskSampler`.
    """

    def __init__(
        self,
        matcher: dict,
        class_term: dict,
        box_terms: dict[str, dict],
        side_terms: dict[str, dict] | None = None,
        distillation: dict | None = None,
        union: bool = False,
        mask_terms: dict[str, dict] | None = None,
        mask_sampler: dict | None = None,
    ) -> None:
        super().__init__()
        if distillation is not None and not union:
            raise ValueError("union: got False, expected True where there is a distillation: it needs one set of pairs")
        self.matcher = TASK_UTILS.build(matcher)
        self.class_term = MODELS.build(class_term)
        self.box_terms = nn.ModuleDict({name: MODELS.build(term) for name, term in box_terms.items()})
        self.side_terms = nn.ModuleDict({name: MODELS.build(term) for name, term in (side_terms or {}).items()})
        self.distillation = None if distillation is None else MODELS.build(distillation)
        self.union = union
        self.mask_terms = nn.ModuleDict({name: MODELS.build(term) for name, term in (mask_terms or {}).items()})
        self.mask_sampler = MaskSampler(**(mask_sampler or {}))

    def set_progress(self, fraction: float) -> None:
        """Set training progress, in [0, 1]."""
        self.matcher.set_progress(fraction)

    def forward(self, raw: TrainingOutputs, targets: QueryTargets, bins: Bins | None) -> dict[str, Tensor]:
        """All losses, normalized and weighted, by name.

        Sums are divided by the number of objects, a mean over all processes of at least 1. A batch without objects has
        losses too, so that every process has gradients for the same parameters.

        Args:
            raw: the outputs.
            targets: the objects.
            bins: of the decoder's distributions; None where boxes are not distributions.
        """
        denoising_outputs, outputs = _split(raw)
        *auxiliary, last = outputs.layers
        named = [("", last)] + [(f"_layer{i}", layer) for i, layer in enumerate(auxiliary)]
        named += [("_first", outputs.first)] if outputs.first is not None else []
        named += [("_select", raw.proposals)]

        matchings = self.matcher([output for _, output in named], targets)
        union = union_of(matchings) if self.union else None
        device = targets.boxes.device
        counts = torch.tensor(
            [float(len(matchings[0].image)), float(len(union.image)) if union is not None else 0.0], device=device
        )
        all_reduce(counts, op="mean")  # every process, with or without objects, takes part
        count, union_count = counts.clamp(min=1).unbind()
        mask_count = self._mask_count(targets) if self.mask_terms else count

        union = None if union is None else union.to(device)
        teacher = self._teacher(last, union)
        losses: dict[str, Tensor] = {}
        for (suffix, output), matching in zip(named, matchings):
            matching = matching.to(device)
            boxes, box_count = (matching, count) if union is None else (union, union_count)
            last_layer = None if output is last else teacher
            losses.update(self._losses(output, targets, matching, count, boxes, box_count, bins, last_layer, suffix))
            losses.update(self._mask_losses(output, targets, matching, mask_count, suffix))
        if raw.denoising is not None:
            losses.update(
                self._denoising_losses(denoising_outputs, raw.denoising.groups, targets, count, bins, teacher)
            )
            first_group = denoising_matching(targets.valid, 1)  # the masks of all groups would be too expensive
            for i, output in enumerate(denoising_outputs.layers):
                losses.update(self._mask_losses(output, targets, first_group, mask_count, f"_dn{i}"))
        return losses

    def image_losses(self, output: LayerOutput, targets: QueryTargets) -> Tensor:
        """The loss (B,) of the classes and boxes of one output, each image on its own and divided by its objects."""
        losses = []
        for i in range(len(output.logits)):
            part = LayerOutput(output.logits[i : i + 1], output.boxes[i : i + 1])
            objects = QueryTargets(targets.labels[i : i + 1], targets.boxes[i : i + 1], targets.valid[i : i + 1])
            matching = self.matcher([part], objects)[0].to(output.logits.device)
            count = objects.valid.sum().float().clamp(min=1)
            terms = self._losses(part, objects, matching, count, matching, count, None, None, "")
            losses.append(torch.stack(list(terms.values())).sum())
        return torch.stack(losses)

    def _mask_count(self, targets: QueryTargets) -> Tensor:
        """The number of objects with masks, a mean over all processes of at least 1, a scalar."""
        count = targets.masked().sum().float()
        all_reduce(count, op="mean")
        return count.clamp(min=1)

    def _mask_losses(
        self, output: LayerOutput, targets: QueryTargets, matching: Matching, count: Tensor, suffix: str
    ) -> dict[str, Tensor]:
        """Losses of the masks of one output, if it has any."""
        if not self.mask_terms or output.masks is None:
            return {}
        sampled = self.mask_sampler(output.masks, matching, targets)
        return {f"loss_{name}{suffix}": term(sampled) / count for name, term in self.mask_terms.items()}

    def _denoising_losses(
        self,
        outputs: TrainingOutputs,
        groups: int,
        targets: QueryTargets,
        count: Tensor,
        bins: Bins | None,
        teacher: Teacher | None,
    ) -> dict[str, Tensor]:
        matching = denoising_matching(targets.valid, groups)
        count = count * max(1, groups)
        last = outputs.layers[-1]
        if teacher is not None:
            teacher = _as_teacher(last, teacher.balance)  # with the balance of the other queries
        losses: dict[str, Tensor] = {}
        named = [(f"_dn{i}", layer) for i, layer in enumerate(outputs.layers)]
        named += [("_dn_first", outputs.first)] if outputs.first is not None else []
        for suffix, output in named:
            last_layer = None if output is last else teacher
            losses.update(self._losses(output, targets, matching, count, matching, count, bins, last_layer, suffix))
        return losses

    def _losses(
        self,
        output: LayerOutput,
        targets: QueryTargets,
        matching: Matching,
        count: Tensor,
        box_matching: Matching,
        box_count: Tensor,
        bins: Bins | None,
        teacher: Teacher | None,
        suffix: str,
    ) -> dict[str, Tensor]:
        """Losses of one output: the classification loss on ``matching``, the others on ``box_matching``."""
        matched = match_boxes(output, matching, targets)
        losses = {f"loss_cls{suffix}": self.class_term(matched) / count}
        if box_matching is not matching:
            matched = match_boxes(output, box_matching, targets)
        for name, term in self.box_terms.items():
            losses[f"loss_{name}{suffix}"] = term(matched) / box_count
        if output.corners is None or bins is None:
            return losses
        if self.side_terms:
            matched = matched._replace(bins=_bins_of(matched, bins))
        for name, term in self.side_terms.items():
            losses[f"loss_{name}{suffix}"] = term(matched) / box_count
        if self.distillation is not None and teacher is not None:
            losses[f"loss_ddf{suffix}"] = self.distillation(matched._replace(teacher=teacher))
        return losses

    def _teacher(self, last: LayerOutput, union: Matching | None) -> Teacher | None:
        if self.distillation is None or last.corners is None or union is None:
            return None
        batch, queries = last.logits.shape[:2]
        # Square roots of the numbers of sides in eight images: the published weighting.
        matched = 4 * len(union.image)
        numbers = torch.tensor([matched, 4 * batch * queries - matched], dtype=torch.float32)
        return _as_teacher(last, (numbers * 8 / batch).sqrt().to(last.logits.device))


def match_boxes(output: LayerOutput, matching: Matching, targets: QueryTargets) -> Matched:
    """An output with the matched objects."""
    boxes = targets.boxes[matching.image, matching.target]
    predicted = output.boxes.detach()[matching.image, matching.query].float()
    return Matched(
        output=output,
        matching=matching,
        labels=targets.labels[matching.image, matching.target],
        boxes=boxes,
        iou=box_iou(cxcywh_to_xyxy(predicted), cxcywh_to_xyxy(boxes)),
    )


def _bins_of(matched: Matched, bins: Bins) -> BinTargets:
    assert matched.output.initial is not None
    initial = matched.gather(matched.output.initial).float()
    return bin_targets(initial, cxcywh_to_xyxy(matched.boxes), bins.values, bins.reg_scale)


def _as_teacher(last: LayerOutput, balance: Tensor) -> Teacher:
    assert last.corners is not None
    return Teacher(last.logits.detach().float().sigmoid().amax(-1), last.corners.detach(), balance)


def _split(raw: TrainingOutputs) -> tuple[TrainingOutputs, TrainingOutputs]:
    """The outputs of denoising queries, and those of the others."""
    count = 0 if raw.denoising is None else raw.denoising.boxes.shape[1]

    def outputs(part: slice) -> TrainingOutputs:
        first = None if raw.first is None else raw.first.queries(part)
        return raw._replace(layers=tuple(layer.queries(part) for layer in raw.layers), first=first)

    return outputs(slice(None, count)), outputs(slice(count, None))


def denoising_matching(valid: Tensor, groups: int) -> Matching:
    """The positives of each group with the objects (valid: bool (B, M)) they were made from."""
    image, target = valid.nonzero(as_tuple=True)
    first = 2 * valid.shape[1] * torch.arange(groups, device=image.device)
    query = (first[:, None] + target).flatten()
    return Matching(image.repeat(groups), query, target.repeat(groups))
