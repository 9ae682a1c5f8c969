"""The loss of a pose detector: matching, terms, decoder layers and denoising.

Source: DETRPose (arXiv 2506.13027) and its public code: class losses use the matching of each output, pose losses the
union of the matchings of all outputs, as in D-FINE (arXiv 2410.13842, section 4.3). As in the published configurations
there is no loss of the distributions themselves.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine.dist import all_reduce
from torch import Tensor, nn

from efftasks.models.assigners.hungarian import Matching, union_of
from efftasks.models.losses.pose_terms import MatchedPoses
from efftasks.models.losses.set_criterion import denoising_matching
from efftasks.models.pose_heads.pose_raw import PoseOutput, PoseTargets, PoseTrainingOutputs
from efftasks.registry import MODELS, TASK_UTILS

__all__ = ["PoseCriterion", "match_poses"]

# A logit whose loss as background, and its gradient, are practically 0.
_IGNORED_LOGIT = -30.0


@MODELS.register_module()
class PoseCriterion(nn.Module):
    """Losses of all layers, of the first poses, of the selection and of denoising.

    Args:
        matcher: config of the matcher.
        class_term: the classification term, on the matching of each output.
        pose_terms: name -> pose term, on the union of all matchings.
    """

    def __init__(self, matcher: dict, class_term: dict, pose_terms: dict[str, dict]) -> None:
        super().__init__()
        self.matcher = TASK_UTILS.build(matcher)
        self.class_term = MODELS.build(class_term)
        self.pose_terms = nn.ModuleDict({name: MODELS.build(term) for name, term in pose_terms.items()})

    def forward(self, raw: PoseTrainingOutputs, targets: PoseTargets) -> dict[str, Tensor]:
        """All losses, normalized and weighted, by name.

        Sums are divided by the number of objects, a mean over all processes of at least 1. A batch without objects has
        losses too, so that every process has gradients for the same parameters.
        """
        denoising_outputs, outputs = _split(raw)
        *auxiliary, last = outputs.layers
        named = [("", last)] + [(f"_layer{i}", layer) for i, layer in enumerate(auxiliary)]
        named += [("_first", outputs.first), ("_select", raw.proposals)]

        matchings = self.matcher([output for _, output in named], targets)
        union = union_of(matchings)
        device = targets.valid.device
        counts = torch.stack([targets.valid.sum(), torch.tensor(len(union.image), device=device)]).float()
        all_reduce(counts, op="mean")  # every process, with or without objects, takes part
        count, union_count = counts.clamp(min=1).unbind()

        union = union.to(device)
        losses: dict[str, Tensor] = {}
        for (suffix, output), matching in zip(named, matchings):
            matching = matching.to(device)
            matched = match_poses(_with_ignored(output, matching, targets.regions), matching, targets)
            losses[f"loss_cls{suffix}"] = self.class_term(matched) / count
            losses.update(self._pose_losses(match_poses(output, union, targets), union_count, suffix))
        if raw.denoising is not None:
            losses.update(self._denoising_losses(denoising_outputs, raw.denoising.groups, targets, count))
        return losses

    def _pose_losses(self, matched: MatchedPoses, count: Tensor, suffix: str) -> dict[str, Tensor]:
        return {f"loss_{name}{suffix}": term(matched) / count for name, term in self.pose_terms.items()}

    def _denoising_losses(
        self, outputs: PoseTrainingOutputs, groups: int, targets: PoseTargets, count: Tensor
    ) -> dict[str, Tensor]:
        matching = denoising_matching(targets.valid, groups)
        count = count * max(1, groups)
        losses: dict[str, Tensor] = {}
        named = [(f"_dn{i}", layer) for i, layer in enumerate(outputs.layers)] + [("_dn_first", outputs.first)]
        for suffix, output in named:
            matched = match_poses(output, matching, targets)
            losses[f"loss_cls{suffix}"] = self.class_term(matched) / count
            losses.update(self._pose_losses(matched, count, suffix))
        return losses


def match_poses(output: PoseOutput, matching: Matching, targets: PoseTargets) -> MatchedPoses:
    """An output with the matched objects."""
    poses = output.poses[matching.image, matching.query].float()
    place = (matching.image, matching.target)
    keypoints = targets.keypoints[place]
    return MatchedPoses(
        output=output,
        matching=matching,
        labels=targets.labels[place],
        poses=poses,
        keypoints=keypoints,
        similarity=targets.similarity(poses, keypoints, targets.areas[place]),
    )


def _with_ignored(output: PoseOutput, matching: Matching, regions: Tensor) -> PoseOutput:
    """The output without a class loss for unmatched queries whose mean keypoint is in a region (B, M, 4) xyxy."""
    center = output.poses.detach().float().mean(2)[:, :, None]
    inside = (center > regions[:, None, :, :2]) & (center < regions[:, None, :, 2:])
    ignored = inside.all(-1).any(-1)
    ignored[matching.image, matching.query] = False
    return output._replace(logits=output.logits.masked_fill(ignored[..., None], _IGNORED_LOGIT))


def _split(raw: PoseTrainingOutputs) -> tuple[PoseTrainingOutputs, PoseTrainingOutputs]:
    """The outputs of denoising queries, and those of the others."""
    count = 0 if raw.denoising is None else raw.denoising.poses.shape[1]

    def queries(output: PoseOutput, part: slice) -> PoseOutput:
        return PoseOutput(output.logits[:, part], output.poses[:, part])

    def outputs(part: slice) -> PoseTrainingOutputs:
        layers: Sequence[PoseOutput] = [queries(layer, part) for layer in raw.layers]
        return raw._replace(layers=tuple(layers), first=queries(raw.first, part))

    return outputs(slice(None, count)), outputs(slice(count, None))
