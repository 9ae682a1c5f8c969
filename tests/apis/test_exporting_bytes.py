"""``--input uint8``: files that take the pixels of an image give what those of floats give."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import jsonschema
import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from efftasks import Predictor, apis
from efftasks.apis.quantizing import write_quantized
from efftasks.cli.main import build_parser, main
from efftasks.datasets.shapes import write_shapes
from efftasks.export.exporters.table import EXPORTERS
from efftasks.runtime.preprocess import input_buffer, write_image
from efftasks.structures.errors import UserError, WorkError
from efftasks.structures.quantization import QuantizationSettings

CONFIG = "o2o-n_mobilenetv4-conv-s_1xb16-18e_shapes-128"
SCHEMA = json.loads((Path(__file__).resolve().parents[2] / "docs" / "artifact.schema.json").read_text())
SMALL = {"model.backbone.width": 0.25, "model.neck.out_channels": (16, 16, 16), "image_size": 64}


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shapes(tmp_path_factory.mktemp("data") / "shapes", train=6, val=2, size=64, seed=0)


@pytest.fixture(scope="module")
def model(shapes: Path, spread_detector: Callable[[Any], Any]) -> Any:
    return spread_detector(apis.load_config(CONFIG, {**SMALL, "data_root": f"{shapes}/"}))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wide and tall ones: both are padded."""
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for i, size in enumerate([(160, 120), (70, 90)]):
        small = random.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{i}.png"), cv2.resize(small, size, interpolation=cv2.INTER_CUBIC))
    return folder


def pair(model: Any, photos: Path, folder: Path, **more: Any) -> list[apis.Exported]:
    """The file of floats, and the one of bytes."""
    settings = [apis.ExportSettings(images=photos, num_images=2, input=kind, **more) for kind in ("float32", "uint8")]
    return [apis.export_model(model, folder / setting.input, setting) for setting in settings]


def raw_outputs(path: Path, photos: Path, size: tuple[int, int] | None = None) -> dict[str, np.ndarray]:
    predictor = Predictor(path, size=size)
    inputs, _ = predictor.preprocess([cv2.imread(str(file)) for file in sorted(photos.iterdir())])
    return {name: value.copy() for name, value in predictor.session.run(inputs).items()}


@pytest.mark.parametrize(
    ("backend", "dynamic_size"),
    [
        (backend, backend == next(iter(EXPORTERS)))
        for backend, exporter in EXPORTERS.items()
        if exporter.take_bytes is not None and exporter.page is None  # the page's file is that of another exporter
    ],
)
@pytest.mark.slow
def test_a_float_detector_gives_the_same_of_bytes(backend, dynamic_size, model, photos, tmp_path):
    if not EXPORTERS[backend].available:
        pytest.skip(f"needs {EXPORTERS[backend].missing}")
    size = (128, 128) if dynamic_size else None
    floats, of_bytes = pair(model, photos, tmp_path, backend=backend, size=size, dynamic_size=dynamic_size)
    stored = json.loads(of_bytes.path.with_suffix(".json").read_text())
    jsonschema.Draft202012Validator(SCHEMA).validate(stored)
    stated = stored["input"]
    assert (stated["dtype"], stated["layout"], stated["channels"]) == ("uint8", "NHWC", 4)
    assert stated["mean"] == list(floats.spec.input.mean) and stated["std"] == list(floats.spec.input.std)
    assert replace(of_bytes.spec, input=floats.spec.input, files=(), verify={}) == replace(
        floats.spec, files=(), verify={}
    )
    assert of_bytes.spec.verify["passed"] is True and Predictor(of_bytes.path).spec == of_bytes.spec
    for size in (None, (128, 160)) if dynamic_size else (None,):
        expected, outputs = (raw_outputs(exported.path, photos, size) for exported in (floats, of_bytes))
        assert len(outputs["scores"]) == 2  # a batch
        np.testing.assert_allclose(outputs["scores"], expected["scores"], atol=5e-5)
        np.testing.assert_allclose(outputs["boxes"], expected["boxes"], atol=5e-3)


def test_integers_are_the_same_to_the_last_bit(model, photos, tmp_path):
    """Calibrated on dark pictures: the range of the image is that of bytes, whatever calibration saw."""
    dark = tmp_path / "dark"
    dark.mkdir()
    for i, file in enumerate(sorted(photos.iterdir())):
        cv2.imwrite(str(dark / f"{i}.png"), cv2.imread(str(file)) // 2)
    exporter, spec = EXPORTERS["onnx"], apis.describe(model)
    spec = replace(spec, precision="int8")
    path = tmp_path / "model.onnx"
    settings = QuantizationSettings(images=2, method="minmax")
    write_quantized(apis.fuse(model), model.cfg, spec, path, exporter, settings, folder=dark)
    size = (spec.input.height, spec.input.width)  # another test may have exported the model in another one
    inputs = [input_buffer(1, size, described) for described in (spec.input, spec.input.of_bytes())]
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    for buffer, described in zip(inputs, (spec.input, spec.input.of_bytes())):
        write_image(buffer[0], image, described)
    expected = _run(path, inputs[0])
    assert exporter.take_bytes is not None
    exporter.take_bytes(path, spec.input)
    first = [node.op_type for node in onnx.load(str(path)).graph.node if set(node.input) & {"images", "images_planes"}]
    assert first == ["Transpose", "DequantizeLinear"]
    for alpha in (255, 0, 7):
        inputs[1][..., 3] = alpha
        for ours, theirs in zip(expected, _run(path, inputs[1])):
            np.testing.assert_array_equal(theirs, ours)


def _run(path: Path, images: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    outputs: list[np.ndarray] = session.run(None, {"images": images})
    assert len(np.unique(outputs[1])) > 20
    return outputs


@pytest.mark.slow
def test_integers_of_openvino_are_the_same(model, photos, tmp_path):
    for module in ("openvino", "nncf"):
        pytest.importorskip(module)
    exporter = EXPORTERS["openvino"]
    spec = replace(apis.describe(model), precision="int8")
    path = tmp_path / "model.xml"
    settings = QuantizationSettings(images=2, method="minmax")
    write_quantized(apis.fuse(model), model.cfg, spec, path, exporter, settings, folder=photos)
    spec.save(path.with_suffix(".json"))
    expected, slices = raw_outputs(path, photos), path.read_text().count('type="Slice"')
    assert exporter.take_bytes is not None
    exporter.take_bytes(path, spec.input)
    replace(spec, input=spec.input.of_bytes()).save(path.with_suffix(".json"))
    outputs = raw_outputs(path, photos)
    np.testing.assert_allclose(outputs["scores"], expected["scores"], atol=1e-4)
    assert path.read_text().count('type="Slice"') == slices  # the bytes reach the first convolution


@pytest.mark.slow
def test_a_model_trained_for_integers(module_at: Callable[[Path], ModuleType], photos, tmp_path):
    pytest.importorskip("torchao")
    tests = module_at(Path(__file__).with_name("test_exporting_quantized.py"))
    toys = module_at(Path(__file__).resolve().parents[1] / "compression" / "quantization" / "toys.py")
    pictures = torch.rand(4, 3, 128, 128)
    pictures[0, 0, 0, :2] = torch.tensor([0.0, 1.0])
    floats, of_bytes = pair(tests.detector(toys, pictures), photos, tmp_path)
    assert of_bytes.spec.precision == "int8" and of_bytes.spec.verify["passed"] is True
    expected, outputs = (raw_outputs(exported.path, photos) for exported in (floats, of_bytes))
    for name, value in expected.items():
        np.testing.assert_array_equal(outputs[name], value)


def test_a_file_that_does_not_agree_is_rejected_with_its_input(model, photos, tmp_path, monkeypatch):
    """The check is of the file that is shipped."""

    take_bytes = EXPORTERS["onnx"].take_bytes
    assert take_bytes is not None

    def swapped(path: Path, image_input: Any) -> None:
        take_bytes(path, replace(image_input, std=(255, 100, 255)))

    monkeypatch.setitem(EXPORTERS, "wrong", replace(EXPORTERS["onnx"], name="wrong", take_bytes=swapped))
    settings = apis.ExportSettings(images=photos, num_images=2, input="uint8", backend="wrong")
    with pytest.raises(WorkError, match="does not agree"):
        apis.export_model(model, tmp_path, settings)


def test_what_cannot_be_is_refused(model, photos, tmp_path):
    with pytest.raises(UserError, match="--input: got 'int8', expected one of float32, uint8"):
        apis.ExportSettings(input="int8")
    with pytest.raises(SystemExit):
        build_parser().parse_args(["export", "config", "checkpoint", "--input", "int8"])


@pytest.mark.slow
def test_the_command_writes_it_and_others_run_it(model, photos, shapes, tmp_path, capsys):
    checkpoint = tmp_path / "model.pth"
    meta = dict(dataset_meta=model.dataset_meta)
    torch.save(dict(state_dict=model.state_dict(), meta=meta), checkpoint)
    options = ["--cfg-options", f"data_root={shapes}/", "image_size=64"]
    options += ["model.backbone.width=0.25", "model.neck.out_channels=(16,16,16)"]
    words = ["export", CONFIG, str(checkpoint), "--input", "uint8", "--out", str(tmp_path / "out")]
    assert main([*words, "--images", str(photos), *options]) == 0
    assert "verify passed" in capsys.readouterr().out
    file = str(tmp_path / "out" / "model.onnx")
    assert main(["test", CONFIG, file, *options]) == 0
    assert main(["predict", file, str(photos), "--out", str(tmp_path / "pictures")]) == 0
    assert main(["benchmark", file, "--runs", "1", "--warmup", "0", "--threads", "1"]) == 0
    assert "| onnxruntime" in capsys.readouterr().out
