"""A user's own types take part by what their classes declare: none of them inherits from a class of this package."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import pytest
import torch
from mmcv.transforms import BaseTransform
from mmengine.dataset import BaseDataset
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.registry import DATASETS, HOOKS, METRICS, MODELS, TRANSFORMS

from efftasks import Predictor, apis
from efftasks.apis.precheck import precheck
from efftasks.config import check_complete, pixel_range
from efftasks.datasets.shapes import write_shapes
from efftasks.datasets.transforms.fit_image import FitImage
from efftasks.imaging.images import read_image
from efftasks.linking.declared import arguments_of
from efftasks.linking.hooks import hooks_of
from efftasks.linking.pipelines import check_pipelines
from efftasks.structures.errors import UserError
from efftasks.structures.image_fit import ImageFit, size_pair

SHAPES = "o2o-n_mobilenetv4-conv-s_1xb16-18e_shapes-128"
CUSTOM = "o2o-n_mobilenetv4-conv-s_1xb16-100e_custom-640"
SEMANTIC = "fpnlite-n_mobilenetv4-conv-s_1xb8-100e_custom-512"
TEST = "test_dataloader.dataset.pipeline"
TRAIN = "train_dataloader.dataset.pipeline"
SMALL = {"model.backbone.width": 0.25, "model.neck.out_channels": (16, 16, 16), "image_size": 64}


@TRANSFORMS.register_module(force=True)
class ToyFit(BaseTransform):
    """Resizes images to ``frame``."""

    linked_sizes: ClassVar[dict[str, str]] = {"frame": "image_size"}
    fits_input: ClassVar[bool] = True

    def __init__(self, frame: tuple[int, int] | None, keep: bool = True, margin: int = 7) -> None:
        assert frame is not None
        self.fit = FitImage(frame, "letterbox" if keep else "stretch", margin)

    @staticmethod
    def how_it_fits(arguments: Mapping[str, Any]) -> ImageFit:
        mode = "letterbox" if arguments["keep"] else "stretch"
        return ImageFit(mode, size_pair(arguments["frame"]), arguments["margin"])

    def transform(self, results: dict) -> dict:
        return self.fit.transform(results)


@TRANSFORMS.register_module(force=True)
class ToyRead(BaseTransform):
    """Reads images by a range of its own."""

    reads_images: ClassVar[bool] = True
    linked_values: ClassVar[tuple[str, ...]] = ("pixel_range",)

    def __init__(self, pixel_range: tuple[float, float] | None = (0, 1023), gray: bool = False) -> None:
        self.pixel_range = pixel_range

    def transform(self, results: dict) -> dict:
        results["img"] = read_image(results["img_path"], self.pixel_range)
        results["img_shape"] = results["ori_shape"] = results["img"].shape[:2]
        return results


@TRANSFORMS.register_module(force=True)
class ToyMasks(BaseTransform):
    """Loads masks if it is told to."""

    def __init__(self, outlines: bool = True) -> None:
        self.outlines = outlines

    @staticmethod
    def needed_annotations(arguments: Mapping[str, Any]) -> set[str]:
        return {"masks"} if arguments["outlines"] else set()

    def transform(self, results: dict) -> dict:
        return results


@TRANSFORMS.register_module(force=True)
class ToyNew(BaseTransform):
    """Has replaced another transform."""

    replaces: ClassVar[dict[str, str]] = {"ToyOld": "ToyNew with the same arguments"}

    def transform(self, results: dict) -> dict:
        return results


@DATASETS.register_module(force=True)
class ToyCoco(BaseDataset):
    """Reads a COCO file."""

    annotations: ClassVar[str] = "coco"


@DATASETS.register_module(force=True)
class ToyPoses(ToyCoco):
    """Is useless without keypoints."""

    @staticmethod
    def needed_annotations(arguments: Mapping[str, Any]) -> set[str]:
        return {"keypoints"}


@DATASETS.register_module(force=True)
class ToyMaps(BaseDataset):
    """Reads label maps."""

    annotations: ClassVar[str] = "label maps"
    linked_values: ClassVar[tuple[str, ...]] = ("label_values", "ignore")


@METRICS.register_module(force=True)
class ToyScore(BaseMetric):
    """Scores masks, with a COCO file."""

    annotations: ClassVar[str] = "coco"

    @staticmethod
    def needed_annotations(arguments: Mapping[str, Any]) -> set[str]:
        return {"masks"}


@HOOKS.register_module(force=True)
class ToyHook(Hook):
    """Must not run twice."""

    runs_once: ClassVar[bool] = True


@MODELS.register_module(force=True)
class ToyNeck(torch.nn.Module):
    """Is scaled by arguments of other names."""

    scaled_arguments: ClassVar[dict[str, str]] = {"planes": "channels", "rounds": "blocks", "factor": "width"}


@MODELS.register_module(force=True)
class ToyHead(torch.nn.Module):
    """Takes classes and keypoints by arguments of other names."""

    linked_metainfo: ClassVar[dict[str, str]] = {"kinds": "num_classes", "spreads": "sigmas"}


def messages(name: str, options: dict[str, Any]) -> list[str]:
    return [finding.message for finding in check_pipelines(apis.load_config(name, options))]


def test_arguments_are_those_of_the_config_over_the_defaults_of_all_bases() -> None:
    assert arguments_of(dict(type="ToyFit", margin=3)) == dict(frame=None, keep=True, margin=3)
    assert arguments_of(dict(type="no.SuchType", a=1)) == dict(a=1)

    @TRANSFORMS.register_module(force=True)
    class ToyTallFit(ToyFit):
        def __init__(self, frame: tuple[int, int] | None, keep: bool = False, **kwargs: Any) -> None:
            super().__init__(frame, keep, **kwargs)

    assert arguments_of(dict(type="ToyTallFit")) == dict(frame=None, keep=False, margin=7)


def test_a_subclass_without_the_arguments_must_describe_itself() -> None:
    @TRANSFORMS.register_module(force=True)
    class ToyStretch(FitImage):
        def __init__(self, size: tuple[int, int]) -> None:
            super().__init__(size, mode="stretch")

    with pytest.raises(
        UserError, match=r"ToyStretch: its how_it_fits reads the argument 'mode', which its constructor"
    ):
        messages(SHAPES, {f"{TEST}.1": dict(type="ToyStretch", size=(128, 128))})


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (dict(margin=114), None),
        (dict(), ["has pad value 114, test 7", f"{TRAIN}.2", f"{TEST}.1"]),
        (dict(margin=114, keep=False), ["by letterbox, test by stretch", f"{TEST}.1"]),
        (dict(margin=114, frame=(32, 48)), ["of 64 x 64, test of 32 x 48"]),
    ],
)
def test_an_own_transform_is_compared_with_training(arguments: dict[str, Any], expected: list[str] | None) -> None:
    options = {f"{TEST}.1": dict(type="ToyFit", **{"frame": None, **arguments}), "image_size": 64}
    sentences = messages(SHAPES, options)
    assert len(sentences) == (expected is not None)
    assert all(part in sentence for sentence in sentences for part in expected or ())


def test_an_own_loader_is_compared_with_that_of_training() -> None:
    (sentence,) = messages(SHAPES, {f"{TEST}.0": dict(type="ToyRead", gray=True)})
    assert "reads images differently" in sentence and "gray" in sentence


def test_a_transform_that_its_class_says_was_replaced_is_refused_until_a_user_has_one_of_that_name() -> None:
    cfg = apis.load_config(SHAPES, {f"{TRAIN}.1": dict(type="ToyOld")})
    with pytest.raises(UserError, match=rf"^{TRAIN}\.1: ToyOld was removed, expected ToyNew with the same arguments"):
        check_pipelines(cfg)
    TRANSFORMS.register_module(name="ToyOld", module=ToyMasks, force=True)
    try:
        assert check_pipelines(cfg) == []
    finally:
        del TRANSFORMS.module_dict["ToyOld"]


@pytest.fixture
def shapes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The built-in shapes without any mask or keypoint."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = write_shapes(tmp_path / "shapes", train=4, val=4, size=64, seed=1)
    for split in ("train", "val"):
        file = root / f"annotations/{split}.json"
        content = json.loads(file.read_text())
        for annotation in content["annotations"]:
            annotation.update(segmentation=[], keypoints=[])
        file.write_text(json.dumps(content))
    return root


def test_an_own_data_set_is_checked_for_what_it_and_its_transforms_need(shapes: Path) -> None:
    def check(kind: str, *transforms: dict[str, Any]) -> None:
        options = {"train_dataloader.dataset.type": kind, TRAIN: list(transforms), "data_root": f"{shapes}/"}
        precheck(apis.load_config(SHAPES, options), ("train",))

    check("ToyCoco", dict(type="ToyMasks", outlines=False))
    check("BaseDataset", dict(type="ToyMasks"))  # it does not say what its annotations are
    for transforms in ([dict(type="ToyMasks")], [dict(type="RandomChoice", transforms=[[dict(type="ToyMasks")]])]):
        with pytest.raises(UserError, match=r"train\.json: none of .* a mask"):
            check("ToyCoco", *transforms)
    with pytest.raises(UserError, match=r"train\.json: none of .* a labeled keypoint"):
        check("ToyPoses")


@pytest.mark.parametrize("metric", ["ToyScore", "mmdet.CocoMetric"])
def test_an_own_metric_says_what_it_scores(shapes: Path, metric: str) -> None:
    other = shapes / "annotations/other.json"
    other.write_text((shapes / "annotations/val.json").read_text())
    evaluator = dict(type=metric, ann_file=str(other), metric=["bbox", "segm"])
    cfg = apis.load_config(SHAPES, {"data_root": f"{shapes}/", "val_evaluator": evaluator})
    with pytest.raises(UserError, match=r"val\.json: none of .* a mask.*other\.json: none of .* a mask"):
        precheck(cfg, ("val",))


def test_an_own_data_set_of_label_maps_is_checked_and_takes_their_values(tmp_path: Path) -> None:
    for folder, value in (("img/train", 90), ("ann/train", 255)):
        (tmp_path / folder).mkdir(parents=True)
        for i in range(3):
            pixels = np.zeros((32, 32), np.uint8)
            pixels[8:20, 8:20] = value
            cv2.imwrite(str(tmp_path / folder / f"{i}.png"), pixels)
    options = {"data_root": f"{tmp_path}/", "classes": ("background", "object"), "image_size": (32, 32)}
    options |= {f"{part}_dataloader.dataset.type": "ToyMaps" for part in ("train", "val", "test")}
    with pytest.raises(UserError, match="3 label maps have the numbers 0, 255 only"):
        precheck(apis.load_config(SEMANTIC, options), ("train",))
    cfg = apis.load_config(SEMANTIC, {**options, "label_values": (0, 255)})
    assert precheck(cfg, ("train",)) == []
    options["train_dataloader.dataset.type"] = "BaseDataset"
    with pytest.raises(UserError, match=r"label_values: got \(0, 255\) for BaseDataset"):
        apis.load_config(SEMANTIC, {**options, "label_values": (0, 255)})


def test_an_own_hook_that_runs_once_replaces_the_default_one() -> None:
    hooks = {"default_hooks.toy": dict(type="ToyHook"), "custom_hooks": [dict(type="ToyHook", priority=1)]}
    cfg = apis.load_config(SHAPES, hooks)
    assert [place for place, hook in hooks_of(cfg) if hook["type"] == "ToyHook"] == [("custom_hooks", 0)]


def test_own_parts_are_scaled_by_the_arguments_that_they_declare() -> None:
    neck = dict(type="ToyNeck", planes=(64, 100), rounds=2, depth=5, out_channels=(8,))
    model = apis.load_config(SHAPES, {"model.neck": neck, "scale": dict(phi=2.0)}).model
    assert model.neck.planes == (80, 120) and model.neck.rounds == 3  # 77.4 and 121, 2.88
    assert (model.neck.depth, model.neck.out_channels) == (5, (8,)) and model.neck.factor == pytest.approx(1.21)
    assert model.backbone.width == pytest.approx(1.21 * apis.load_config(SHAPES).model.backbone.get("width", 1.0))


def test_an_own_head_takes_classes_and_keypoints_by_the_arguments_that_it_declares() -> None:
    head = {"model.toy": dict(type="ToyHead", kinds=None, spreads=None)}
    points = {"keypoints": dict(names=["p", "q"], sigmas=0.1, skeleton=[])}
    toy = apis.load_config(CUSTOM, {**head, **points, "classes": ["a", "b", "c"]}).model.toy
    assert (toy.kinds, toy.spreads) == (3, [0.1, 0.1])
    with pytest.raises(UserError, match=r"annotations/train\.json: cannot be read .* takes its keypoints from it"):
        check_complete(apis.load_config(CUSTOM, {**head, "classes": ["a"], "data_root": "/nowhere"}))


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(0)
    pipeline = [dict(type="ToyRead"), dict(type="ToyFit", frame=None), dict(type="PackObjects")]
    cfg = apis.load_config(SHAPES, {**SMALL, TEST: pipeline})
    model = apis.build(cfg)
    for scores in model.head.one_to_one.classes:
        torch.nn.init.normal_(scores[-1].weight, 0.0, 0.3)  # scores of a new model all tie
    model.cfg, model.dataset_meta = cfg, dict(classes=tuple(cfg.classes))
    return model.eval()


def test_an_own_transform_and_loader_are_described(model: Any) -> None:
    described = apis.describe(model).input
    assert (described.resize, described.pad_value, described.pixel_range) == ("letterbox", 7.0, (0, 1023))
    assert (described.height, described.width) == (64, 64) == apis.input_size(model.cfg)
    cfg = model.cfg.copy()
    apis.set_input_size(cfg, (32, 96))
    assert cfg.test_dataloader.dataset.pipeline[1]["frame"] == (32, 96) == apis.input_size(cfg)
    assert pixel_range(cfg) == (0, 1023)


def test_a_fit_that_does_not_describe_itself_is_an_error() -> None:
    @TRANSFORMS.register_module(force=True)
    class ToyMute(BaseTransform):
        fits_input: ClassVar[bool] = True

        def transform(self, results: dict) -> dict:
            return results

    cfg = apis.load_config(SHAPES, {TEST: [dict(type="LoadImage"), dict(type="ToyMute", size=(64, 64))]})
    with pytest.raises(UserError, match="ToyMute: has fits_input without how_it_fits"):
        apis.input_size(cfg)
    cfg.test_dataloader.dataset.pipeline[1] = dict(type="ToyFit", frame=None)
    with pytest.raises(UserError, match=r"ToyFit: got no size, expected \(height, width\)"):
        apis.input_size(cfg)


def test_a_model_with_an_own_transform_is_exported_and_verified(model: Any, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    values = np.random.default_rng(0).integers(0, 1024, (6, 8, 3), dtype=np.uint16)
    cv2.imwrite(str(photos / "a.png"), cv2.resize(values, (90, 60), interpolation=cv2.INTER_NEAREST))
    exported = apis.export_model(model, tmp_path / "out", apis.ExportSettings(images=photos, num_images=1))
    assert exported.spec.verify["passed"]  # the file's preprocessing and ToyRead with ToyFit give the same
    assert Predictor(exported.path).spec.input.pad_value == 7.0
