"""Which images are calibrated on and which are held out: of all tasks, of several data sets, of folders."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope

from efftasks import apis
from efftasks.apis.calibrating import choose_images, subset_config
from efftasks.apis.evaluating import evaluate
from efftasks.config import load_config
from efftasks.datasets.shapes import write_shapes
from efftasks.imaging.prediction import Prediction
from efftasks.registry import DATASETS
from efftasks.structures.errors import UserError
from efftasks.structures.quantization import QuantizationSettings

TOP_DOWN = "simcc-n_mobilenetv4-conv-s_1xb32-100e_custom-256"
DETECTOR = "o2o-n_mobilenetv4-conv-s_1xb16-18e_shapes-128"


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shapes(tmp_path_factory.mktemp("data") / "shapes", train=6, val=2, size=64, seed=1)


def loaded(name: str, shapes: Path, **options: Any) -> Any:
    cfg = load_config(name, {"data_root": f"{shapes}/", **options})
    model = apis.build(cfg).eval()
    model.cfg = cfg
    model.dataset_meta = {key: cfg[key] for key in ("classes", "keypoints", "palette") if cfg.get(key) is not None}
    model.dataset_meta["category_ids"] = tuple(range(1, 1 + len(cfg.classes)))
    return model


def test_a_top_down_estimator_is_calibrated_on_crops_of_objects(shapes):
    model = loaded(TOP_DOWN, shapes, image_size=(64, 64))
    spec = apis.describe(model).input
    images = choose_images(model.cfg, spec, QuantizationSettings(images=3, subset=2)).calibration
    objects = entries_of(model.cfg)
    assert len(images) == 3
    path, box = images.names[0].split(" ")
    assert path.startswith("train/") and len(box.split(",")) == 4
    for i, name in enumerate(images.names):
        crops = [entry for entry in objects if _name(entry) == name]
        np.testing.assert_allclose(images.load(i)[0], apis.infer(model, crops[0])["images"], atol=1e-5)
    with pytest.raises(UserError, match="--calib-images: the network takes crops around boxes"):
        choose_images(model.cfg, spec, QuantizationSettings(), shapes / "images" / "train")


def test_objects_are_held_out_by_their_image(shapes, tmp_path):
    """The metric is measured on all objects of an image, so that none of them may have been calibrated on."""
    model = loaded(TOP_DOWN, shapes, image_size=(64, 64))
    images = choose_images(model.cfg, apis.describe(model).input, QuantizationSettings(images=40, subset=2))
    calibrated = {name.split(" ")[0] for name in images.calibration.names}
    held_out = {"/".join(Path(entry["img_path"]).parts[-2:]) for entry in images.held_out}
    assert len(calibrated) == 4 and len(held_out) == 2 and not calibrated & held_out
    assert len(images.calibration) > 4  # several objects of an image
    tested = entries_of(subset_config(model.cfg, images, tmp_path), "test_dataloader")
    assert {entry["img_path"] for entry in tested} == {entry["img_path"] for entry in images.held_out}


def entries_of(cfg: Any, loader: str = "train_dataloader") -> list[dict[str, Any]]:
    with DefaultScope.overwrite_default_scope("efftasks"):
        dataset = DATASETS.build(cfg[loader].dataset.to_dict())
    return [dataset.get_data_info(i) for i in range(len(dataset))]


def _name(entry: dict[str, Any]) -> str:
    return "/".join(Path(entry["img_path"]).parts[-2:]) + " " + ",".join(f"{side:g}" for side in entry["box"])


def test_methods_for_a_segmentor_are_compared_on_the_held_out_images(shapes, tmp_path):
    model = loaded("fpnlite-n_mobilenetv4-conv-s_1xb16-12e_shapes-128", shapes / "cityscapes", image_size=(64, 64))
    images = choose_images(model.cfg, apis.describe(model).input, QuantizationSettings(images=3, subset=2))
    held_out = images.held_out
    subset = subset_config(model.cfg, images, tmp_path)
    classes = tuple(model.cfg.classes)
    seen: list[str] = []

    def perfect(entries: Any) -> list[Prediction]:
        seen.extend(entry["img_path"] for entry in entries)
        return [
            Prediction.of_labels(entry["img_path"], _labels(entry), classes=classes, category_ids=tuple(range(7)))
            for entry in entries
        ]

    metrics = evaluate(subset, perfect, model.cfg.classes, check=False).metrics
    assert seen == [entry["img_path"] for entry in held_out] and len(seen) == 2
    (value,) = [value for name, value in metrics.items() if name.endswith("mIoU")]
    assert value == pytest.approx(100.0)


def _labels(entry: dict[str, Any]) -> np.ndarray:
    return cv2.imread(entry["seg_map_path"], cv2.IMREAD_UNCHANGED)


@pytest.fixture()
def copied(shapes: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(shapes, tmp_path / "shapes"))


def detector_config(data: Path, **options: Any) -> Any:
    return load_config(DETECTOR, {"data_root": f"{data}/", "image_size": 64, **options})


@pytest.fixture(scope="module")
def spec(shapes: Path) -> Any:
    return apis.describe(loaded(DETECTOR, shapes, image_size=64)).input


def test_the_held_out_images_are_found_from_a_relative_folder(shapes, spec, tmp_path, monkeypatch):
    """Names of temporary folders in a relative one are relative in Python 3.10 and 3.11."""
    monkeypatch.chdir(tmp_path)
    Path("out").mkdir()
    cfg = detector_config(shapes)
    images = choose_images(cfg, spec, QuantizationSettings(images=3, subset=2))
    subset = subset_config(cfg, images, Path("out"))
    assert len(entries_of(subset, "test_dataloader")) == 2
    assert Path(subset.test_evaluator.ann_file).is_absolute()


def test_no_image_is_withheld_where_nothing_is_compared(shapes, spec, tmp_path):
    fixed = choose_images(detector_config(shapes), spec, QuantizationSettings(method="minmax"))
    assert len(fixed.calibration) == 6 and not fixed.held_out
    folder = choose_images(detector_config(shapes), spec, QuantizationSettings(), shapes / "images" / "train")
    assert len(folder.calibration) == 6 and not folder.held_out


def test_a_config_that_states_the_number_and_a_method_has_the_same_images(shapes, spec):
    compared = choose_images(detector_config(shapes), spec, QuantizationSettings())
    fixed = choose_images(detector_config(shapes), spec, QuantizationSettings(method="minmax", images=compared.limit))
    assert compared.limit == 4 and fixed.calibration.digest == compared.calibration.digest


def test_held_out_images_that_cannot_be_read_are_skipped(copied, spec, caplog):
    settings = QuantizationSettings(images=3, subset=3)
    expected = [entry["img_path"] for entry in choose_images(detector_config(copied), spec, settings).held_out]
    Path(expected[0]).write_bytes(b"no picture")
    assert [x["img_path"] for x in choose_images(detector_config(copied), spec, settings).held_out] == expected[1:]
    assert Path(expected[0]).name in caplog.text


def concatenated(data: Path, *changes: dict[str, Any]) -> Any:
    """A config that trains on the same data set several times, each with changes."""
    cfg = detector_config(data)
    leaf = cfg.train_dataloader.dataset.to_dict()
    cfg.train_dataloader.dataset = ConfigDict(type="ConcatDataset", datasets=[dict(leaf, **more) for more in changes])
    return cfg


def second_half(data: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Two annotation files of three images each."""
    content = json.loads((data / "annotations" / "train.json").read_text())
    images = content["images"]
    for name, part in (("first", images[:3]), ("second", images[3:])):
        ids = {image["id"] for image in part}
        rows = [row for row in content["annotations"] if row["image_id"] in ids]
        (data / "annotations" / f"{name}.json").write_text(json.dumps(dict(content, images=part, annotations=rows)))
    return dict(ann_file="annotations/first.json"), dict(ann_file="annotations/second.json")


def test_all_data_sets_of_a_mixture_are_calibrated_on(copied, spec, tmp_path):
    cfg = concatenated(copied, *second_half(copied))
    images = choose_images(cfg, spec, QuantizationSettings(images=4, subset=2))
    whole = choose_images(detector_config(copied), spec, QuantizationSettings(images=4, subset=2))
    assert images.calibration.names == whole.calibration.names
    assert {name[-5] for name in images.calibration.names} & set("345")
    tested = entries_of(subset_config(cfg, images, tmp_path), "test_dataloader")
    assert images.held_out and [x["img_path"] for x in tested] == [x["img_path"] for x in images.held_out]


def test_methods_are_compared_on_a_data_set_that_has_what_the_metric_needs(copied, spec, tmp_path):
    """The first one has no masks; the second one has."""
    first, second = second_half(copied)
    path = copied / first["ann_file"]
    content = json.loads(path.read_text())
    for row in content["annotations"]:
        del row["segmentation"]
    path.write_text(json.dumps(content))
    settings = QuantizationSettings(images=2, subset=4)
    cfg = concatenated(copied, first, second)
    assert choose_images(cfg, spec, settings).source.ann_file.endswith("first.json")  # boxes are enough
    cfg.test_evaluator.kinds = ("bbox", "segm")
    images = choose_images(cfg, spec, settings)
    assert images.source.ann_file.endswith("second.json")
    assert images.held_out and all(int(Path(x["img_path"]).stem) > 2 for x in images.held_out)
    images = choose_images(concatenated_with_masks(copied, first, first), spec, settings)
    assert not images.held_out and len(images.calibration) == 2  # and the first method is taken


def concatenated_with_masks(data: Path, *changes: dict[str, Any]) -> Any:
    cfg = concatenated(data, *changes)
    cfg.test_evaluator.kinds = ("bbox", "segm")
    return cfg


def test_a_folder_of_the_test_images_is_named_as_such(shapes, spec):
    folder = shapes / "images" / "val"
    with pytest.raises(UserError, match=rf"--calib-images: {folder}, apart from the images of the test data, has no"):
        choose_images(detector_config(shapes), spec, QuantizationSettings(), folder)
