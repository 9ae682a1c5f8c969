"""One network for boxes, masks, keypoints and a semantic map, on images that have some of the annotations."""

from __future__ import annotations

from typing import Any

import efftasks.compat  # noqa: F401

import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData, PixelData
from torch.testing import assert_close

from efftasks.apis import load_config
from efftasks.datasets.shapes import write_shapes
from efftasks.models.detectors import Detector
from efftasks.registry import DATASETS, MODELS
from efftasks.structures.instances import DetectionTensors


@pytest.fixture(scope="module")
def network() -> Any:
    cfg = load_config("o2omulti-n_mobilenetv4-conv-s_1xb16-36e_shapes-128")
    with DefaultScope.overwrite_default_scope("efftasks"):
        torch.manual_seed(0)
        return MODELS.build(cfg.model)


def sample(masks: bool = True, keypoints: bool = True, semantic: bool = True, objects: bool = True) -> DetDataSample:
    """64 x 64 px with one object, or with a region to ignore that is the whole image."""
    box = [8.0, 8.0, 40.0, 40.0] if objects else [0.0, 0.0, 64.0, 64.0]
    cells = torch.zeros(1, 16, 16, dtype=torch.uint8)
    points = torch.zeros(1, 4, 3)
    if masks:
        cells[0, 2:10, 2:10] = 255
    if keypoints:
        points[0] = torch.tensor([[10, 10, 2], [38, 10, 2], [38, 38, 1], [0, 0, 0]])
    one = InstanceData(
        bboxes=HorizontalBoxes(torch.tensor([box])),
        labels=torch.tensor([2]),
        masks=cells,
        keypoints=points,
        area_shares=torch.ones(1),
    )
    data = DetDataSample(metainfo=dict(ori_shape=(32, 48), scale_factor=(1.0, 1.0), img_shape=(64, 64)))
    data.gt_instances, data.ignored_instances = (one, one[:0]) if objects else (one[:0], one)
    if semantic:
        data.gt_sem_seg = PixelData(data=torch.ones(1, 64, 64, dtype=torch.long))
    return data


def losses(network: Detector, samples: list[DetDataSample]) -> dict[str, float]:
    network.train()
    network.zero_grad()
    actual = network(torch.rand(len(samples), 3, 64, 64), samples, mode="loss")
    torch.stack([value for key, value in actual.items() if "loss" in key]).sum().backward()
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in network.parameters())
    return {key: value.item() for key, value in actual.items()}


def test_every_part_has_its_loss(network):
    actual = losses(network, [sample(), sample()])
    for name in ("loss_cls_o2o", "loss_mask_bce_o2o", "loss_mask_dice_o2m", "loss_oks_o2o", "semantic.loss_ce"):
        assert actual[name] > 0, name


@pytest.mark.parametrize(
    ("lacks", "silent"),
    [
        ("masks", ("loss_mask_bce_o2o", "loss_mask_dice_o2m")),
        ("keypoints", ("loss_oks_o2o", "loss_kpt_l1_o2m", "loss_kpt_visible_o2o")),
        ("semantic", ("semantic.loss_ce", "semantic.loss_dice")),
        ("objects", ("loss_iou_o2o", "loss_mask_bce_o2o", "loss_oks_o2m", "loss_cls_o2o")),
    ],
)
def test_what_is_not_annotated_teaches_nothing(network, lacks, silent):
    actual = losses(network, [sample(**{lacks: False}), sample(**{lacks: False})])
    assert all(actual[name] == pytest.approx(0, abs=1e-6) for name in silent), {name: actual[name] for name in silent}
    mixed = losses(network, [sample(**{lacks: False}), sample()])
    assert all(mixed[name] > 0 for name in silent)


def test_predictions_are_in_pixels_of_the_image(network):
    network.eval()
    with torch.no_grad():
        (prediction,) = network(torch.rand(1, 3, 64, 64), [sample()], mode="predict")
    count = len(prediction.pred_instances)
    assert (
        prediction.pred_instances.masks.shape == (count, 32, 48) and prediction.pred_instances.masks.dtype == torch.bool
    )
    assert prediction.pred_instances.keypoints.shape == (count, 4, 3)
    assert prediction.pred_sem_seg.data.shape == (1, 32, 48)
    boxes = prediction.pred_instances.bboxes
    assert bool((boxes >= 0).all()) and bool((boxes[:, 2] <= 48).all()) and bool((boxes[:, 3] <= 32).all())
    # No pixel of a mask lies outside of its box.
    for mask, (left, top, right, bottom) in zip(prediction.pred_instances.masks, boxes.tolist()):
        y, x = mask.nonzero(as_tuple=True)
        if len(x):
            assert x.min() + 1 > left and x.max() < right and y.min() + 1 > top and y.max() < bottom


def test_boxes_keypoints_and_masks_come_back_to_the_image(network, monkeypatch):
    """By hand: an image of 100 x 50 pixels (width x height), shown three fifths as wide and twice as high."""
    cells = torch.full((1, 2, 25, 15), 1.0)
    cells[0, 0, :, 6:] = -1.0  # right of x = 24 of the network input
    infer = DetectionTensors(
        boxes=torch.tensor([[[6.0, 10.0, 36.0, 60.0], [-3.0, -2.0, 70.0, 104.0]]]),
        scores=torch.tensor([[0.9, 0.2]]),
        labels=torch.tensor([[2, 0]]),
        masks=cells,
        keypoints=torch.tensor([[[[12.0, 30.0, 0.7], [-6.0, 120.0, 0.1]], [[0.0, 0.0, 1.0], [60.0, 100.0, 0.5]]]]),
    )
    monkeypatch.setattr(network, "infer", lambda images: infer)
    given = DetDataSample(metainfo=dict(ori_shape=(50, 100), scale_factor=(0.6, 2.0), img_shape=(100, 60)))
    (prediction,) = network(torch.rand(1, 3, 100, 60), [given], mode="predict")
    objects = prediction.pred_instances
    assert_close(objects.bboxes, torch.tensor([[10.0, 5.0, 60.0, 30.0], [0.0, 0.0, 100.0, 50.0]]))  # clipped
    expected = [[[20.0, 15.0, 0.7], [-10.0, 60.0, 0.1]], [[0.0, 0.0, 1.0], [100.0, 50.0, 0.5]]]  # not clipped
    assert_close(objects.keypoints, torch.tensor(expected))
    inside = torch.zeros(50, 100, dtype=torch.bool)
    inside[5:30, 10:40] = True  # its box, left of 24 / 0.6
    assert torch.equal(objects.masks[0], inside)
    assert objects.labels.tolist() == [2, 0] and objects.scores.tolist() == pytest.approx([0.9, 0.2])


def test_a_task_for_each_set_of_outputs(network):
    assert network.task == "multi-task"
    names = [output.name for output in network.outputs(64, 64)]
    assert names == ["boxes", "scores", "labels", "masks", "keypoints", "segmentation"]
    for config, task in (
        ("o2oseg-n_mobilenetv4-conv-s_8xb16-300e_coco-640", "instance segmentation"),
        ("o2opose-n_mobilenetv4-conv-s_8xb16-300e_coco-640", "pose"),
        ("o2o-n_mobilenetv4-conv-s_8xb16-300e_coco-640", "detection"),
    ):
        with DefaultScope.overwrite_default_scope("efftasks"):
            assert MODELS.build(load_config(config).model).task == task


def test_sets_with_other_annotations_train_together(network, tmp_path):
    """Boxes, masks and keypoints of one set, label maps of another, in one batch."""
    write_shapes(tmp_path, train=3, val=1, size=64)
    classes = ("circle", "square", "triangle", "star", "ring", "cross")
    load = [dict(type="LoadImage"), dict(type="LoadObjects", masks=True, keypoints=True, num_keypoints=4)]
    finish = [dict(type="RandomWarp", size=(64, 64)), dict(type="FlipObjects", prob=0.5), dict(type="PackObjects")]
    objects = dict(
        type="CocoDetection",
        data_root=str(tmp_path),
        ann_file="annotations/train.json",
        data_prefix=dict(img="images/"),
        metainfo=dict(classes=classes),
        pipeline=[*load, *finish],
    )
    maps = dict(
        type="SemanticFolder",
        data_root=str(tmp_path / "cityscapes"),
        data_prefix=dict(img_path="leftImg8bit/train", seg_map_path="gtFine/train"),
        metainfo=dict(classes=("background", *classes)),
        pipeline=[*load, dict(type="LoadSegMap"), *finish],
    )
    with DefaultScope.overwrite_default_scope("efftasks"):
        keys = ["classes", "category_ids", "keypoints", "palette", "ignore", "label_map", "reduce_zero_label"]
        both = DATASETS.build(dict(type="ConcatDataset", datasets=[objects, maps], ignore_keys=keys))
    assert len(both) == 6
    samples = [both[i]["data_samples"] for i in (0, 1, 3, 4)]
    assert all("gt_sem_seg" not in x for x in samples[:2]) and all("gt_sem_seg" in x for x in samples[2:])
    assert all(len(x.gt_instances) == 0 and len(x.ignored_instances) == 1 for x in samples[2:])
    actual = losses(network, samples)
    assert actual["loss_mask_bce_o2o"] > 0 and actual["loss_oks_o2o"] > 0 and actual["semantic.loss_ce"] > 0
    # Images of label maps alone are no background: they teach no class.
    assert losses(network, samples[2:])["loss_cls_o2o"] == pytest.approx(0, abs=1e-6)
