"""An exported segmenter gives the label maps that PyTorch gives, on real photographs of any size."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch
from mmengine.registry import DefaultScope
from PIL import Image

from efftasks import Predictor, apis
from efftasks.cli.main import main
from efftasks.cli.options import parse_options
from efftasks.export.verify_labels import compare_label_maps
from efftasks.imaging.prediction import Prediction

CONFIG = "fpnlite-n_mobilenetv4-conv-s_1xb8-40e_camvid-480"
CLASSES = ("sky", "road", "car", "tree", "person")
OPTIONS = ["--cfg-options", "classes=('sky','road','car','tree','person')", "image_size=(96,160)"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network with random weights that are spread enough for every class to win somewhere."""
    torch.manual_seed(0)
    model = apis.build(apis.load_config(CONFIG, {"classes": CLASSES}))
    with DefaultScope.overwrite_default_scope("efftasks"):
        model.init_weights()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm.weight" in name:
                parameter.uniform_(0.5, 1.5)
        model.decode_head.conv_seg.weight.normal_(std=1.0)
    path = tmp_path_factory.mktemp("semantic") / "model.pth"
    palette = [[i, 10 * i, 255 - i] for i in range(5)]
    torch.save(
        dict(state_dict=model.state_dict(), meta=dict(dataset_meta=dict(classes=CLASSES, palette=palette))), path
    )
    return path


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Smooth pictures of several sizes: taller, wider, smaller and larger than the input."""
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for i, (height, width) in enumerate([(96, 160), (300, 200), (61, 407), (50, 40), (481, 640)]):
        coarse = random.integers(0, 255, (6, 8, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{i}.png"), cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC))
    return sorted(map(str, folder.glob("*.png")))


@pytest.mark.parametrize("output", ["labels", "coarse-labels", "logits"])
def test_artifact_and_model_agree(checkpoint: Path, photos: list[str], tmp_path: Path, output: str) -> None:
    words = ["export", CONFIG, str(checkpoint), "--backend", "onnx", "--out", str(tmp_path), "--output", output]
    assert main([*words, "--images", str(Path(photos[0]).parent), *OPTIONS]) == 0
    sidecar = json.loads((tmp_path / "model.json").read_text())
    assert sidecar["task"] == "semantic segmentation" and sidecar["classes"] == list(CLASSES)
    assert sidecar["verify"]["passed"] and sidecar["verify"]["agreement"] >= 0.9999
    (declared,) = sidecar["outputs"]
    (stored,) = onnx.load(tmp_path / "model.onnx").graph.output
    shape = [axis.dim_param or axis.dim_value for axis in stored.type.tensor_type.shape.dim]
    assert stored.name == declared["name"] and shape[1:] == declared["shape"][1:]
    kind = dict(uint8=onnx.TensorProto.UINT8, float32=onnx.TensorProto.FLOAT)[declared["dtype"]]
    assert stored.type.tensor_type.elem_type == kind

    predictor = Predictor(tmp_path / "model.onnx")
    found = predictor(photos, batch_size=2)
    for path, prediction in zip(photos, found):
        assert prediction.segmentation is not None and prediction.segmentation.dtype == np.uint8
        assert prediction.segmentation.shape == cv2.imread(path).shape[:2]
        assert len(prediction) == 0 and prediction.to_coco() == []
    assert len(np.unique(np.concatenate([x.segmentation.ravel() for x in found]))) >= 3  # type: ignore[union-attr]


def test_a_model_tested_in_windows_is_exported_for_whole_images(
    checkpoint: Path, photos: list[str], tmp_path: Path
) -> None:
    windows = dict(mode="slide", crop_size="(64,64)", stride="(32,48)")
    options = [*OPTIONS, *(f"model.test_cfg.{key}={value}" for key, value in windows.items())]
    words = ["export", CONFIG, str(checkpoint), "--backend", "onnx", "--images", str(Path(photos[0]).parent)]
    assert main([*words, "--out", str(tmp_path / "windows"), *options]) == 0
    assert main([*words, "--out", str(tmp_path / "whole"), *OPTIONS]) == 0
    for name in ("windows", "whole"):
        assert json.loads((tmp_path / name / "model.json").read_text())["verify"]["passed"]
    found, expected = (Predictor(tmp_path / name / "model.onnx")(photos) for name in ("windows", "whole"))
    for a, b in zip(found, expected):
        assert np.array_equal(a.segmentation, b.segmentation)  # type: ignore[arg-type]


def test_pictures_and_indexed_files(checkpoint: Path, photos: list[str], tmp_path: Path) -> None:
    words = ["export", CONFIG, str(checkpoint), "--backend", "onnx", "--out", str(tmp_path)]
    assert main([*words, "--images", str(Path(photos[0]).parent), *OPTIONS]) == 0
    (prediction,) = Predictor(tmp_path / "model.onnx")(photos[1:2])
    path = prediction.save_labels(tmp_path / "labels")
    with Image.open(path) as image:
        assert image.mode == "P" and (np.asarray(image) == prediction.segmentation).all()
        assert image.getpalette()[3:6] == [1, 10, 254]
    picture = prediction.draw(tmp_path / "drawn")
    assert picture.shape == cv2.imread(photos[1]).shape and (tmp_path / "drawn" / "1.jpg").is_file()
    assert "%" in repr(prediction)
    with pytest.raises(ValueError, match="segmentation: got None"):
        Prediction("a.jpg", np.zeros((0, 4)), np.zeros(0), np.zeros(0, int), CLASSES, range(5)).save_labels(tmp_path)  # type: ignore[arg-type]


def test_the_report_counts_pixels() -> None:
    maps = [np.zeros((10, 20), np.uint8), np.zeros((100, 100), np.uint8)]
    ours = [Prediction.of_labels("a", x, classes=("x", "y"), category_ids=(0, 1)) for x in maps]
    changed = maps[1].copy()
    changed[0, 0] = 1
    theirs = [ours[0], Prediction.of_labels("a", changed, classes=("x", "y"), category_ids=(0, 1))]
    report = compare_label_maps(ours, theirs)
    assert report.pixels == 10200 and report.agreement == pytest.approx(1 - 1 / 10200) and report.passed
    assert report.worst_image_agreement == pytest.approx(0.9999)
    changed[0, :2] = 1
    assert not compare_label_maps(ours, theirs).passed
    other = [Prediction.of_labels("a", x.T, classes=("x", "y"), category_ids=(0, 1)) for x in maps]
    assert compare_label_maps(ours, other).worst_image_agreement == 0
    assert not compare_label_maps([], []).passed


@pytest.mark.parametrize("kind", ["float32", "uint8"])
def test_pictures_of_12_bits_are_read_by_the_same_range_everywhere(kind: str, checkpoint: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for i in range(2):
        coarse = random.integers(0, 4096, (6, 8)).astype(np.uint16)
        cv2.imwrite(str(tmp_path / f"{i}.tif"), cv2.resize(coarse, (200, 120)))
    options = [*OPTIONS, "pixel_range=0,4095"]
    words = ["export", CONFIG, str(checkpoint), "--backend", "onnx", "--input", kind, "--out", str(tmp_path / "out")]
    assert main([*words, "--images", str(tmp_path), *options]) == 0
    sidecar = json.loads((tmp_path / "out/model.json").read_text())
    assert sidecar["input"]["pixel_range"] == [0, 4095] and sidecar["verify"]["passed"]
    assert sidecar["input"]["dtype"] == kind and any(sidecar["input"]["mean"])
    paths = sorted(map(str, tmp_path.glob("*.tif")))
    arrays = [np.dstack([cv2.imread(path, cv2.IMREAD_UNCHANGED)] * 3) for path in paths]
    predictor = Predictor(tmp_path / "out/model.onnx")
    model = apis.load(apis.load_config(CONFIG, parse_options(options[1:])), checkpoint)
    eight = [np.rint(array / 4095 * 255).astype(np.uint8) for array in arrays]
    expected = [x.segmentation for x in predictor(eight)]
    for found in (predictor(paths), predictor(arrays), apis.predict(model, paths), apis.predict(model, arrays)):
        for prediction, labels in zip(found, expected):
            assert prediction.segmentation is not None and labels is not None
            assert (prediction.segmentation == labels).mean() >= 0.9999
            assert prediction.draw().max() > 128  # not nearly black
