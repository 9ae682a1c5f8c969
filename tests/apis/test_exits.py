"""Models with an early exit: what is exported of them, how it is verified, and what is refused."""

from __future__ import annotations

import copy
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
from efftasks.apis.describing import described_file
from efftasks.apis.exits import CountedExits
from efftasks.apis.formats import parts_of, suffix_of
from efftasks.apis.verifying import verify
from efftasks.export.exporters.table import EXPORTERS
from efftasks.export.quantization.recipe import CalibrationImages, Recipe
from efftasks.export.verify import JointReport
from efftasks.export.verify_exits import Decision, ExitReport, compare_decisions
from efftasks.runtime.exits import ALWAYS, NEVER
from efftasks.structures.comparison import POLICIES, Tolerance
from efftasks.structures.errors import UserError

CONFIG = "o2o-n_mobilenetv4-conv-s_1xb16-18e_shapes-128"
SCHEMA = json.loads((Path(__file__).resolve().parents[2] / "docs" / "artifact.schema.json").read_text())
COUNT = 4


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for i in range(COUNT):
        small = random.integers(0, 256 - 30 * i, (6, 8, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{i}.png"), cv2.resize(small, (96, 64), interpolation=cv2.INTER_CUBIC))
    return folder


@pytest.fixture(scope="module")
def model(spread_detector: Callable[[Any], Any], photos: Path) -> Any:
    """An untrained detector that leaves early for half of the photos."""
    small = {"image_size": (64, 64), "model.backbone.width": 0.25, "model.neck.out_channels": (16, 16, 16)}
    cfg = apis.load_config(CONFIG, small)
    cfg.model.early_exit = dict(
        type="BackboneExit",
        after=16,
        levels=1,
        neck=dict(type="LightPAN", out_channels=(16,), depth=1),
        head=copy.deepcopy(cfg.model.head),
        gate=dict(type="ConfidenceGate"),
    )
    built = spread_detector(cfg)
    scores, sides = (
        part[0][-1] for part in (built.early_exit.head.one_to_one.classes, built.early_exit.head.one_to_one.boxes)
    )
    torch.nn.init.normal_(scores.weight, 0.0, 0.1)
    torch.nn.init.constant_(scores.bias, -1.0)
    torch.nn.init.normal_(sides.weight, 0.0, 1e-3)
    between = np.sort([float(apis.infer(built, str(path))["exit_score"]) for path in sorted(photos.iterdir())])
    assert between[COUNT // 2] - between[COUNT // 2 - 1] > 1e-3
    apis.set_exit_threshold(built, float(between[COUNT // 2 - 1 : COUNT // 2 + 1].mean()))
    return built


def settings(photos: Path, **more: Any) -> apis.ExportSettings:
    return apis.ExportSettings(images=photos, num_images=COUNT, **more)


@pytest.fixture(scope="module")
def exported(model: Any, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str | None], Any]:
    """What is exported as ONNX in a form, written once."""
    made: dict[str | None, Any] = {}

    def form(name: str | None) -> Any:
        if name not in made:
            made[name] = apis.export_model(model, tmp_path_factory.mktemp("out"), settings(photos, exit=name))
        return made[name]

    return form


def decisions_of(report: Any) -> ExitReport:
    assert isinstance(report, JointReport) and isinstance(report.parts["exits"], ExitReport)
    return report.parts["exits"]


@pytest.mark.slow
@pytest.mark.parametrize(("asked", "form", "files"), [(None, "if", 1), ("split", "split", 2)])
def test_both_paths_of_a_file_are_the_models(asked, form, files, exported, model):
    result = exported(asked)
    assert result.spec.early_exit.form == form and len(result.spec.files) == files
    assert result.spec.early_exit.threshold == pytest.approx(model.exits_early.exit_threshold)
    exits = decisions_of(result.report)
    assert (exits.images, exits.exited, exits.alike, exits.near) == (COUNT, COUNT // 2, COUNT, 0)
    assert result.report.passed and set(result.report.parts) == {"exits", "outputs"}
    data = json.loads(result.path.with_suffix(".json").read_text())
    jsonschema.validate(data, SCHEMA)
    assert data["verify"]["exits"]["alike"] == COUNT
    assert [file["name"] for file in data["files"]] == ["model.onnx", "model.rest.onnx"][:files]
    assert data["input"]["dynamic_batch"] is (form == "split")


def test_nothing_of_the_exporter_is_left_in_branches(exported):
    graph = onnx.load(exported(None).path).graph
    (branching,) = [node for node in graph.node if node.op_type == "If"]
    bodies = [entry.g for entry in branching.attribute]
    assert any(node.op_type == "Conv" for body in bodies for node in body.node)
    assert not any(node.metadata_props for part in (graph, *bodies) for node in part.node)


def test_convolutions_of_a_branch_have_their_weights_there(exported):
    """ONNX Runtime has fast kernels for these alone: with weights outside the whole network took twice its time."""
    graph = onnx.load(exported(None).path).graph
    bodies = [entry.g for node in graph.node for entry in node.attribute if entry.HasField("g")]
    inside = [{tensor.name for tensor in body.initializer} for body in bodies]
    weights = [(i, node.input[1]) for i, body in enumerate(bodies) for node in body.node if node.op_type == "Conv"]
    assert len(weights) > 10 and all(name in inside[i] for i, name in weights)
    outside = {tensor.name for tensor in graph.initializer}
    assert not outside & {name for names in inside for name in names}


@pytest.mark.parametrize(("threshold", "path"), [(ALWAYS, "whole network"), (NEVER, "at the exit")])
def test_a_path_that_no_image_takes_is_verified_too(threshold, path, exported, model, photos):
    spec, entries = exported(None).spec, [dict(img_path=str(file), img_id=0) for file in sorted(photos.iterdir())]
    spec = replace(spec, early_exit=replace(spec.early_exit, threshold=threshold))
    report = verify(model, exported(None).path, spec, entries)
    assert isinstance(report, JointReport) and report.passed and path in report.parts
    broken = copy.deepcopy(model)
    part = broken.head if threshold == ALWAYS else broken.early_exit.head
    with torch.no_grad():
        part.one_to_one.boxes[0][-1].bias += 0.1  # no score changes, and no decision
    report = verify(broken, exported(None).path, spec, entries)
    assert isinstance(report, JointReport) and not report.passed and not report.parts[path].passed
    assert report.parts["exits"].passed and report.parts["outputs"].passed


def test_a_file_whose_branches_changed_places_is_rejected(exported, model, photos, tmp_path):
    network = onnx.load(exported(None).path)
    (branching,) = [node for node in network.graph.node if node.op_type == "If"]
    for entry in branching.attribute:
        entry.name = {"then_branch": "else_branch", "else_branch": "then_branch"}[entry.name]
    onnx.save(network, tmp_path / "model.onnx")
    entries = [dict(img_path=str(file), img_id=0) for file in sorted(photos.iterdir())]
    report = verify(model, tmp_path / "model.onnx", exported(None).spec, entries)
    assert isinstance(report, JointReport) and not report.passed
    assert report.parts["exits"].passed and not report.parts["outputs"].passed


@pytest.mark.slow
def test_none_writes_the_whole_network(exported, model, photos):
    result = exported("none")
    assert result.spec.early_exit is None and "exit_score" not in [output.name for output in result.spec.outputs]
    path = sorted(photos.iterdir())[0]
    (prediction,) = Predictor(result.path)(path)
    apis_model = copy.deepcopy(model)
    apis.set_exit_threshold(apis_model, NEVER)
    np.testing.assert_allclose(prediction.scores, apis.predict(apis_model, path)[0].scores, atol=1e-5)
    assert prediction.exited is None


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            dict(backend="web"),
            r"--exit: --backend web writes no early exit in fp32, .* --exit none.* or --backend onnx, openvino",
        ),
        (dict(precision="fp16"), r"--exit: --backend onnx writes no early exit in fp16, .* --backend openvino"),
        (dict(precision="int8", exit="if"), r"--exit: got 'if', expected split .* leaves branches in float"),
        (dict(exit="if", dynamic_size=True), r"--dynamic-size: a file with an early exit has one size"),
        (dict(exit="if", decode="outside"), r"--decode"),
        (dict(exit="none", exit_threshold=0.5), r"--exit-threshold: got 0.5, but --exit none writes the whole network"),
    ],
)
def test_what_cannot_be_written_is_refused_in_a_sentence(asked, message, model, photos, tmp_path):
    with pytest.raises(UserError, match=message):
        apis.export_model(model, tmp_path, settings(photos, **asked))


@pytest.mark.parametrize(
    ("asked", "message"), [(dict(exit="off"), "--exit: got 'off'"), (dict(exit_threshold=-1), "from 0")]
)
def test_settings_are_checked(asked, message):
    with pytest.raises(UserError, match=message):
        apis.ExportSettings(**asked)


def test_a_model_without_an_exit_has_none_to_export(spread_detector, photos, tmp_path):
    small = {"image_size": (64, 64), "model.backbone.width": 0.25, "model.neck.out_channels": (16, 16, 16)}
    plain = spread_detector(apis.load_config(CONFIG, small))
    for asked in (dict(exit="if"), dict(exit_threshold=0.5)):
        with pytest.raises(UserError, match="has no early exit; leave it out"):
            apis.export_model(plain, tmp_path, settings(photos, **asked))
    with pytest.raises(UserError, match="has no early exit; leave it out"):
        apis.set_exit_threshold(plain, 0.5)


def test_decisions_near_the_threshold_are_counted_apart():
    decisions = [
        Decision(0.9, 0.9, True),
        Decision(0.1, 0.1, False),
        Decision(0.50005, 0.49998, False),  # rounding decides
        Decision(0.5, 0.5, True),
        Decision(0.2, 0.7, True),  # wrong
    ]
    report = compare_decisions(decisions, 0.5, Tolerance())
    assert (report.images, report.exited, report.near, report.near_alike, report.alike) == (5, 3, 2, 1, 2)
    assert report.share == pytest.approx(2 / 3) and not report.passed
    right = compare_decisions(decisions[:4], 0.5, Tolerance())
    assert right.passed and right.share == 1
    assert not compare_decisions([Decision(0.9, 0.8, True)], 0.5, Tolerance()).passed
    assert compare_decisions([Decision(0.9, 0.8, True)], 0.5, POLICIES["int8"]).passed
    assert not compare_decisions([], 0.5, Tolerance()).passed


def test_exits_are_counted(exported, photos):
    paths = [dict(img_path=str(path)) for path in sorted(photos.iterdir())]
    predictor = Predictor(exported(None).path)
    counted = CountedExits(lambda entries: predictor([entry["img_path"] for entry in entries], len(entries)))
    assert counted.rate is None
    counted(paths)
    assert counted.rate == 0.5


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["onnx", "openvino"])
def test_both_parts_are_quantized(backend, model, tmp_path):
    exporter = EXPORTERS[backend]
    if exporter.missing or exporter.quantization is None:
        pytest.skip(f"{backend} is not installed")
    spec = described_file(model, apis.ExportSettings(backend, precision="int8"), exporter, None, {})
    assert spec.early_exit is not None and spec.early_exit.form == "split"
    images = CalibrationImages([f"{i}" for i in range(4)], lambda i: np.full((1, 3, 64, 64), i - 1.5, np.float32))
    quantizer = exporter.quantization.prepare(apis.fuse(model), spec, tmp_path, images, (), opset=18)
    path = tmp_path / f"model{suffix_of(exporter)}"
    quantizer.write(path, Recipe("minmax", float_layers=("head.one_to_one.classes*",)))
    spec.save(path.with_suffix(".json"))
    for part in parts_of(path, spec):
        content = part.read_bytes()
        assert b"QuantizeLinear" in content or b"FakeQuantize" in content
    predictor = Predictor(path, exit_threshold=NEVER)
    outputs = predictor.session.run(np.full((2, 3, 64, 64), 0.5, np.float32))
    with torch.no_grad():
        expected = model.exits_early.infer_late(model.exits_early.infer_early(torch.full((2, 3, 64, 64), 0.5)).carried)
    assert outputs["scores"].shape == expected.scores.shape
    assert np.abs(outputs["scores"] - expected.scores.numpy()).mean() < 0.05
