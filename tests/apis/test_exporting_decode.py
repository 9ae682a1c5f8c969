"""``apis.export_model`` with the decoder outside of the file: what is written, verified and refused."""

from __future__ import annotations

import json
from collections.abc import Callable
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
from efftasks.apis.forms import exported_spec
from efftasks.export.exporters.table import EXPORTERS
from efftasks.structures.errors import UserError

CONFIG = "o2o-n_mobilenetv4-conv-s_1xb16-18e_shapes-128"
QUERIES = "deimv2-atto_hgnetv2-atto_8xb16-500e_coco-320"
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


def settings(photos: Path, **more: Any) -> apis.ExportSettings:
    return apis.ExportSettings(images=photos, num_images=2, decode="outside", **more)


def query_detector() -> Any:
    options = {"classes": ("cat", "dog", "bird"), "image_size": (64, 96), "model.backbone.width": 0.5}
    cfg = apis.load_config(QUERIES, {**options, "model.head.channels": 32, "model.neck.channels": 32})
    torch.manual_seed(0)
    built: Any = apis.build(cfg)
    with torch.no_grad():
        for name, parameter in built.head.named_parameters():
            if parameter.dim() > 1 and "head" in name:
                parameter.normal_(std=0.1)
    built.cfg, built.dataset_meta = cfg, dict(classes=cfg.classes, category_ids=(1, 2, 3))
    return built.eval()


def same_predictions(ours: Predictor, theirs: Predictor, photos: Path) -> None:
    for a, b in zip(ours(str(photos)), theirs(str(photos)), strict=True):
        np.testing.assert_allclose(a.scores, b.scores, atol=1e-6)
        clear = np.abs(np.diff(a.scores, prepend=2)) > 1e-5
        clear[:-1] &= clear[1:]
        assert clear.mean() > 0.5
        np.testing.assert_allclose(a.boxes[clear], b.boxes[clear], atol=1e-2)
        np.testing.assert_array_equal(a.labels[clear], b.labels[clear])


@pytest.mark.slow
def test_the_file_gives_all_candidates_and_is_verified_with_the_decoder(model, photos, tmp_path):
    exported = apis.export_model(model, tmp_path / "outside", settings(photos))
    stored = json.loads((tmp_path / "outside" / "model.json").read_text())
    jsonschema.Draft202012Validator(SCHEMA).validate(stored)
    assert (stored["decode"], stored["decoder"]["name"], stored["decoder"]["max_detections"]) == (
        "outside",
        "top-pairs",
        model.head.count_detections(128, 128),
    )
    assert [output["shape"] for output in stored["outputs"]] == [["N", 336, 4], ["N", 336, 6]]
    assert stored["verify"]["passed"] is True and stored["verify"]["detections"] > 0
    assert "TopK" not in {node.op_type for node in onnx.load(str(exported.path)).graph.node}
    inside = apis.export_model(model, tmp_path / "inside", replace(settings(photos), decode="inside"))
    assert inside.spec.decoder is None
    same_predictions(Predictor(exported.path), Predictor(inside.path), photos)


@pytest.mark.slow
def test_query_detectors_give_all_queries(photos, tmp_path):
    built = query_detector()
    exported = apis.export_model(built, tmp_path / "outside", settings(photos))
    queries = exported.spec.outputs[0].shape[1]
    assert [output.shape for output in exported.spec.outputs] == [("N", queries, 4), ("N", queries, 3)]
    assert exported.spec.decoder is not None and exported.report.passed
    operators = {node.op_type for node in onnx.load(str(exported.path)).graph.node}
    assert "TopK" in operators and "GridSample" not in operators  # the selection of queries stays
    inside = apis.export_model(built, tmp_path / "inside", replace(settings(photos), decode="inside"))
    same_predictions(Predictor(exported.path), Predictor(inside.path), photos)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["onnx", "openvino"])
def test_integers_as_well(backend, spread_detector, photos, tmp_path):
    if backend == "openvino":
        pytest.importorskip("nncf")
    small = {"model.backbone.width": 0.25, "model.neck.out_channels": (16, 16, 16), "model.head.max_detections": 336}
    built = spread_detector(apis.load_config(CONFIG, small))
    # Rounding moves what an untrained network predicts: predictions of little spread are still the same detections.
    for scores in built.head.one_to_one.classes:
        torch.nn.init.normal_(scores[-1].weight, 0.0, 0.01)
        scores[-1].bias.data = torch.tensor([-0.3, -3.0, -3.0, -3.0, -3.0, -3.0])
    quantized = dict(precision="int8", calib_images=photos, quantization={"method": "minmax"})
    exported = apis.export_model(built, tmp_path, settings(photos, backend=backend, **quantized))
    assert (exported.spec.precision, exported.spec.decode) == ("int8", "outside") and exported.report.passed
    assert [output.name for output in exported.spec.outputs] == ["boxes", "scores"]


def test_what_cannot_be_written_is_refused_before(model, photos, tmp_path):
    with pytest.raises(UserError, match=r"--decode: got 'maybe', expected one of inside, outside"):
        apis.ExportSettings(decode="maybe")
    with pytest.raises(UserError, match=r"--backend web: got --decode outside, expected inside: the page takes"):
        apis.export_model(model, tmp_path, settings(photos, backend="web"))
    spec = apis.describe(model)
    with pytest.raises(UserError, match=r"--decode: got 'inside', expected outside: files of --backend ncnn end"):
        exported_spec(model, spec, EXPORTERS["ncnn"], "inside")
    with pytest.raises(UserError, match=r"--decode outside, and Conv2d declares no end before its decoder"):
        exported_spec(torch.nn.Conv2d(3, 2, 1), spec, EXPORTERS["onnx"], "outside")
    assert not list(tmp_path.iterdir())
