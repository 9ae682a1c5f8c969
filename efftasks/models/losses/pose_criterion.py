"""The loss of a pose detector: matchings, terms, decoder layers and denoising put together.

Source: DETRPose (arXiv 2506.13027) and its public code: scores learn on each output's own matching, poses on
the union of all outputs' matchings, as in D-FINE (arXiv 2410.13842, section 4.3). As in the published configurations
there is no loss on the distributions themselves.
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

# A logit so low that a query with it loses nothing against the background.
_NO_SCORE = -30.0


@MODELS.register_module()
class PoseCriterion(nn.Module):
    """Losses of all layers, of the first poses, of the selection and of denoising.

    Args:
        matcher: config of the matcher.
        class_term: a term on scores, on each output's own matching.
        pose_terms: name -> term on poses, on the union of all matchings.
    """

    def __init__(self, matcher: dict, class_term: dict, pose_terms: dict[str, dict]) -> None:
        super().__init__()
        self.matcher = TASK_UTILS.build(matcher)
        self.class_term = MODELS.build(class_term)
        self.pose_terms = nn.ModuleDict({name: MODELS.build(term) for name, term in pose_terms.items()})

    def forward(self, raw: PoseTrainingOutputs, targets: PoseTargets) -> dict[str, Tensor]:
        """All losses, normalised and weighted, by name.

        The number of objects that sums are divided by is the mean over all processes, and at least 1. A batch without
        objects has losses too, so that every process has gradients for the same parameters.
        """
        denoised, plain = _split(raw)
        *earlier, last = plain.layers
        named = [("", last)] + [(f"_layer{i}", layer) for i, layer in enumerate(earlier)]
        named += [("_first", plain.first), ("_select", raw.proposals)]

        matchings = self.matcher([output for _, output in named], targets)
        union = union_of(matchings)
        device = targets.valid.device
        counts = torch.stack([targets.valid.sum(), torch.tensor(len(union.image), device=device)]).float()
        all_reduce(counts, op="mean")  # every process, with or without objects, takes part
        count, union_count = counts.clamp(min=1).unbind()

        shared = union.to(device)
        losses: dict[str, Tensor] = {}
        for (suffix, output), matching in zip(named, matchings):
            own = match_poses(_excused(output, matching.to(device), targets.regions), matching.to(device), targets)
            losses[f"loss_cls{suffix}"] = self.class_term(own) / count
            losses.update(self._pose_losses(match_poses(output, shared, targets), union_count, suffix))
        if raw.denoising is not None:
            losses.update(self._denoising_losses(denoised, raw.denoising.groups, targets, count))
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
    """An output with the objects of a matching."""
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


def _excused(output: PoseOutput, matching: Matching, regions: Tensor) -> PoseOutput:
    """The output with no score for unmatched queries whose pose has its middle in a region (B, M, 4) xyxy."""
    middle = output.poses.detach().float().mean(2)[:, :, None]
    inside = (middle > regions[:, None, :, :2]) & (middle < regions[:, None, :, 2:])
    excused = inside.all(-1).any(-1)
    excused[matching.image, matching.query] = False
    return output._replace(logits=output.logits.masked_fill(excused[..., None], _NO_SCORE))


def _split(raw: PoseTrainingOutputs) -> tuple[PoseTrainingOutputs, PoseTrainingOutputs]:
    """The outputs of denoising queries, and those of the others."""
    count = 0 if raw.denoising is None else raw.denoising.poses.shape[1]

    def part(output: PoseOutput, chosen: slice) -> PoseOutput:
        return PoseOutput(output.logits[:, chosen], output.poses[:, chosen])

    def parts(chosen: slice) -> PoseTrainingOutputs:
        layers: Sequence[PoseOutput] = [part(layer, chosen) for layer in raw.layers]
        return raw._replace(layers=tuple(layers), first=part(raw.first, chosen))

    return parts(slice(None, count)), parts(slice(count, None))
