"""``apis.export_model``: what is written beside the file, what it is held against, and what is not shipped."""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import jsonschema
import numpy as np
import onnxruntime
import pytest

from efftasks import Predictor, apis
from efftasks.apis.verifying_page import PageReport
from efftasks.export.exporters.base import PageOptions
from efftasks.export.exporters.onnx import export_onnx
from efftasks.export.exporters.table import EXPORTERS
from efftasks.export.page.npm_package import NpmPackage
from efftasks.runtime.artifact import Artifact, check_files
from efftasks.structures.comparison import POLICIES
from efftasks.structures.errors import UserError, WorkError
from efftasks.structures.spec import ArtifactFile, ArtifactSpec, DecoderSpec, QuantizationSpec

CONFIG = "o2o-n_mobilenetv4-conv-s_1xb16-18e_shapes-128"
SCHEMA = json.loads((Path(__file__).resolve().parents[2] / "docs" / "artifact.schema.json").read_text())


@pytest.fixture(scope="module")
def model(spread_detector: Callable[[Any], Any]) -> Any:
    return spread_detector(
        apis.load_config(CONFIG, {"model.backbone.width": 0.25, "model.neck.out_channels": (16, 16, 16)})
    )


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for i in range(2):
        small = random.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{i}.png"), cv2.resize(small, (160, 120), interpolation=cv2.INTER_CUBIC))
    return folder


@pytest.fixture
def half(monkeypatch: pytest.MonkeyPatch) -> None:
    """An exporter that says fp16 of what it writes: the file has the model's numbers."""
    exporter = replace(EXPORTERS["onnx"], name="half", precisions=("fp16",), half=None)
    monkeypatch.setitem(EXPORTERS, "half", exporter)


def settings(photos: Path, **more: Any) -> apis.ExportSettings:
    return apis.ExportSettings(images=photos, num_images=2, **more)


def test_the_sidecar_states_files_and_policy(model, photos, tmp_path):
    exported = apis.export_model(model, tmp_path, settings(photos), {"config": "c"})
    stored = json.loads((tmp_path / "model.json").read_text())
    jsonschema.Draft202012Validator(SCHEMA).validate(stored)
    assert exported.path == tmp_path / "model.onnx" and exported.spec == ArtifactSpec.from_json(stored)
    assert exported.spec.files == (ArtifactFile.of(exported.path),) and stored["files"][0]["name"] == "model.onnx"
    assert (stored["backend"], stored["precision"], stored["decode"]) == ("onnx", "fp32", "inside")
    assert exported.spec.comparison == POLICIES["fp32"] and stored["verify"]["passed"] is True
    assert stored["verify"]["machine"]["onnxruntime"] == onnxruntime.__version__
    assert stored["verify"]["machine"]["cores"] == str(os.cpu_count())
    inside = ArtifactSpec.from_json(_metadata(exported.path))
    assert replace(inside, files=exported.spec.files) == exported.spec == Predictor(exported.path).spec
    check_files(exported.path, exported.spec)
    with exported.path.open("ab") as file:
        file.write(b"\0")
    with pytest.raises(UserError, match=r"model\.onnx: got \d+ bytes"):
        Predictor(exported.path)


def _metadata(path: Path) -> str:
    import onnx

    return next(entry.value for entry in onnx.load(str(path)).metadata_props if entry.key == "efftasks")


@pytest.mark.slow
def test_lower_precision_is_held_against_detections_and_metrics(half, model, photos, tmp_path, monkeypatch):
    metrics = {"pytorch": {"AP": 0.5}, "artifact": {"AP": 0.499}}
    monkeypatch.setattr("efftasks.apis.exporting._metrics", lambda *arguments: {"metrics": metrics})
    wishes = settings(photos, backend="half", precision="fp16", evaluate=True)
    exported = apis.export_model(model, tmp_path / "good", wishes)
    assert (exported.spec.backend, exported.spec.precision) == ("half", "fp16")
    assert exported.spec.comparison == POLICIES["fp16"]
    assert exported.spec.verify["policy"]["kind"] == "detections" and exported.spec.verify["share"] >= 0.99
    assert exported.spec.verify["metrics"] == metrics

    metrics["artifact"]["AP"] = 0.4
    with pytest.raises(
        WorkError, match=r"model\.onnx\.unverified: .* not shipped \(metrics fell by more than 0\.5 %: AP "
    ):
        apis.export_model(model, tmp_path / "bad", wishes)
    assert sorted(path.name for path in (tmp_path / "bad").iterdir()) == [
        "model.json.unverified",
        "model.onnx.unverified",
    ]
    with pytest.raises(UserError):
        Artifact(tmp_path / "bad" / "model.onnx.unverified")
    assert json.loads(_metadata(tmp_path / "bad" / "model.onnx.unverified"))["verify"]["passed"] is False


@pytest.mark.slow
def test_float16_is_held_against_the_model_with_all_its_roundings(model, photos, tmp_path, monkeypatch):
    """ONNX Runtime rounds nothing between two nodes on a CPU: a file that overflows on a GPU is right there."""
    monkeypatch.setitem(POLICIES, "fp16", POLICIES["int8"])  # scores of an untrained network lie close together
    loud = copy.deepcopy(model)
    for tower in loud.head.one_to_one.classes:  # scores are the same: what is between is positive
        norm = tower[-2].norm
        norm.weight.data *= 2.0**15
        norm.bias.data *= 2.0**15
        tower[-1].weight.data *= 2.0**-15
    exported = apis.export_model(loud, tmp_path / "good", settings(photos, precision="fp16"))
    stored = json.loads((tmp_path / "good" / "model.json").read_text())
    jsonschema.Draft202012Validator(SCHEMA).validate(stored)
    assert stored["verify"]["artifact"]["passed"] and stored["verify"]["rounded"]["passed"]
    assert (stored["quantization"]["weights"], stored["quantization"]["activations"]) == ("float16", "float16")
    assert {"head.one_to_one.classes.0.3.conv", "head.one_to_one.classes.0.4"} <= set(_float_layers(exported))

    def everywhere_one(network: Any, tensors: Any, images: Any) -> dict[str, float]:
        return dict.fromkeys([*tensors, *(tensor.name for tensor in network.graph.initializer)], 1.0)

    monkeypatch.setattr("efftasks.export.half.network.measure_peaks", everywhere_one)
    with pytest.raises(WorkError, match=r"rounded: verify FAILED"):
        apis.export_model(loud, tmp_path / "bad", settings(photos, precision="fp16"))


def _float_layers(exported: apis.Exported) -> tuple[str, ...]:
    assert exported.spec.quantization is not None
    return exported.spec.quantization.float_layers


def test_an_image_that_cannot_be_read_is_named(model, photos, tmp_path, caplog):
    folder = tmp_path / "photos"
    shutil.copytree(photos, folder)
    (folder / "0.png").write_bytes(b"no image")
    apis.export_model(model, tmp_path / "out", apis.ExportSettings(images=folder, num_images=2))
    assert "skipped: " in caplog.text and "0.png" in caplog.text


def test_a_format_without_room_for_a_description(model, photos, tmp_path, monkeypatch):
    """The draft is verified by the sidecar beside it, where neither exporter nor runtime keeps anything inside."""
    plain = replace(EXPORTERS["onnx"], export=_without_metadata, write_metadata=lambda path, spec: None)
    monkeypatch.setitem(EXPORTERS, "onnx", plain)
    exported = apis.export_model(model, tmp_path, settings(photos))
    assert exported.spec == Predictor(exported.path).spec


def _without_metadata(model: Any, spec: ArtifactSpec, path: Path, *, opset: int) -> Path:
    import onnx

    export_onnx(model, spec, path, opset=opset)
    file = onnx.load(str(path))
    del file.metadata_props[:]
    onnx.save(file, str(path))
    return path


def test_windows_are_refused(model, photos, tmp_path):
    other = copy.copy(model)
    other.cfg = copy.deepcopy(model.cfg)
    other.cfg.model.test_cfg = dict(mode="slide")
    with pytest.raises(UserError, match=r"model\.test_cfg\.mode: got 'slide'"):
        apis.export_model(other, tmp_path / "out", settings(photos))


def test_the_default_precision_is_the_exporters(half, model, photos, tmp_path):
    assert apis.export_model(model, tmp_path, settings(photos, backend="half")).spec.precision == "fp16"


def test_what_an_exporter_cannot_write_is_refused_before_any_work(model, photos, tmp_path):
    with pytest.raises(UserError, match="--precision: got 'int4', expected one of fp32"):
        apis.export_model(model, tmp_path / "out", settings(photos, precision="int4"))
    with pytest.raises(UserError, match="--precision: got 'int4', expected one of fp32"):
        apis.export("no such config", "none.pth", tmp_path / "out", settings(photos, precision="int4"))
    with pytest.raises(UserError, match="--backend: got 'abacus', expected one of onnx"):
        apis.export_model(model, tmp_path / "out", settings(photos, backend="abacus"))
    assert not (tmp_path / "out").exists()


@pytest.fixture
def toy_runtime(tmp_path, monkeypatch):
    """An unpacked npm package of two small files, in place of the runtime of the page, and no browser."""
    monkeypatch.setattr("efftasks.apis.exporting.has_browser", lambda: False)
    folder = tmp_path / "toy"
    (folder / "dist").mkdir(parents=True)
    (folder / "package.json").write_text('{"name": "toy", "version": "1.0.0"}')
    for name in ("a.mjs", "a.wasm"):
        (folder / "dist" / name).write_text(name)
    files = tuple(ArtifactFile.of(folder / "dist" / name) for name in ("a.mjs", "a.wasm"))
    monkeypatch.setattr("efftasks.export.exporters.web.ORT_WEB", NpmPackage("toy", "1.0.0", "sha512-", "dist", files))
    return folder


@pytest.mark.parametrize("passes", [True, False])
def test_a_page_is_verified_where_there_is_a_browser(toy_runtime, model, photos, tmp_path, monkeypatch, passes):
    pages = []

    def verify(page: Path, artifact: Path, backend: str, images: list[np.ndarray]) -> PageReport:
        pages.append((page.name, artifact.name, backend, [image.shape for image in images]))
        return PageReport(len(images), None, 0.0 if passes else 0.5, 3.0)

    monkeypatch.setattr("efftasks.apis.exporting.has_browser", lambda: True)
    monkeypatch.setattr("efftasks.apis.exporting.verify_page", verify)
    wishes = settings(photos, backend="web", ort_web=toy_runtime)
    if passes:
        exported = apis.export_model(model, tmp_path / "out", wishes)
        assert exported.page_report is not None and exported.page_report.passed
        stored = json.loads((tmp_path / "out" / "model.json").read_text())
        assert stored["verify"]["browser"]["milliseconds"] == 3.0 and exported.spec.verify == stored["verify"]
    else:
        with pytest.raises(WorkError, match=r"index\.html\.unverified: does not show what .* within 50 % of the area"):
            apis.export_model(model, tmp_path / "out", wishes)
        assert not (tmp_path / "out" / "index.html").exists()
    assert pages == [("index.html", "model.onnx", "onnxruntime", [(120, 160, 3)] * 2)]


@pytest.mark.slow
def test_a_page_is_the_onnx_file_with_what_shows_it(toy_runtime, model, photos, tmp_path, caplog):
    exported = apis.export_model(model, tmp_path / "out", settings(photos, backend="web", ort_web=toy_runtime))
    assert "the page was not verified in a browser: Chromium and ChromeDriver are not on the path" in caplog.text
    assert exported.page_report is None and exported.page == tmp_path / "out" / "index.html"
    assert exported.page is not None and exported.page.is_file()
    assert (tmp_path / "out" / "ort" / "a.wasm").read_text() == "a.wasm"
    stored = json.loads((tmp_path / "out" / "model.json").read_text())
    assert stored["backend"] == "web" and stored["verify"]["passed"] is True
    assert stored["files"][0]["name"] == "model.onnx"
    assert len(Predictor(exported.path)([sorted(photos.iterdir())[0]])[0].boxes) > 0

    options = settings(photos, backend="web", ort_web=toy_runtime, single_file=True)
    single = apis.export_model(model, tmp_path / "single", options)
    assert sorted(path.name for path in (tmp_path / "single").iterdir()) == ["index.html", "model.json", "model.onnx"]
    assert single.page is not None and 'id="file:ort/a.wasm"' in single.page.read_text()


def test_bits_that_an_exporter_does_not_have_are_refused(model, photos, tmp_path, monkeypatch):
    onnx_exporter = EXPORTERS["onnx"]
    assert onnx_exporter.quantization is not None
    fixed = replace(onnx_exporter.quantization, weight_bits=8)
    monkeypatch.setitem(EXPORTERS, "fixed", replace(onnx_exporter, name="fixed", quantization=fixed))
    wishes = settings(photos, backend="fixed", precision="int8", quantization={"weight_bits": 7})
    with pytest.raises(UserError, match="--weight-bits: got 7, expected 8: --backend fixed has no other"):
        apis.export_model(model, tmp_path / "out", wishes)
    assert not (tmp_path / "out").exists()


def test_what_a_page_cannot_show_is_refused_before_any_work(toy_runtime, model, photos, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="--ort-web, --single-file: got --backend onnx, expected one with a page: web"):
        apis.export_model(model, tmp_path / "out", settings(photos, single_file=True))
    with pytest.raises(UserError, match=r"--ort-web: .* has no package\.json of npm"):
        apis.export_model(model, tmp_path / "out", settings(photos, backend="web", ort_web=tmp_path))
    assert not (tmp_path / "out").exists()
    page = EXPORTERS["web"].page
    assert page is not None
    crops = replace(apis.describe(model).input, resize="crop")
    spec = replace(apis.describe(model), task="top-down pose", input=crops)
    with pytest.raises(UserError, match="--backend web: got a model for top-down pose, expected one that takes whole"):
        page.check(spec, PageOptions(toy_runtime))


@pytest.fixture
def ncnn() -> None:
    for module in ("ncnn", "pnnx"):
        pytest.importorskip(module, reason="the extra ncnn is not installed")


def test_a_file_that_ends_before_its_decoder(ncnn, model, photos, tmp_path):
    """ncnn's: it is verified as it is decoded, and described by a sidecar of its own."""
    exported = apis.export_model(model, tmp_path, settings(photos, backend="ncnn"))
    assert exported.path == tmp_path / "model.ncnn.param"
    stored = json.loads((tmp_path / "model.ncnn.json").read_text())
    jsonschema.Draft202012Validator(SCHEMA).validate(stored)
    assert [file["name"] for file in stored["files"]] == ["model.ncnn.param", "model.ncnn.bin"]
    points = 16 * 16 + 8 * 8 + 4 * 4
    assert [(output["name"], output["shape"]) for output in stored["outputs"]] == [
        ("boxes", ["N", points, 4]),
        ("scores", ["N", points, 6]),
    ]
    assert exported.spec.decoder == DecoderSpec("top-pairs", 300) and not exported.spec.input.dynamic_batch
    assert stored["verify"]["passed"] and stored["verify"]["detections"] > 100
    # The sidecar of another file in the folder does not describe this one.
    apis.export_model(model, tmp_path, settings(photos, backend="onnx"))
    ours, theirs = (Predictor(tmp_path / name)(photos) for name in ("model.ncnn.param", "model.onnx"))
    for a, b in zip(ours, theirs):
        np.testing.assert_allclose(a.scores, b.scores, atol=1e-4)


def test_weights_of_16_bits_are_stated(ncnn, model, photos, tmp_path, monkeypatch):
    monkeypatch.setitem(POLICIES, "fp16", POLICIES["int8"])  # scores of an untrained network lie close together
    exported = apis.export_model(model, tmp_path, settings(photos, backend="ncnn", precision="fp16"))
    assert exported.spec.precision == "fp16" and exported.spec.comparison == POLICIES["fp16"]
    assert exported.spec.quantization == QuantizationSpec(weights="float16", activations="float32")


def test_all_files_that_are_not_verified_end_so(ncnn, model, photos, tmp_path, monkeypatch):
    metrics = {"pytorch": {"AP": 0.5}, "artifact": {"AP": 0.1}}
    monkeypatch.setattr("efftasks.apis.exporting._metrics", lambda *arguments: {"metrics": metrics})
    with pytest.raises(WorkError, match=r"model\.ncnn\.param\.unverified: .* not shipped"):
        apis.export_model(model, tmp_path, settings(photos, backend="ncnn", precision="fp16", evaluate=True))
    assert {path.name for path in tmp_path.iterdir()} == {
        "model.ncnn.param.unverified",
        "model.ncnn.bin.unverified",
        "model.ncnn.json.unverified",
    }
    spec = ArtifactSpec.load(tmp_path / "model.ncnn.json.unverified")
    assert spec.verify["passed"] is False and [file.name for file in spec.files] == [
        "model.ncnn.param",
        "model.ncnn.bin",
    ]


def test_what_files_of_one_size_cannot_have(ncnn, model, photos, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="--dynamic-size: --backend ncnn writes files of one size; give --size H W"):
        apis.export_model(model, tmp_path / "out", settings(photos, backend="ncnn", dynamic_size=True))
    with pytest.raises(UserError, match="--input: got 'uint8', --backend ncnn writes files that take float32 alone"):
        apis.export_model(model, tmp_path / "out", settings(photos, backend="ncnn", input="uint8"))
    monkeypatch.setattr("efftasks.apis.exporting.quantization_of", lambda model: QuantizationSpec(weights="int8"))
    with pytest.raises(UserError, match="--backend ncnn: the checkpoint was trained with fake quantization, expected"):
        apis.export_model(model, tmp_path / "out", settings(photos, backend="ncnn"))
    assert not (tmp_path / "out").exists()
