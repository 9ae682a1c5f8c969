"""Quantized exports: which images they are calibrated on, how a method is chosen, and what a trained detector loses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import jsonschema
import numpy as np
import onnx
import pytest
import torch

from efftasks import Predictor, apis
from efftasks.apis import evaluating, quantizing
from efftasks.apis.calibrating import choose_images, network_input, subset_config
from efftasks.apis.formats import suffix_of
from efftasks.cli.main import main
from efftasks.config import innermost, load_config
from efftasks.datasets.shapes import write_shapes
from efftasks.export.exporters.table import EXPORTERS
from efftasks.imaging.prediction import Prediction
from efftasks.structures.errors import UserError
from efftasks.structures.quantization import QuantizationSettings
from efftasks.structures.spec import ArtifactSpec

CONFIG = "o2o-n_mobilenetv4-conv-s_1xb16-18e_shapes-128"
SCHEMA = json.loads((Path(__file__).resolve().parents[2] / "docs" / "artifact.schema.json").read_text())
SMALL = {"model.backbone.width": 0.25, "model.neck.out_channels": (16, 16, 16)}


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shapes(tmp_path_factory.mktemp("data") / "shapes", train=9, val=3, size=64, seed=0)


@pytest.fixture(scope="module")
def model(shapes: Path) -> Any:
    """Untrained, but with scores that spread and boxes of some strides."""
    torch.manual_seed(0)
    cfg = load_config(CONFIG, {**SMALL, "data_root": f"{shapes}/", "image_size": 64})
    model = apis.build(cfg)
    for scores, sides in zip(model.head.one_to_one.classes, model.head.one_to_one.boxes):
        torch.nn.init.normal_(scores[-1].weight, 0.0, 0.1)
        torch.nn.init.constant_(scores[-1].bias, 0.0)
        torch.nn.init.normal_(sides[-1].weight, 0.0, 1e-3)
    model.cfg, model.dataset_meta = cfg, dict(classes=tuple(cfg.classes), category_ids=(1, 2, 3, 4, 5, 6))
    return model.eval()


def test_calibration_takes_training_images_evenly_and_holds_others_out(model):
    spec = apis.describe(model).input
    images, _, held_out, _ = choose_images(model.cfg, spec, QuantizationSettings(images=4, subset=2))
    names = [entry["img_path"] for entry in held_out]
    assert len(images) == 4 and len(held_out) == 2
    assert images.names == [f"train/{i:06d}.png" for i in (0, 2, 5, 8)]
    assert [Path(name).name for name in names] == ["000001.png", "000007.png"]
    again = choose_images(model.cfg, spec, QuantizationSettings(images=4, subset=2))
    other = choose_images(model.cfg, spec, QuantizationSettings(images=5, subset=2))
    assert images.digest == again.calibration.digest != other.calibration.digest
    few = choose_images(model.cfg, spec, QuantizationSettings())
    assert len(few.calibration) == few.limit == 6 and len(few.held_out) == 3  # of nine images


def test_the_network_input_is_that_of_the_test_pipeline(model):
    spec = apis.describe(model).input
    images = choose_images(model.cfg, spec, QuantizationSettings(images=3, subset=1)).calibration
    dataset = innermost(model.cfg.train_dataloader.dataset)
    folder = Path(dataset["data_root"] or "", dataset["data_prefix"]["img"])
    for i in range(3):
        ours = apis.infer(model, str(folder / images.names[i]))["images"]
        np.testing.assert_allclose(images.load(i)[0], ours, atol=1e-6)


def test_pictures_of_another_shape_are_letterboxed(model, tmp_path):
    cv2.imwrite(str(tmp_path / "wide.png"), np.full((20, 80, 3), 255, np.uint8))
    spec = replace(apis.describe(model).input, mean=(0.0,) * 3, std=(1.0,) * 3, pad_value=7.0)
    (image,) = network_input(dict(img_path=str(tmp_path / "wide.png")), spec)
    assert (image[:, :16] == 255).all() and (image[:, 16:] == 7).all()


def test_images_of_the_test_data_are_never_calibrated_on(model, shapes):
    cfg = load_config(model.cfg, {"train_dataloader.dataset.ann_file": str(shapes / "annotations" / "val.json")})
    with pytest.raises(UserError, match="--calib-images: the training data, apart from the images of the test data"):
        choose_images(cfg, apis.describe(model).input, QuantizationSettings())


def test_missing_training_data_are_named(model, tmp_path):
    cfg = load_config(model.cfg)
    cfg.train_dataloader.dataset.ann_file = str(tmp_path / "none.json")
    with pytest.raises(UserError, match=r"none\.json.*--calib-images DIR"):
        choose_images(cfg, apis.describe(model).input, QuantizationSettings())


def test_methods_are_compared_on_the_held_out_images_alone(model, tmp_path):
    """Perfect predictions have an AP of 1 there: no object of another image counts as missed."""
    images = choose_images(model.cfg, apis.describe(model).input, QuantizationSettings(images=4, subset=3))
    subset = subset_config(model.cfg, images, tmp_path)
    seen: list[int] = []

    def perfect(entries: Any) -> list[Prediction]:
        seen.extend(entry["img_id"] for entry in entries)
        return [
            Prediction(
                entry["img_path"],
                np.array([part["bbox"] for part in entry["instances"]], np.float32).reshape(-1, 4),
                np.ones(len(entry["instances"]), np.float32),
                np.array([part["bbox_label"] for part in entry["instances"]], np.int64),
                classes=tuple(model.cfg.classes),
                category_ids=(1, 2, 3, 4, 5, 6),
            )
            for entry in entries
        ]

    metrics = evaluating.evaluate(subset, perfect, model.cfg.classes, check=False).metrics
    assert metrics["coco/bbox_mAP"] == pytest.approx(1.0)
    assert sorted(seen) == sorted(entry["img_id"] for entry in images.held_out)


@pytest.mark.slow
def test_auto_takes_the_method_with_the_best_metric(model, tmp_path, monkeypatch):
    scores = {"minmax": 0.5, "percentile": 0.6, "entropy": 0.6}
    order = []

    def measured(cfg: Any, predict: Any, classes: Any, check: bool) -> Any:
        order.append(innermost(cfg.test_dataloader.dataset)["ann_file"])
        return type("Evaluation", (), {"metrics": {"coco/bbox_mAP": list(scores.values())[len(order) - 1]}})

    monkeypatch.setattr(quantizing, "evaluate", measured)
    settings = QuantizationSettings(images=3, subset=2)
    spec = replace(apis.describe(model), precision="int8")
    path = tmp_path / "model.onnx"
    made = quantizing.write_quantized(apis.fuse(model), model.cfg, spec, path, EXPORTERS["onnx"], settings)
    assert len(order) == 3 and made.spec.quantization is not None
    assert made.spec.quantization.method == "percentile"  # the first of equal ones
    assert made.spec.quantization.float_layers == tuple(
        f"head.one_to_one.{branch}.{level}.{last}"
        for branch, last in (("classes", 4), ("boxes", 2))
        for level in range(3)
    )
    assert made.spec.quantization.calibration_images == 3 and "onnxruntime" in made.spec.versions


def test_one_method_is_taken_without_holding_images_out(model, tmp_path, monkeypatch):
    monkeypatch.setattr(quantizing, "evaluate", None)  # nothing is evaluated
    exporter = EXPORTERS["onnx"]
    assert exporter.quantization is not None
    single = replace(exporter, quantization=replace(exporter.quantization, methods=("percentile",)))
    spec = replace(apis.describe(model), precision="int8")
    settings = QuantizationSettings(images=64)
    path = tmp_path / "model.onnx"
    made = quantizing.write_quantized(apis.fuse(model), model.cfg, spec, path, single, settings)
    assert made.spec.quantization is not None and made.spec.quantization.method == "percentile"
    assert made.settings.method == "percentile" and made.settings.images == 64


def test_settings_of_int8_need_int8(tmp_path):
    for wish in (dict(quantization={"images": 4}), dict(sensitivity=True), dict(calib_images=tmp_path)):
        with pytest.raises(UserError, match="--precision: got none, expected int8"):
            apis.ExportSettings(**wish)
    with pytest.raises(UserError, match=r"--calib-images: .* is no folder"):
        apis.ExportSettings(precision="int8", calib_images=tmp_path / "none")
    with pytest.raises(UserError, match="--calib-images: 32 is no folder"):
        apis.ExportSettings(precision="int8", calib_images=32)  # type: ignore[arg-type]


def test_a_method_that_an_exporter_lacks_is_refused(model, tmp_path):
    settings = QuantizationSettings(method="mean-minmax")
    with pytest.raises(
        UserError, match=r"quantization\.method: got 'mean-minmax', expected one of auto, minmax, percen"
    ):
        quantizing.write_quantized(
            apis.fuse(model), model.cfg, apis.describe(model), tmp_path / "model.onnx", EXPORTERS["onnx"], settings
        )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Config and checkpoint of a detector that has learned for a minute."""
    folder = tmp_path_factory.mktemp("trained")
    data = write_shapes(folder / "shapes", train=192, val=24, size=128, seed=0)
    options = {
        "data_root": f"{data}/",
        "max_epochs": 10,
        "train_cfg.val_interval": 10,
        "train_dataloader.num_workers": 0,
    }
    pairs = [f"{key}={value}" for key, value in options.items()]
    assert main(["train", CONFIG, "--work-dir", str(folder / "run"), "--skip-check", "--cfg-options", *pairs]) == 0
    return str(folder / "run" / f"{CONFIG}.py"), str(folder / "run" / "best.pth")


@pytest.mark.slow
@pytest.mark.parametrize("backend", [x.name for x in EXPORTERS.values() if x.quantization is not None and not x.page])
def test_a_trained_detector_finds_the_same_in_integers(backend, trained, tmp_path, capsys, monkeypatch):
    for module in EXPORTERS[backend].modules:
        pytest.importorskip(module)
    monkeypatch.chdir(tmp_path)
    out = Path("out")  # relative, as the default is
    line = ["export", *trained, "--backend", backend, "--precision", "int8", "--out", str(out)]
    line += ["--sensitivity"] if backend == "onnx" else ["--calib-method", "minmax"]
    assert main([*line, "--calib", "16", "--num-images", "24", "--cfg-options", "quantization.subset=16"]) == 0
    printed = capsys.readouterr().out
    assert "verify passed" in printed and ("| layer" in printed) == (backend == "onnx")
    stem = EXPORTERS[backend].stem
    stored = json.loads((out / f"{stem}.json").read_text())
    jsonschema.Draft202012Validator(SCHEMA).validate(stored)
    spec = ArtifactSpec.from_json(stored)
    assert spec.precision == "int8" and spec.quantization is not None and spec.quantization.calibration_images == 16
    ways = EXPORTERS[backend].quantization
    assert ways is not None and spec.quantization.method in ways.methods
    assert isinstance(spec.verify["instruction_sets"], list) and spec.verify["share"] > 0.9
    model = Predictor(out / f"{stem}{suffix_of(EXPORTERS[backend])}")
    assert model.spec.quantization == spec.quantization
    size = sum(file.bytes for file in spec.files)
    assert size < 4e6  # 8.4 MB in float

    if backend != "onnx":
        return
    rows = json.loads((out / "sensitivity.json").read_text())
    assert sum(row["share"] for row in rows) == pytest.approx(1)
    config = out / "again.py"
    config.write_text(f"_base_ = [{trained[0]!r}, './quantization.py']\n")
    again = load_config(str(config)).quantization
    assert again["method"] == spec.quantization.method
    assert set(again["float_layers"]) <= set(spec.quantization.float_layers)


@pytest.mark.slow
def test_what_does_not_agree_is_rejected(trained, tmp_path, monkeypatch, capsys):
    """Weights of a file that was broken on the way: it is kept to look at, and not shipped."""
    write = quantizing.write_quantized

    def broken(model: Any, cfg: Any, spec: Any, path: Path, *rest: Any, **more: Any) -> Any:
        made = write(model, cfg, spec, path, *rest, **more)
        stored = onnx.load(str(path))
        for tensor in stored.graph.initializer:
            if tensor.name.startswith("model.backbone") and tensor.name.endswith("weight_scale"):
                values = onnx.numpy_helper.to_array(tensor) * 2
                tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
        onnx.save(stored, str(path))
        return made

    monkeypatch.setattr("efftasks.apis.exporting.write_quantized", broken)
    line = [
        "export",
        *trained,
        "--precision",
        "int8",
        "--out",
        str(tmp_path),
        "--calib",
        "8",
        "--calib-method",
        "minmax",
    ]
    assert main(line) == 1
    assert "model.onnx.unverified: does not agree" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"model.onnx.unverified", "model.json.unverified"}
