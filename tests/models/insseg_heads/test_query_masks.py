"""Masks of queries as part of the head: decoding, learning, fusing, export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import efftasks.compat  # noqa: F401

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from efftasks.compression.folding import inference_model
from efftasks.export.exporters.onnx import write_graph
from efftasks.models.assigners.hungarian import Matching
from efftasks.models.det_heads.query_raw import MaskFactors, QueryTargets
from efftasks.models.insseg_heads.query_masks import QueryMasks
from efftasks.models.losses.mask_terms import MaskSampler
from efftasks.ops.masks import mask_iou
from efftasks.registry import MODELS
from efftasks.structures.features import FeatureSpec
from efftasks.structures.instances import PaddedTargets

CONFIG = Path(__file__).resolve().parents[3] / "configs/insseg/dfineseg/dfineseg-n_hgnetv2-b0_8xb16-160e_coco-640.py"
SPECS = [FeatureSpec(32, 16), FeatureSpec(32, 32)]


def head_config(**changes: Any) -> dict[str, Any]:
    cfg = Config.fromfile(CONFIG)
    small = dict(num_classes=4, channels=32, max_detections=20, selection=dict(num_queries=30))
    small["decoder"] = dict(num_layers=2, ffn=dict(hidden=64), num_heads=4)
    small["masks"] = dict(mask_channels=16)
    cfg.merge_from_dict(dict(model=dict(head={**small, **changes})))
    return cfg.model.head.to_dict()


def build(**changes: Any) -> Any:
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope("efftasks"):
        head = MODELS.build(dict(head_config(**changes), in_specs=SPECS))
    with torch.no_grad():  # the heads of boxes begin at zero, which would hide mistakes
        for name, parameter in head.named_parameters():
            if name.endswith("weight") and not bool(parameter.any()):
                parameter.normal_(std=0.05)
    return head


def features(batch: int = 2, seed: int = 0) -> list[Tensor]:
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, 32, 128 // spec.stride, 128 // spec.stride, generator=g) for spec in SPECS]


def objects(count: int) -> PaddedTargets:
    """Up to two objects in each of two images: left half and lower right quarter of their boxes."""
    boxes = torch.tensor([[8.0, 16, 72, 80], [64, 48, 112, 112]])[:count].expand(2, count, 4)
    masks = torch.zeros(2, count, 32, 32, dtype=torch.uint8)
    if count:
        masks[:, 0, 4:20, 2:10] = 255
        masks[:, 1, 20:28, 22:28] = 255
    none = torch.zeros(2, count, dtype=torch.bool)
    return PaddedTargets(torch.tensor([[0, 3]] * 2)[:, :count], boxes, ~none, none, masks)


def test_gathering_before_the_product_equals_gathering_after() -> None:
    torch.manual_seed(0)
    part = QueryMasks(SPECS, channels=32, mask_channels=8)
    (made,) = part([torch.randn(2, 30, 32)], features())
    index = torch.randint(0, 30, (2, 12))
    detections = part.decode(made, index)
    whole = torch.einsum("bqd,bdhw->bqhw", made.kernels, made.pixels) + made.bias
    expected = torch.stack([rows[i] for rows, i in zip(whole, index)])
    torch.testing.assert_close(detections, expected)


def test_detections_have_masks() -> None:
    head = build().eval()
    with torch.no_grad():
        detections = head.decode(head(features()))
    assert detections.masks.shape == (2, 20, 32, 32)
    assert head.count_detections(128, 128) == 20


@pytest.mark.parametrize("decoder", ["DistributionDecoder", "BoxDecoder"])
def test_detections_of_one_query_have_one_mask(decoder: str) -> None:
    changes: dict[str, Any] = {}
    if decoder == "BoxDecoder":
        changes["decoder"] = dict(type=decoder, num_layers=1, num_points=(4, 4), num_heads=4, _delete_=True)
    head = build(**changes, max_detections=120).eval()  # every pair of 30 queries and 4 classes
    with torch.no_grad():
        raw = head(features())
        detections = head.decode(raw)
    boxes = detections.boxes[0].round(decimals=3)
    for box in boxes.unique(dim=0)[:5]:
        same = detections.masks[0][(boxes == box).all(1)]
        assert len(same) == 4
        torch.testing.assert_close(same, same[:1].expand_as(same))


@pytest.mark.parametrize("count", [2, 0])
def test_every_parameter_learns_with_and_without_objects(count: int) -> None:
    head = build().train()
    losses = head.loss(features(), objects(count))
    assert set(losses) >= {"loss_mask", "loss_dice", "loss_mask_layer0", "loss_mask_dn0", "loss_dice_dn1"}
    assert all(bool(torch.isfinite(value)) for value in losses.values())
    torch.stack(list(losses.values())).sum().backward()
    assert [name for name, p in head.named_parameters() if p.requires_grad and p.grad is None] == []


def test_masks_leave_boxes_and_classes_as_they_are() -> None:
    matcher: dict[str, list] = dict(mask_costs=[])  # with mask costs, matchings may differ
    with_masks = build(criterion=dict(matcher=matcher)).train()
    without = build(masks=None, criterion=dict(matcher=matcher, mask_terms=None)).train()
    without.load_state_dict({k: v for k, v in with_masks.state_dict().items() if not k.startswith("masks.")})
    torch.manual_seed(1)
    more = with_masks.loss(features(), objects(2))
    torch.manual_seed(1)
    less = without.loss(features(), objects(2)._replace(masks=None))
    for name, value in less.items():
        torch.testing.assert_close(more[name], value)
    assert without.eval().decode(without(features())).masks is None


def test_targets_without_masks_are_refused() -> None:
    with pytest.raises(ValueError, match=r"targets\.masks: got None"):
        build().loss(features(), objects(2)._replace(masks=None))


def test_fused_equals_trained() -> None:
    head = build()
    for seed in range(3):
        head.train().loss(features(seed=seed), objects(2))
    fused: Any = inference_model(head)
    with torch.no_grad():
        expected, detections = head.eval().decode(head(features())), fused.decode(fused(features()))
    for a, b in zip(detections[:4], expected[:4]):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-3)
    assert sum(p.numel() for p in fused.parameters()) < sum(p.numel() for p in head.parameters())


def test_two_objects_are_learned() -> None:
    """Kernels and pixels alone: two queries to two masks, of features that are noise."""
    torch.manual_seed(0)
    part = QueryMasks(SPECS, channels=32, mask_channels=16)
    ground_truth = objects(2).masks
    assert ground_truth is not None
    content, maps = torch.randn(2, 2, 32), features()
    with DefaultScope.overwrite_default_scope("efftasks"):
        terms = [MODELS.build(dict(type=name)) for name in ("MaskBCETerm", "MaskDiceTerm")]
    pairs = Matching(*torch.tensor([[0, 0, 0], [0, 1, 1], [1, 0, 0], [1, 1, 1]]).T)
    boxes = torch.tensor([[40.0, 48, 64, 64], [88, 80, 48, 64]]).expand(2, 2, 4) / 128
    targets = QueryTargets(torch.zeros(2, 2, dtype=torch.long), boxes, torch.ones(2, 2, dtype=torch.bool), ground_truth)
    sampler = MaskSampler(share=0.125)
    optimizer = torch.optim.AdamW(part.parameters(), lr=5e-3)
    for _ in range(100):
        (made,) = part([content], maps)
        sampled = sampler(made, pairs, targets)
        optimizer.zero_grad()
        sum(term(sampled) for term in terms).backward()
        optimizer.step()
    with torch.no_grad():
        (made,) = part([content], maps)
        index = torch.tensor([[0, 1]] * 2)
        masks = part.decode(made, index)
    assert float(mask_iou((masks > 0).float(), ground_truth.float() / 255).min()) > 0.9


class Decoded(nn.Module):
    """The head as it is exported: everything but the network before it."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head: Any = head

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        maps = [nn.functional.avg_pool2d(image, spec.stride).repeat(1, 11, 1, 1)[:, :32] for spec in SPECS]
        return tuple(self.head.decode(self.head(maps))[:4])


@pytest.mark.slow
def test_exported_masks_equal_the_model_at_another_batch_size(tmp_path: Path) -> None:
    decoder = dict(num_layers=1, ffn=dict(hidden=64), num_heads=4)
    graph = Decoded(inference_model(build(decoder=decoder))).eval()
    names = ["boxes", "scores", "labels", "masks"]
    dynamic = {0: torch.export.Dim("batch", min=1)}
    path = write_graph(graph, torch.rand(2, 3, 128, 128), tmp_path / "m.onnx", output_names=names, dynamic=dynamic)
    kinds = {node.op_type for node in onnx.load(str(path)).graph.node}
    assert not kinds & {"NonMaxSuppression", "If", "Loop", "NonZero", "Einsum"}
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for batch in (1, 3):
        images = torch.rand(batch, 3, 128, 128, generator=torch.Generator().manual_seed(batch))
        outputs = session.run(None, {"images": images.numpy()})
        with torch.no_grad():
            expected = [x.numpy() for x in graph(images)]
        assert outputs[3].shape == (batch, 20, 32, 32)
        np.testing.assert_array_equal(outputs[2], expected[2])
        np.testing.assert_allclose(outputs[0], expected[0], atol=1e-2)
        np.testing.assert_allclose(outputs[3], expected[3], atol=1e-4)


def test_factors_of_some_queries_are_theirs() -> None:
    made = MaskFactors(torch.rand(1, 5, 3), torch.rand(1, 3, 4, 4), torch.zeros(1))
    assert torch.equal(made.queries(slice(2, 4)).kernels, made.kernels[:, 2:4])
