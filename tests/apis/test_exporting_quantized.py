"""``apis.export_model`` of a model trained with fake quantization, on real images where there are some."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import jsonschema
import numpy as np
import pytest
import torch

from efftasks import Predictor, apis
from efftasks.compression.quantization.part import quantized_parts
from efftasks.export.exporters.onnx import write_graph
from efftasks.structures.comparison import POLICIES
from efftasks.structures.errors import UserError

CONFIG = "o2o-n_mobilenetv4-conv-s_1xb16-18e_shapes-128"
SCHEMA = json.loads((Path(__file__).resolve().parents[2] / "docs" / "artifact.schema.json").read_text())


@pytest.fixture(scope="module")
def toys(module_at: Any) -> ModuleType:
    pytest.importorskip("torchao")
    folder = Path(__file__).resolve().parents[1] / "compression" / "quantization"
    module: ModuleType = module_at(folder / "toys.py")
    return module


def images_of(folder: Path) -> torch.Tensor:
    """Four images (4, 3, 128, 128) of a folder, in [0, 1]."""
    pictures = [cv2.imread(str(path))[..., ::-1] for path in sorted(folder.rglob("*.jpg"))[:4]]
    arrays = [cv2.resize(np.ascontiguousarray(picture), (128, 128)) for picture in pictures]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float() / 255


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for i in range(4):
        small = random.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{i}.jpg"), cv2.resize(small, (160, 120), interpolation=cv2.INTER_CUBIC))
    return folder


def detector(toys: ModuleType, images: torch.Tensor) -> Any:
    """Untrained, but with scores that spread, measured on images, and with fake quantization on."""
    torch.manual_seed(0)
    small = {"model.backbone.width": 0.25, "model.neck.out_channels": (16, 16, 16)}
    cfg = apis.load_config(CONFIG, {**small, "model.head.max_detections": 336})  # all points
    dense = apis.build(cfg)
    for module in dense.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # one batch gives the statistics
    with torch.no_grad():
        dense.train()(images)
    # Rounding moves what an untrained network predicts: predictions of little spread are still the same detections.
    for scores, sides in zip(dense.head.one_to_one.classes, dense.head.one_to_one.boxes):
        torch.nn.init.normal_(scores[-1].weight, 0.0, 0.01)
        scores[-1].bias.data = torch.tensor([-0.3, -3.0, -3.0, -3.0, -3.0, -3.0])
        torch.nn.init.normal_(sides[-1].weight, 0.0, 1e-3)
    model = toys.calibrated(dense.eval(), images)
    model.cfg, model.dataset_meta = cfg, dict(classes=tuple(cfg.classes), category_ids=(1, 2, 3, 4, 5, 6))
    return model


@pytest.fixture(scope="module")
def model(toys: ModuleType, photos: Path) -> Any:
    return detector(toys, images_of(photos))


@pytest.mark.slow
def test_the_file_has_integers_and_says_so(model: Any, photos: Path, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    exported = apis.export_model(model, tmp_path, apis.ExportSettings(images=photos, num_images=2))
    stored = json.loads((tmp_path / "model.json").read_text())
    jsonschema.Draft202012Validator(SCHEMA).validate(stored)
    assert stored["precision"] == "int8" and exported.spec.comparison == POLICIES["int8"]
    assert stored["verify"]["passed"] is True
    quantization = stored["quantization"]
    assert (quantization["weights"], quantization["activations"]) == ("int8", "uint8")
    assert len(quantization["float_layers"]) == 6 and quantization["weight_bits"] == 7
    weights = [x for x in onnx.load(str(exported.path)).graph.initializer if len(x.dims) == 4]
    assert sum(x.data_type == onnx.TensorProto.FLOAT for x in weights) == 6
    assert 4 in {x.dims[1] for x in weights} and 3 not in {x.dims[1] for x in weights}  # the stem, padded
    assert all(x.data_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.INT8) for x in weights)
    assert len(Predictor(exported.path)([sorted(photos.iterdir())[0]])[0].boxes) > 0


def test_another_precision_is_refused(model: Any, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--precision: got 'fp32', expected 'int8': .* trained with fake quantization"):
        apis.export_model(model, tmp_path, apis.ExportSettings(images=photos, precision="fp32"))


def test_calibration_is_refused(model: Any, photos: Path, tmp_path: Path) -> None:
    settings = apis.ExportSettings(images=photos, precision="int8", calib_images=photos)
    with pytest.raises(UserError, match="got options of calibration, expected none"):
        apis.export_model(model, tmp_path, settings)


@pytest.mark.slow
def test_before_fake_quantization_it_is_a_float_file(
    model: Any, toys: ModuleType, photos: Path, tmp_path: Path
) -> None:
    toys.set_phase(model, observe=False, quantize=False)
    try:
        exported = apis.export_model(model, tmp_path, apis.ExportSettings(images=photos, num_images=2))
    finally:
        toys.set_phase(model, observe=False, quantize=True)
    assert exported.spec.precision == "fp32" and exported.spec.quantization is None


@pytest.mark.slow
def test_runtimes_agree_with_pytorch_on_real_images(toys: ModuleType, real_data: Path, tmp_path: Path) -> None:
    """Raw predictions, in units of their spread; rounding differs by steps of 8 bits, which add up without a bias."""
    ort, openvino = pytest.importorskip("onnxruntime"), pytest.importorskip("openvino")
    images = images_of(real_data / "photos")
    model = detector(toys, images)
    fused = apis.fuse(model)

    class Raw(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = fused

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raw = self.model.head(self.model.features(x)).one_to_one
            return torch.cat([raw.logits, raw.distances], 2)

    path = write_graph(Raw().eval(), images[:2], tmp_path / "m.onnx", dynamic={0: torch.export.Dim("batch", min=1)})
    with torch.no_grad():
        expected = Raw()(images).numpy()
        own = model(images).one_to_one
        assert np.array_equal(np.concatenate([own.logits, own.distances], 2), expected)
        for part in quantized_parts(model).values():
            part.set_phase(observe=False, quantize=False)
        in_float = model(images).one_to_one
        distance = np.abs(np.concatenate([in_float.logits, in_float.distances], 2) - expected).mean()
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (first,) = session.run(None, {"images": images.numpy()})
    second = openvino.Core().compile_model(str(path), "CPU")({0: images.numpy()})[0]
    for result in (first, second):
        error = np.abs(result - expected)
        # An untrained network adds up the roundings of all its layers, those of the same kind as of PyTorch and float.
        assert error.mean() < 0.85 * distance
        assert abs((result - expected).mean()) < 0.1 * distance
        assert error.mean() < 0.05 * expected.std()
