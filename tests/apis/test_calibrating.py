"""Calibration images of the other tasks: crops of objects, and images with label maps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from efftasks import apis
from efftasks.apis.calibrating import _training_entries, choose_images, subset_config
from efftasks.apis.evaluating import evaluate
from efftasks.config import load_config
from efftasks.datasets.shapes import write_shapes
from efftasks.imaging.prediction import Prediction
from efftasks.structures.errors import UserError
from efftasks.structures.quantization import QuantizationSettings


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


def test_a_top_down_estimator_is_calibrated_on_crops_of_objects(shapes, tmp_path):
    model = loaded("simcc-n_mobilenetv4-conv-s_1xb32-100e_custom-256", shapes, image_size=(64, 64))
    spec = apis.describe(model).input
    images, held_out = choose_images(model.cfg, spec, QuantizationSettings(images=3, subset=4))
    assert len(images) == 3 and len(held_out) == 4
    path, box = images.names[0].split(" ")
    assert path.startswith("train/") and len(box.split(",")) == 4
    for i, name in enumerate(images.names):
        crops = [entry for entry in _training_entries(model.cfg) if _name(entry) == name]
        np.testing.assert_allclose(images.load(i)[0], apis.infer(model, crops[0])["images"], atol=1e-5)
    with pytest.raises(UserError, match="--calib-images: the network takes crops around boxes"):
        choose_images(model.cfg, spec, QuantizationSettings(), shapes / "images" / "train")


def _name(entry: dict[str, Any]) -> str:
    return "/".join(Path(entry["img_path"]).parts[-2:]) + " " + ",".join(f"{side:g}" for side in entry["box"])


def test_methods_for_a_segmentor_are_compared_on_the_held_out_images(shapes, tmp_path):
    model = loaded("fpnlite-n_mobilenetv4-conv-s_1xb16-12e_shapes-128", shapes / "cityscapes", image_size=(64, 64))
    _, held_out = choose_images(model.cfg, apis.describe(model).input, QuantizationSettings(images=3, subset=2))
    subset = subset_config(model.cfg, held_out, tmp_path)
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
