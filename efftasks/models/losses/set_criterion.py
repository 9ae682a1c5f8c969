"""The loss of a query detector: matchings, terms, decoder layers and denoising put together.

Sources: DETR (arXiv 2005.12872) for a loss after every layer, DINO (arXiv 2203.03605) for denoising, D-FINE (arXiv
2410.13842, section 4.3) for learning boxes on the union of all layers' matchings.
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

__all__ = ["SetCriterion", "denoising_matching", "match_up"]


@MODELS.register_module()
class SetCriterion(nn.Module):
    """Losses of all layers, of the first boxes, of the selection and of denoising.

    Args:
        matcher: config of the matcher.
        class_term: a term on scores, on each output's own matching.
        box_terms: name -> term on boxes.
        side_terms: name -> term on the distributions of sides; only layers with distributions have it.
        distillation: a term that makes every layer learn from the last; None for none.
        union: boxes and sides learn on the union of all matchings instead of on each output's own.
        mask_terms: name -> term on masks, on each output's own matching; only outputs with masks have it.
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
        """Tell how much of training is done, in [0, 1]."""
        self.matcher.set_progress(fraction)

    def forward(self, raw: TrainingOutputs, targets: QueryTargets, bins: Bins | None) -> dict[str, Tensor]:
        """All losses, normalised and weighted, by name.

        The number of objects that sums are divided by is the mean over all processes, and at least 1. A batch without
        objects has losses too, so that every process has gradients for the same parameters.

        Args:
            raw: the outputs.
            targets: the objects.
            bins: of the decoder's distributions; None where boxes are not distributions.
        """
        denoised, plain = _split(raw)
        *earlier, last = plain.layers
        named = [("", last)] + [(f"_layer{i}", layer) for i, layer in enumerate(earlier)]
        named += [("_first", plain.first)] if plain.first is not None else []
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

        shared = None if union is None else union.to(device)
        teacher = self._teacher(last, shared)
        losses: dict[str, Tensor] = {}
        for (suffix, output), matching in zip(named, matchings):
            own = matching.to(device)
            box_matching, box_count = (own, count) if shared is None else (shared, union_count)
            student = None if output is last else teacher
            losses.update(self._losses(output, targets, own, count, box_matching, box_count, bins, student, suffix))
            losses.update(self._mask_losses(output, targets, own, mask_count, suffix))
        if raw.denoising is not None:
            losses.update(self._denoising_losses(denoised, raw.denoising.groups, targets, count, bins, teacher))
            own = denoising_matching(targets.valid, 1)
            for i, output in enumerate(denoised.layers):
                # The first group alone: all of them would cost as much as the rest of the masks many times over.
                losses.update(self._mask_losses(output, targets, own, mask_count, f"_dn{i}"))
        return losses

    def _mask_count(self, targets: QueryTargets) -> Tensor:
        """How many objects have masks, a mean over all processes, and at least 1: a scalar."""
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
            teacher = _as_teacher(last, teacher.balance)  # balanced as the other queries are
        losses: dict[str, Tensor] = {}
        named = [(f"_dn{i}", layer) for i, layer in enumerate(outputs.layers)]
        named += [("_dn_first", outputs.first)] if outputs.first is not None else []
        for suffix, output in named:
            student = None if output is last else teacher
            losses.update(self._losses(output, targets, matching, count, matching, count, bins, student, suffix))
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
        """Losses of one output: classes on one matching, boxes on another or the same."""
        matched = match_up(output, matching, targets)
        losses = {f"loss_cls{suffix}": self.class_term(matched) / count}
        if box_matching is not matching:
            matched = match_up(output, box_matching, targets)
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
        # Square roots of the numbers of sides, as if a batch had eight images: the published weighting.
        matched = 4 * len(union.image)
        numbers = torch.tensor([matched, 4 * batch * queries - matched], dtype=torch.float32)
        return _as_teacher(last, (numbers * 8 / batch).sqrt().to(last.logits.device))


def match_up(output: LayerOutput, matching: Matching, targets: QueryTargets) -> Matched:
    """An output with the objects of a matching."""
    boxes = targets.boxes[matching.image, matching.target]
    found = output.boxes.detach()[matching.image, matching.query].float()
    return Matched(
        output=output,
        matching=matching,
        labels=targets.labels[matching.image, matching.target],
        boxes=boxes,
        iou=box_iou(cxcywh_to_xyxy(found), cxcywh_to_xyxy(boxes)),
    )


def _bins_of(matched: Matched, bins: Bins) -> BinTargets:
    assert matched.output.initial is not None
    initial = matched.picked(matched.output.initial).float()
    return bin_targets(initial, cxcywh_to_xyxy(matched.boxes), bins.values, bins.reg_scale)


def _as_teacher(last: LayerOutput, balance: Tensor) -> Teacher:
    assert last.corners is not None
    return Teacher(last.logits.detach().float().sigmoid().amax(-1), last.corners.detach(), balance)


def _split(raw: TrainingOutputs) -> tuple[TrainingOutputs, TrainingOutputs]:
    """The outputs of denoising queries, and those of the others."""
    count = 0 if raw.denoising is None else raw.denoising.boxes.shape[1]

    def parts(chosen: slice) -> TrainingOutputs:
        first = None if raw.first is None else raw.first.queries(chosen)
        return raw._replace(layers=tuple(layer.queries(chosen) for layer in raw.layers), first=first)

    return parts(slice(None, count)), parts(slice(count, None))


def denoising_matching(valid: Tensor, groups: int) -> Matching:
    """The positives of each group with the objects (valid: bool (B, M)) they were made from."""
    image, target = valid.nonzero(as_tuple=True)
    first = 2 * valid.shape[1] * torch.arange(groups, device=image.device)
    query = (first[:, None] + target).flatten()
    return Matching(image.repeat(groups), query, target.repeat(groups))
