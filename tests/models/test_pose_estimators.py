"""The top-down estimator: what it learns, how its keypoints come back into images, what it exports, its score."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import efftasks.compat  # noqa: F401

# isort: split
import cv2
import numpy as np
import pytest
import torch
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import DefaultScope
from torch.testing import assert_close

from efftasks.compression.folding import inference_model
from efftasks.datasets.coco_topdown import CocoTopDown
from efftasks.datasets.transforms.topdown import CropBox, PackTopDown
from efftasks.evaluation.coco_metric import CocoMetric
from efftasks.export.exporters.onnx import export_onnx
from efftasks.models.pose_estimators import Keypoints, PoseEstimator
from efftasks.models.pose_heads.simcc_head import SimCCHead
from efftasks.runtime.topdown import TopDownPredictor
from efftasks.structures.spec import ArtifactSpec, InputSpec

SIZE = (96, 64)
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
PIPELINE = [dict(type=CropBox, size=SIZE), dict(type=PackTopDown)]


@pytest.fixture(autouse=True)
def scope() -> Iterator[None]:
    with DefaultScope.overwrite_default_scope("efftasks"):
        yield


def make(points: int = 3, **backbone: Any) -> PoseEstimator:
    torch.manual_seed(0)
    small = dict(type="MobileNetV4", variant="conv-s", width=0.25, depth=0.3, out_strides=(16,))
    head = dict(type=SimCCHead, sigmas=(0.05,) * points, input_size=SIZE, channels=64, attention_channels=32)
    return PoseEstimator({**small, **backbone}, head, dict(type="DetPreprocessor", mean=MEAN, std=STD))


def scenes(count: int) -> list[dict]:
    """Images with a box and three coloured dots in it, and where those are."""
    random = np.random.default_rng(3)
    samples = []
    for i in range(count):
        image = random.integers(60, 120, (80, 100, 3), dtype=np.uint8)
        points = random.uniform((30, 20), (70, 60), (3, 2))
        for point, colour in zip(points, ((255, 0, 0), (0, 255, 0), (0, 0, 255))):
            cv2.circle(image, tuple((16 * point - 8).astype(int).tolist()), 16 * 4, colour, -1, cv2.LINE_AA, shift=4)
        keypoints = np.concatenate([points, np.full((3, 1), 2)], axis=1).astype(np.float32)
        samples.append(dict(img=image, img_id=i, box=(26.0, 16.0, 74.0, 64.0), label=0, keypoints=keypoints))
    return samples


def batch(infos: list[dict]) -> dict:
    return pseudo_collate([Compose(PIPELINE)(dict(info)) for info in infos])


@pytest.fixture(scope="module")
def trained() -> tuple[PoseEstimator, list[dict]]:
    """Four crops, learnt by heart."""
    with DefaultScope.overwrite_default_scope("efftasks"):
        model, infos = make().train(), scenes(4)
        data = model.data_preprocessor(batch(infos), training=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(80):
        optimizer.zero_grad()
        sum(model(**data, mode="loss").values()).backward()
        optimizer.step()
    return model.eval(), infos


def test_four_crops_are_learnt_and_come_back_into_the_image(trained):
    model, infos = trained
    with torch.no_grad():
        samples = model.test_step(batch(infos))
    for info, sample in zip(infos, samples):
        detections = sample.pred_instances
        assert (
            len(detections) == 1
            and detections.bboxes.tolist() == [list(info["box"])]
            and detections.labels.tolist() == [0]
        )
        distance = (detections.keypoints[0, :, :2] - torch.from_numpy(info["keypoints"])[:, :2]).norm(dim=-1)
        assert distance.max() < 2  # pixels of the image
        assert detections.scores.item() == pytest.approx(detections.keypoints[0, :, 2].mean().item())
        assert detections.scores.item() > 0.5


def test_the_map_back_against_a_loop(trained):
    model, infos = trained
    data = batch(infos[:1])
    sample = data["data_samples"][0]
    sample.set_metainfo(dict(crop_to_image=np.array([[0.5, -0.25, 7.0], [0.25, 0.5, -3.0]]), label=2))
    with torch.no_grad():
        images = model.data_preprocessor(data)["inputs"]
        inside = model.infer(images).keypoints[0].tolist()
        detections = model(images, [sample], mode="predict")[0].pred_instances
    for (x, y, score), row in zip(inside, detections.keypoints[0].tolist()):
        assert row == pytest.approx([0.5 * x - 0.25 * y + 7, 0.25 * x + 0.5 * y - 3, score], abs=1e-4)
    assert detections.labels.tolist() == [2]


def describe(model: PoseEstimator) -> ArtifactSpec:
    return ArtifactSpec(
        task=model.task,
        classes=("thing",),
        category_ids=(1,),
        input=InputSpec("images", *SIZE, mean=MEAN, std=STD, divisor=model.divisor),
        outputs=model.outputs(*SIZE),
        keypoints=("a", "b", "c"),
    )


@pytest.mark.slow
def test_the_exported_file_gives_the_same_without_torch(trained, tmp_path: Path):
    model, infos = trained
    fused: Any = inference_model(model)
    path = export_onnx(fused, describe(model), tmp_path / "model.onnx")
    predictor = TopDownPredictor(path)
    images = torch.rand(3, 3, *SIZE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        (expected,) = model.infer(images)
        (after,) = fused.infer(images)
        samples = model.test_step(batch(infos))
    assert_close(after, expected, atol=1e-3, rtol=0)
    np.testing.assert_allclose(predictor.session.run(images.numpy())["keypoints"], expected.numpy(), atol=1e-3)
    for info, sample in zip(infos, samples):  # from the image to its keypoints, on both sides
        detections = predictor(info["img"], [info["box"]])
        assert detections.keypoints is not None
        np.testing.assert_allclose(detections.keypoints, sample.pred_instances.keypoints.numpy(), atol=1e-2)
        np.testing.assert_allclose(detections.scores, sample.pred_instances.scores.numpy(), atol=1e-3)
    many = predictor(infos[0]["img"], [infos[0]["box"]] * 11).keypoints  # more than go at a time
    assert many is not None
    np.testing.assert_allclose(many[10], many[0], atol=1e-3)


def test_what_it_declares_is_what_it_gives():
    model = make().eval()
    (spec,) = model.outputs(*SIZE)
    outputs = model.infer(torch.zeros(2, 3, *SIZE))
    assert spec.name == "keypoints" == Keypoints._fields[0] and spec.shape[1:] == outputs.keypoints.shape[1:] == (3, 3)
    assert model.divisor == 16
    with pytest.raises(ValueError, match=r"image size: got \(64, 64\)"):
        model.outputs(64, 64)


def test_any_backbone_and_the_coarsest_of_its_maps():
    model = make(out_strides=(8, 16)).eval()
    raw = model(torch.zeros(1, 3, *SIZE))
    assert raw.x.shape == (1, 3, 128) and raw.y.shape == (1, 3, 192)


def test_wrong_calls_are_named():
    model = make().eval()
    with pytest.raises(ValueError, match="data_samples: got None"):
        model(torch.zeros(1, 3, *SIZE), mode="loss")
    with pytest.raises(ValueError, match="mode: got 'guess'"):
        model(torch.zeros(1, 3, *SIZE), [], mode="guess")


def test_crops_that_are_answered_as_annotated_score_an_ap_of_one(real_data, monkeypatch):
    """Image -> crop -> image -> COCO's evaluator, on real annotations: nothing is lost or shifted on the way."""
    annotations = real_data / "coco_pose" / "annotations" / "val.json"
    dataset = CocoTopDown(
        ann_file=str(annotations),
        data_prefix=dict(img=str(real_data / "coco_pose" / "images")),
        pipeline=[dict(type="LoadImage"), *PIPELINE],
        test_mode=True,
    )
    model = make(17).eval()
    metric = CocoMetric(str(annotations), kinds=("keypoints",))
    metric.dataset_meta = dataset.metainfo
    for i in range(len(dataset)):
        data = pseudo_collate([dataset[i]])
        truth = data["data_samples"][0].gt_instances.keypoints.clone()
        truth[..., 2] /= 2
        monkeypatch.setattr(model, "infer", lambda images, truth=truth: Keypoints(truth))
        metric.process(None, [sample.to_dict() for sample in model.test_step(data)])
    assert metric.evaluate(len(dataset))["coco/keypoints_mAP"] == pytest.approx(1.0)
