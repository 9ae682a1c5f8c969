"""SparseInst's head: the authors' outputs, matching and losses, decoding by a loop, learning, export."""

from __future__ import annotations

import math
from collections.abc import Callable
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
from efftasks.models.insseg_heads.sparse_inst_head import SparseInstHead, SparseInstRaw
from efftasks.models.insseg_heads.sparse_inst_parts import with_coordinates
from efftasks.models.losses.masks import SigmoidFocalLoss
from efftasks.models.necks.instance_context_encoder import InstanceContextEncoder
from efftasks.structures.features import FeatureSpec
from efftasks.structures.instances import PaddedTargets

ROOT = Path(__file__).resolve().parents[3]
BASE = Config.fromfile(ROOT / "configs" / "_base_" / "models" / "sparseinst.py").model.head
LOSSES = BASE.losses.to_dict()
SPECS = (FeatureSpec(12, 8),)


@pytest.fixture(autouse=True)
def scope():
    with DefaultScope.overwrite_default_scope("efftasks"):
        yield


@pytest.fixture
def record(module_at: Callable[[Path], Any]) -> Any:
    return module_at(Path(__file__).parent / "sparse_inst_record.py")


def make(num_classes: Any = 3, in_specs: tuple[FeatureSpec, ...] = SPECS, **changes: Any) -> SparseInstHead:
    settings: dict[str, Any] = dict(num_instances=8, channels=16, kernel_channels=8, num_convs=2, losses=LOSSES)
    return SparseInstHead(in_specs, num_classes, dict(type="MaskMatcher"), **{**settings, **changes})


def features(batch: int = 2, height: int = 64, width: int = 96) -> list[Tensor]:
    return [torch.randn(batch, 12, height // 8, width // 8)]


def nothing(batch: int) -> PaddedTargets:
    none = torch.zeros(batch, 0, dtype=torch.bool)
    return PaddedTargets(none.long(), torch.zeros(batch, 0, 4), none, none)


def rectangles(boxes: list[tuple[int, int, int, int]], labels: list[int], cells: tuple[int, int]) -> PaddedTargets:
    """One image with rectangles, xyxy in cells of 4 pixels."""
    masks = torch.zeros(1, len(boxes), *cells, dtype=torch.uint8)
    for i, (left, top, right, bottom) in enumerate(boxes):
        masks[0, i, top:bottom, left:right] = 255
    valid = torch.ones(1, len(boxes), dtype=torch.bool)
    return PaddedTargets(torch.tensor([labels]), 4.0 * torch.tensor([boxes]), valid, ~valid, masks)


def total(losses: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(losses.values())).sum()


def published(record: Any, authors: Any, **changes: Any) -> tuple[SparseInstHead, SparseInstRaw]:
    """Head and raw prediction with the authors' weights."""
    neck = record.take_weights(InstanceContextEncoder(record.SPECS, 32), "encoder.", record.NECK, authors.fill)
    settings = dict(num_instances=10, channels=32, kernel_channels=16, num_convs=3)
    head = make(5, neck.specs, **settings, **changes)
    record.take_weights(head, "decoder.", record.HEAD, authors.fill)
    with torch.no_grad():
        return head, head(neck(record.features()))


def test_raw_prediction_equals_the_authors(record: Any, authors: Any) -> None:
    _, raw = published(record, authors)
    expected = [torch.tensor(record.RECORD[name]) for name in ("logits", "objectness", "masks")]
    assert raw.masks.shape == (2, 10, 40, 48)
    torch.testing.assert_close(raw.logits, expected[0], atol=2e-5, rtol=0)
    torch.testing.assert_close(raw.objectness[..., 0], expected[1], atol=2e-5, rtol=0)
    torch.testing.assert_close(raw.masks[:, :, 1::9, 2::11], expected[2], atol=2e-5, rtol=0)


def test_scores_and_labels_equal_the_authors(record: Any, authors: Any) -> None:
    head, raw = published(record, authors)
    detections = head.decode(raw)
    scores, order = torch.tensor(record.RECORD["scores"]).sort(dim=1, descending=True)
    torch.testing.assert_close(detections.scores, scores, atol=1e-5, rtol=0)
    assert torch.equal(detections.labels, torch.tensor(record.RECORD["labels"]).gather(1, order))


def test_matching_and_losses_equal_the_authors(record: Any, authors: Any) -> None:
    # The authors measure the IoU that the objectness learns at 0.4.
    head, raw = published(record, authors, mask_threshold=0.4)
    image, instance, target = head.matcher(raw.logits, raw.masks, record.targets())
    for i, (queries, objects) in enumerate(record.RECORD["pairs"]):
        assert instance[image == i].tolist() == queries
        assert target[image == i].tolist() == objects
    losses = head.loss_by_feat(raw, record.targets())
    names = dict(cls="loss_ce", objectness="loss_objectness", mask="loss_mask", dice="loss_dice")
    assert sorted(losses) == sorted(f"loss_{name}" for name in names)
    for name, theirs in names.items():
        assert losses[f"loss_{name}"].item() == pytest.approx(record.RECORD["losses"][theirs], rel=2e-5), name


def test_coordinates_run_from_minus_one_to_one() -> None:
    actual = with_coordinates(torch.zeros(2, 1, 3, 5))
    assert actual.shape == (2, 3, 3, 5)
    torch.testing.assert_close(actual[1, 0, 0], torch.tensor([-1.0, -0.5, 0.0, 0.5, 1.0]))
    torch.testing.assert_close(actual[0, 1, :, 4], torch.tensor([-1.0, 0.0, 1.0]))
    assert bool(torch.isfinite(with_coordinates(torch.zeros(1, 1, 1, 1))).all())


@pytest.mark.parametrize("stride", [4, 8, 16])
def test_masks_have_cells_of_four_pixels(stride: int) -> None:
    head = make(in_specs=(FeatureSpec(12, stride),)).eval()
    with torch.no_grad():
        raw = head([torch.randn(2, 12, 64 // stride, 96 // stride)])
    assert raw.masks.shape == (2, 8, 16, 24)


def test_the_artifact_says_what_decode_gives() -> None:
    head = make(max_detections=5).eval()
    (masks,) = head.part_outputs(64, 96)
    with torch.no_grad():
        detections = head.decode(head(features()))
    assert detections.masks is not None and masks.name == "masks" and detections.masks.shape[1:] == masks.shape[1:]


def random_raw(head: SparseInstHead, batch: int = 2) -> SparseInstRaw:
    masks = 2 * torch.randn(batch, head.num_instances, 10, 7)
    masks[0, 1] = -3.0  # one that is empty
    return SparseInstRaw(torch.randn(batch, 8, 3), torch.randn(batch, 8, 1), masks)


@pytest.mark.parametrize(("threshold", "most"), [(0.5, 100), (0.5, 3), (0.3, 5)])
def test_decode_against_a_loop(threshold: float, most: int) -> None:
    head = make(mask_threshold=threshold, max_detections=most)
    raw = random_raw(head)
    detections = head.decode(raw)
    assert detections.masks is not None and detections.scores.shape[1] == head.count_detections(40, 28) == min(8, most)
    for i in range(2):
        rows = []
        for n in range(8):
            p = raw.masks[i, n].double().sigmoid().numpy()
            odds = p / (1 - p) * (1 - threshold) / threshold  # the threshold is moved to 1, a probability of a half
            shown = odds / (1 + odds)
            inside = p > threshold
            sigmoid = [1 / (1 + math.exp(-value)) for value in raw.logits[i, n].tolist()]
            objectness = 1 / (1 + math.exp(-raw.objectness[i, n, 0].item()))
            score = math.sqrt(max(sigmoid) * objectness) * (shown[inside].mean() if inside.any() else 0.0)
            y, x = np.nonzero(inside)
            box = [4 * x.min(), 4 * y.min(), 4 * x.max() + 4, 4 * y.max() + 4] if inside.any() else [0] * 4
            rows.append((score, int(np.argmax(sigmoid)), box, np.log(odds)))
        rows.sort(key=lambda row: -row[0])
        for k, (score, label, box, logits) in enumerate(rows[: min(8, most)]):
            assert detections.scores[i, k].item() == pytest.approx(score, abs=1e-6)
            assert detections.labels[i, k].item() == label
            assert detections.boxes[i, k].tolist() == box
            np.testing.assert_allclose(detections.masks[i, k].numpy(), logits, atol=1e-5)


@pytest.mark.parametrize("kind", ["none", "no masks at all", "only without a mask", "only crowds"])
def test_batches_without_objects_train(kind: str) -> None:
    head = make().train()
    targets = rectangles([(2, 3, 9, 8)], [1], (16, 24))
    assert targets.masks is not None
    empty = torch.zeros_like(targets.masks)
    if kind == "none":
        targets = nothing(1)
    elif kind == "no masks at all":
        targets = targets._replace(masks=None)
    elif kind == "only crowds":
        targets = targets._replace(ignored=targets.valid)
    else:
        targets = targets._replace(masks=empty)
    losses = head.loss(features(1), targets)
    total(losses).backward()
    assert losses["loss_cls"] > 0 and losses["loss_mask"] == losses["loss_dice"] == losses["loss_objectness"] == 0
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None and bool(torch.isfinite(parameter.grad).all()), name


def test_every_parameter_learns() -> None:
    head = make().train()
    total(head.loss(features(1), rectangles([(2, 3, 9, 8), (10, 2, 20, 15)], [1, 2], (16, 24)))).backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.abs().sum() > 0), name


def raw_of(masks: list[tuple[int, int, int, int]], cells: tuple[int, int] = (16, 24)) -> SparseInstRaw:
    """Predictions of rectangles, all with equal scores."""
    shown = rectangles(masks, [0] * len(masks), cells).masks
    assert shown is not None
    count = len(masks)
    return SparseInstRaw(torch.zeros(1, count, 3), torch.zeros(1, count, 1), 12 * (shown.float() / 127.5 - 1))


def focal(positive: int, negative: int) -> float:
    """Loss of so many classes, all at 0.5."""
    hot = torch.tensor([1.0] * positive + [0.0] * negative)
    return SigmoidFocalLoss(2.0, 0.25, 2.0)(torch.zeros_like(hot), hot).item()


@pytest.mark.parametrize("known", [True, False])
def test_what_lies_in_a_crowd_region_is_not_background(known: bool) -> None:
    head = make(num_instances=4)
    # The object; three quarters inside the crowd; half inside; elsewhere.
    raw = raw_of([(0, 0, 4, 4), (9, 8, 13, 12), (8, 8, 12, 12), (18, 0, 22, 4)])
    targets = rectangles([(0, 0, 4, 4), (10, 6, 20, 14)], [1, 0], (16, 24))
    assert targets.masks is not None
    targets.ignored[0, 1] = True
    if not known:  # then the box states where the crowd is
        targets.masks[0, 1] = 0
    losses = head.loss_by_feat(raw, targets)["loss_cls"].item()
    # Matched with one class of three; the two outside and on the edge learn that they are none.
    assert losses == pytest.approx(focal(1, 2 + 2 * 3), rel=1e-5)


def test_what_lies_in_an_object_without_a_mask_is_not_background() -> None:
    head = make(num_instances=2)
    raw = raw_of([(0, 0, 4, 4), (12, 8, 16, 12)])
    targets = rectangles([(0, 0, 4, 4), (10, 6, 20, 14)], [1, 0], (16, 24))
    assert targets.masks is not None
    both = head.loss_by_feat(raw, targets)
    targets.masks[0, 1] = 0
    alone = head.loss_by_feat(raw, targets)
    assert alone["loss_cls"].item() == pytest.approx(focal(1, 2), rel=1e-5)
    assert both["loss_cls"].item() == pytest.approx(focal(2, 4) / 2, rel=1e-5)


def test_losses_do_not_depend_on_padding() -> None:
    head = make()
    raw = head(features(1))
    targets = rectangles([(2, 3, 9, 8)], [1], (16, 24))
    parts: Any = [None if x is None else torch.cat([x, torch.zeros_like(x)], 1) for x in targets]
    padded = PaddedTargets(*parts)
    once, twice = head.loss_by_feat(raw, targets), head.loss_by_feat(raw, padded)
    assert all(torch.equal(once[name], twice[name]) for name in once)


def test_learns_one_scene_and_gives_one_row_an_object() -> None:
    boxes, labels = [(2, 2, 10, 9), (6, 7, 15, 15), (11, 1, 15, 5)], [0, 1, 0]
    targets = rectangles(boxes, labels, (16, 16))
    head = make(2, num_instances=6, channels=24).train()
    inputs = features(1, 64, 64)
    optimizer = torch.optim.Adam(head.parameters(), lr=3e-3)
    for _ in range(150):
        optimizer.zero_grad()
        total(head.loss(inputs, targets)).backward()
        optimizer.step()
    detections = head.decode(head(inputs))
    sure = detections.scores[0] > 0.5
    assert detections.masks is not None and targets.masks is not None
    assert int(sure.sum()) == 3  # no duplicates, nothing suppressed
    for box, label, mask in zip(targets.boxes[0], labels, targets.masks[0] > 127):
        ious = [float((m & mask).sum() / (m | mask).sum()) for m in detections.masks[0][sure] > 0]
        best = int(np.argmax(ious))
        assert ious[best] > 0.9 and detections.labels[0][sure][best] == label
        assert bool((detections.boxes[0][sure][best] - box).abs().max() <= 4)


def trained(net: nn.Module) -> nn.Module:
    """Statistics as after training and maps that differ, in evaluation mode."""
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            assert part.running_mean is not None and part.running_var is not None
            part.running_mean.normal_(0, 0.5)
            part.running_var.uniform_(0.5, 2.0)
        elif isinstance(part, (nn.Linear, nn.Conv2d)):
            part.weight.data.normal_(0, 2 * part.weight[0].numel() ** -0.5)
    return net.eval()


def test_fused_equals_unfused() -> None:
    head = trained(make()).double()
    fused = inference_model(head)
    assert isinstance(fused, SparseInstHead) and not any(isinstance(m, nn.BatchNorm2d) for m in fused.modules())
    inputs = [x.double() for x in features()]
    with torch.no_grad():
        for a, b in zip(head(inputs), fused(inputs)):  # type: ignore[operator]
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_progress_changes_nothing() -> None:
    head = make().eval()
    inputs, targets = features(1), rectangles([(2, 3, 9, 8)], [1], (16, 24))
    before = head.loss(inputs, targets)
    head.set_progress(1.0)
    assert all(torch.equal(value, head.loss(inputs, targets)[name]) for name, value in before.items())


class Exported(nn.Module):
    """What is exported of a head."""

    def __init__(self, head: SparseInstHead) -> None:
        super().__init__()
        self.head = head

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(part for part in self.head.decode(self.head([x])) if part is not None)


def test_exported_it_is_the_same(tmp_path: Path) -> None:
    head: Any = trained(make(max_detections=5))
    net = Exported(inference_model(head)).eval()  # type: ignore[arg-type]
    path = str(tmp_path / "head.onnx")
    batch = {0: torch.export.Dim("batch", min=1)}
    with torch.no_grad():
        torch.onnx.export(
            net, tuple(features()), path, dynamo=True, opset_version=18, dynamic_shapes=(batch,), verbose=False
        )
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        for count in (1, 2, 3):
            (x,) = features(count)
            boxes, scores, labels, masks = session.run(None, {session.get_inputs()[0].name: x.numpy()})
            expected = net(x)
            assert expected[1].diff(dim=1).abs().min() > 1e-5  # no near ties, or the order would be chance
            np.testing.assert_allclose(scores, expected[1].numpy(), atol=1e-5)
            np.testing.assert_allclose(masks, expected[3].numpy(), atol=1e-4)
            assert np.array_equal(labels, expected[2].numpy()) and np.array_equal(boxes, expected[0].numpy())
    kinds = [node.op_type for node in onnx.load(path).graph.node]
    assert not {"NonMaxSuppression", "GridSample", "NonZero", "ScatterND", "Loop", "If"} & set(kinds)
    assert kinds.count("GatherElements") <= 1  # of the labels: masks are taken as wholes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(num_classes=None), "num_classes: got None, allowed are integers from 1"),
        (dict(in_specs=(*SPECS, *SPECS)), "in_specs: got .* expected one map"),
        (dict(in_specs=(FeatureSpec(12, 2),)), "in_specs: got .* stride that is a multiple of 4"),
        (dict(groups=3), "groups: got 3, allowed are divisors of channels, 16"),
        (dict(mask_threshold=1.0), "mask_threshold: got 1.0, allowed are numbers between 0 and 1"),
        (dict(losses={"cls": LOSSES["cls"]}), r"losses: got \['cls'\], expected cls and objectness"),
    ],
)
def test_mistakes_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**changes)
