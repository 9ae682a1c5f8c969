"""The pose head as a whole: training, what is left out, decoding, truncation, fusing, export."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

from efftasks.compression.folding import inference_model
from efftasks.registry import MODELS
from efftasks.structures.instances import PaddedTargets


def objects(count: int, points: int = 2) -> PaddedTargets:
    """Two images with the same objects, in 128 x 128 pixels."""
    boxes = torch.tensor([[10.0, 20, 60, 80], [30, 30, 90, 120], [5, 70, 40, 100]])[:count].repeat(2, 1, 1)
    share = torch.linspace(0.2, 0.8, points)[:, None]
    xy = boxes[:, :, None, :2] + share * (boxes[..., 2:] - boxes[..., :2])[:, :, None]
    keypoints = torch.cat([xy, torch.full((2, count, points, 1), 2.0)], dim=-1)
    valid = torch.ones(2, count, dtype=torch.bool)
    areas = (boxes[..., 2:] - boxes[..., :2]).prod(-1) * 0.6
    labels = torch.tensor([0, 1, 1])[:count].repeat(2, 1)
    return PaddedTargets(labels, boxes, valid, ~valid, keypoints=keypoints, areas=areas)


@pytest.mark.parametrize("points", [2, 17])
@pytest.mark.parametrize("count", [3, 0])
def test_every_parameter_learns_with_and_without_objects(reference: Any, points: int, count: int) -> None:
    # Processes whose batches have no objects must have gradients for the same parameters, or training hangs.
    head = reference.small(sigmas=(0.05,) * points).train()
    losses = head.loss(reference.features(128, 128, 0), objects(count, points))
    torch.stack(list(losses.values())).sum().backward()
    assert all(bool(torch.isfinite(value)) for value in losses.values())
    assert [name for name, p in head.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []
    assert len(losses) == 3 * 9, "three terms on three layers, their denoising, first poses of both, and the selection"


def test_crowds_and_objects_without_keypoints_are_left_out(reference: Any) -> None:
    head = reference.small(denoising=None).train()
    maps = reference.features(128, 128, 0)
    alone = head.loss(maps, objects(2))
    crowd = objects(3)
    crowd.ignored[:, 2] = True
    blank = objects(3)
    blank.keypoints[:, 2, :, 2] = 0  # type: ignore[index]
    for targets in (crowd, blank):
        targets.boxes[:, 2] = 0  # the region is nowhere: nobody is excused
        losses = head.loss(maps, targets)
        for name, value in alone.items():
            torch.testing.assert_close(losses[name], value)


def test_who_finds_an_object_without_keypoints_is_not_taught_that_there_is_nothing(reference: Any) -> None:
    head = reference.small(denoising=None).train()
    maps = reference.features(128, 128, 0)
    targets = objects(2)
    targets.keypoints[:, 1, :, 2] = 0  # type: ignore[index]
    targets.boxes[:, 1] = torch.tensor([0.0, 0, 128, 64])
    ground_truth = head._targets(targets, torch.full((4,), 128.0))
    raw = head(maps, ground_truth)
    logits = raw.training.layers[-1].logits
    logits.retain_grad()
    losses = head.criterion(raw.training, ground_truth)
    losses["loss_cls"].backward()
    (matching,) = head.criterion.matcher([raw.training.layers[-1]], ground_truth)
    matched = torch.zeros(logits.shape[:2], dtype=torch.bool)
    matched[matching.image, matching.query] = True
    above = raw.poses.mean(2)[..., 1] < 0.5
    silent = (logits.grad == 0).all(-1)
    assert torch.equal(silent, above & ~matched)
    assert 0 < int(silent.sum()) < silent.numel()


def test_wrong_targets_are_refused(reference: Any) -> None:
    head = reference.small().train()
    maps = reference.features(128, 128, 0)
    with pytest.raises(ValueError, match="targets: got none with keypoints"):
        head.loss(maps, objects(1)._replace(keypoints=None))
    with pytest.raises(ValueError, match="sigmas: got 2, allowed are as many as the data's keypoints, 3"):
        head.loss(maps, objects(1, points=3))
    with pytest.raises(ValueError, match="sigmas: got"):
        reference.build(sigmas=(0.05, 0.0))
    with pytest.raises(ValueError, match="num_classes: got None"):
        reference.build(num_classes=None)


def test_detections_are_hulls_of_their_keypoints_best_first(reference: Any) -> None:
    head = reference.small(max_detections=25).eval()
    with torch.no_grad():
        detections = head.decode(head(reference.features(96, 160, 0)))
    assert detections.boxes.shape == (2, 25, 4) and detections.keypoints.shape == (2, 25, 2, 3)
    assert head.count_detections(96, 160) == 25
    assert reference.small().count_detections(32, 32) == 5 * 2  # 4 cells and 1 cell, two classes
    assert torch.equal(detections.boxes[..., :2], detections.keypoints[..., :2].amin(2))
    assert torch.equal(detections.boxes[..., 2:], detections.keypoints[..., :2].amax(2))
    assert torch.equal(detections.keypoints[..., 2], detections.scores[..., None].expand(-1, -1, 2))
    assert bool((detections.scores[:, :-1] >= detections.scores[:, 1:]).all())
    assert float(detections.keypoints[..., 0].max()) > 96, "pixels of the network input, x along the width"


def test_fused_equals_trained(reference: Any) -> None:
    head = reference.small().eval()
    fused: Any = inference_model(head)
    with torch.no_grad():
        expected, actual = (one(reference.features(96, 160, 0)) for one in (head, fused))
    torch.testing.assert_close(actual.logits, expected.logits, atol=1e-4, rtol=0)
    torch.testing.assert_close(actual.poses, expected.poses, atol=1e-5, rtol=0)
    assert fused.denoising is None
    assert sum(p.numel() for p in fused.parameters()) < sum(p.numel() for p in head.parameters())


def test_fewer_layers_answer_as_the_layer_did_in_training(reference: Any) -> None:
    whole = reference.small(denoising=None)
    short = reference.small(denoising=None, decoder__eval_layers=2).eval()
    short.load_state_dict(whole.state_dict())
    maps = reference.features(128, 128, 0)
    with torch.no_grad():
        layers = whole.train()(maps, whole._targets(objects(1), torch.full((4,), 128.0))).training.layers
        actual, fused = short(maps), inference_model(short)(maps)
    torch.testing.assert_close(actual.logits, layers[1].logits)
    torch.testing.assert_close(actual.poses, layers[1].poses)
    torch.testing.assert_close(fused.poses, layers[1].poses, atol=1e-5, rtol=0)


def test_it_learns_two_poses_by_heart(reference: Any) -> None:
    head = reference.build(
        sigmas=reference.TWO,
        num_classes=1,
        channels=32,
        decoder__ffn_channels=64,
        decoder__num_layers=2,
        selection__num_queries=6,
        denoising__num_queries=4,
    )
    assert len(head.input_proj) == 2, "maps of 128 channels are brought to 32"
    targets = objects(2)._replace(labels=torch.zeros(2, 2, dtype=torch.long))
    maps = reference.features(128, 128, 0)
    head.train()
    optimizer = torch.optim.AdamW(head.parameters(), lr=4e-3)
    for _ in range(120):
        optimizer.zero_grad()
        torch.stack(list(head.loss(maps, targets).values())).sum().backward()
        torch.nn.utils.clip_grad_norm_(head.parameters(), 1.0)
        optimizer.step()
    with torch.no_grad():
        detections = head.eval().decode(head(maps))
    distance = torch.cdist(detections.keypoints[:, :2, :, :2].flatten(2), objects(2).keypoints[..., :2].flatten(2))  # type: ignore[index]
    assert float(distance.amin(-1).max()) < 6 and all(len(set(row.tolist())) == 2 for row in distance.argmin(-1))
    assert float(detections.scores[:, 1].min()) > 0.5 > float(detections.scores[:, 2].max())


def test_gathered_samples_are_the_same(reference: Any) -> None:
    head, gathering = (reference.small(decoder__sampling=name).eval() for name in ("grid_sample", "gather"))
    gathering.load_state_dict(head.state_dict())
    with torch.no_grad():
        expected, actual = (one(reference.features(96, 160, 0)) for one in (head, gathering))
    torch.testing.assert_close(actual.logits, expected.logits, atol=1e-4, rtol=0)
    torch.testing.assert_close(actual.poses, expected.poses, atol=1e-5, rtol=0)


def test_size_of_the_published_model(reference: Any) -> None:
    config = Config.fromfile(reference.ROOT / "configs" / "_base_" / "models" / "detrpose.py").model
    config.head.update(num_classes=1, sigmas=reference.SIGMAS)
    with DefaultScope.overwrite_default_scope("efftasks"):
        model = MODELS.build(config).eval()
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(4.1, abs=0.05)  # published: 4.1
    assert model.head.count_detections(640, 640) == 60
