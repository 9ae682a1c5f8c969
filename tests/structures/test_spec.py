import json
from dataclasses import asdict

import pytest

from efftasks.structures.errors import UserError
from efftasks.structures.spec import ArtifactSpec, InputSpec, OutputSpec

SPEC = ArtifactSpec(
    task="detection",
    classes=("a", "ä"),
    category_ids=(1, 90),
    input=InputSpec("images", 320, 640, mean=(0.0, 0.0, 0.0), std=(255.0, 255.0, 255.0), resize="stretch"),
    outputs=(OutputSpec("boxes", ("N", 300, 4), "float32", "xyxy"),),
    keypoints=("head", "tail"),
    skeleton=((0, 1),),
    verify={"passed": True},
)


def test_round_trip(tmp_path):
    assert ArtifactSpec.from_json(SPEC.to_json()) == SPEC
    SPEC.save(tmp_path / "model.json")
    assert ArtifactSpec.load(tmp_path / "model.json") == SPEC
    assert json.loads((tmp_path / "model.json").read_text())["outputs"][0]["shape"] == ["N", 300, 4]


def test_unknown_fields_are_left_for_newer_readers():
    assert ArtifactSpec.from_json({**json.loads(SPEC.to_json()), "later": 1}) == SPEC


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (dict(schema=2), "schema: got 2, expected 1"),
        (dict(input=3), "input: got a int, expected an object"),
        (dict(input={**asdict(SPEC.input), "resize": "crop"}), "input.resize: got 'crop'"),
        (dict(input={**asdict(SPEC.input), "height": 0}), "input.height: got 0"),
        (dict(input={**asdict(SPEC.input), "mean": [1]}), "input.mean"),
        (dict(outputs=[{"name": "boxes"}]), r"outputs\[0\]: field 'shape' is missing"),
    ],
)
def test_faults_are_named(change, said):
    with pytest.raises(UserError, match=said):
        ArtifactSpec.from_json({**json.loads(SPEC.to_json()), **change})


def test_missing_field_no_json_and_no_file(tmp_path):
    data = json.loads(SPEC.to_json())
    del data["classes"]
    with pytest.raises(UserError, match="field 'classes' is missing"):
        ArtifactSpec.from_json(data)
    with pytest.raises(UserError, match="not JSON"):
        ArtifactSpec.from_json("{")
    with pytest.raises(UserError, match="cannot be read"):
        ArtifactSpec.load(tmp_path / "none.json")
