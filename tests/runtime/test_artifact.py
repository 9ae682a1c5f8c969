"""What an exported file says of itself, old and new, and what OpenVINO makes of the same file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from efftasks import Predictor
from efftasks.export.exporters.onnx import export_onnx
from efftasks.runtime.artifact import Artifact
from efftasks.structures.errors import UserError
from efftasks.structures.spec import ArtifactFile, ArtifactSpec

OLD = Path(__file__).parents[1] / "fixtures" / "sidecar_schema1.json"
TYPES = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64}


def write_constant(path: Path, spec: ArtifactSpec, metadata: str | None) -> Path:
    """A file that answers with zeros, one image at a time."""
    shapes = {output.name: [1 if side == "N" else int(side) for side in output.shape] for output in spec.outputs}
    values = {
        output.name: onnx.numpy_helper.from_array(np.zeros(shapes[output.name], output.dtype), f"{output.name}_")
        for output in spec.outputs
    }
    graph = helper.make_graph(
        [helper.make_node("Identity", [f"{name}_"], [name]) for name in values],
        "constant",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, spec.input.height, spec.input.width])],
        [helper.make_tensor_value_info(o.name, TYPES[o.dtype], shapes[o.name]) for o in spec.outputs],
        list(values.values()),
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    if metadata is not None:
        helper.set_model_props(model, {"efftasks": metadata})
    onnx.save(model, str(path))
    return path


@pytest.fixture
def spec() -> ArtifactSpec:
    return ArtifactSpec.load(OLD)


@pytest.mark.parametrize("inside", [True, False])
def test_files_of_the_first_schema_still_run(inside, spec, tmp_path):
    text = OLD.read_text()
    path = write_constant(tmp_path / "model.onnx", spec, text if inside else None)
    if not inside:
        (tmp_path / "model.json").write_text(text)
    predictor = Predictor(path)
    assert predictor.spec == spec and predictor.spec.files == ()
    (found,) = predictor(np.zeros((20, 30, 3), np.uint8))
    assert found.keypoints is not None and found.keypoints.shape == (100, 4, 3)


def test_the_file_that_was_exported_is_the_one_that_runs(spec, tmp_path):
    path = write_constant(tmp_path / "model.onnx", spec, spec.to_json())
    files = (ArtifactFile.of(path),)
    replace(spec, files=files).save(tmp_path / "model.json")
    assert Artifact(path).spec == replace(spec, files=files)  # the file does not hold its own digest
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(UserError, match=r"model\.onnx: got the SHA-256 .* as model\.json states: it was changed"):
        Artifact(path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"model\.onnx: got \d+ bytes, expected \d+ .*incomplete"):
        Artifact(path)


@pytest.mark.parametrize("text", ["{", "[]", '{"images": [], "annotations": []}'])
def test_json_of_something_else_beside_a_file_is_left_alone(text, spec, tmp_path):
    path = write_constant(tmp_path / "model.onnx", spec, spec.to_json())
    (tmp_path / "model.json").write_text(text)
    assert Artifact(path).spec == spec
    mute = write_constant(tmp_path / "mute.onnx", spec, None)
    (tmp_path / "mute.json").write_text(text)
    with pytest.raises(UserError, match=r"mute\.json: (not JSON|got a list|schema: got None)"):
        Artifact(mute)


def test_a_wrong_sidecar_is_named_though_the_file_has_a_description(spec, tmp_path):
    path = write_constant(tmp_path / "model.onnx", spec, spec.to_json())
    stored = json.loads(replace(spec, files=(ArtifactFile.of(path),)).to_json())
    (tmp_path / "model.json").write_text(json.dumps({**stored, "schema": 9}))
    with pytest.raises(UserError, match=r"model\.json: schema: got 9, expected 1 or 2"):
        Artifact(path)


@pytest.fixture(scope="module")
def file(detector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    model, spec = detector
    return export_onnx(model, spec, tmp_path_factory.mktemp("openvino") / "model.onnx")


def test_openvino_gives_what_onnxruntime_gives(file, same_detections):
    pytest.importorskip("openvino", reason="OpenVINO is not installed")
    other = Predictor(file, backend="openvino", threads=1)
    assert other.session.backend.name == "openvino" and other.spec.task == "detection"
    same_detections(Predictor(file), other)


def test_openvino_runs_its_own_files(file, same_detections, tmp_path):
    openvino = pytest.importorskip("openvino", reason="OpenVINO is not installed")
    path = tmp_path / "model.xml"
    openvino.save_model(openvino.Core().read_model(str(file)), str(path), compress_to_fp16=False)
    spec = Artifact(file).spec
    files = (ArtifactFile.of(path), ArtifactFile.of(path.with_suffix(".bin")))
    replace(spec, backend="openvino", files=files).save(path.with_suffix(".json"))
    predictor = Predictor(path)
    assert predictor.session.backend.name == "openvino" and predictor.spec.files == files
    same_detections(Predictor(file), predictor)
    path.with_suffix(".bin").write_bytes(path.with_suffix(".bin").read_bytes()[:-4])
    with pytest.raises(UserError, match=r"model\.bin: got \d+ bytes"):
        Predictor(path)
    path.with_suffix(".json").unlink()
    path.write_text("<net")
    with pytest.raises(UserError, match=r"model\.xml: corrupt, or not a file that OpenVINO reads \(.+\)"):
        Predictor(path)


def test_openvino_reads_the_description_inside_its_own_files(file, tmp_path):
    openvino = pytest.importorskip("openvino", reason="OpenVINO is not installed")
    model = openvino.Core().read_model(str(file))
    openvino.save_model(model, str(tmp_path / "model.xml"))
    assert Artifact(tmp_path / "model.xml").spec == Artifact(file).spec
