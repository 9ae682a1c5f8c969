import json
from dataclasses import asdict, replace

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
    keypoint_sigmas=(0.026, 1.0),
    skeleton=((0, 1),),
    semantic_classes=("grass", "sky"),
    verify={"passed": True},
)


def test_round_trip(tmp_path):
    assert ArtifactSpec.from_json(SPEC.to_json()) == SPEC
    SPEC.save(tmp_path / "model.json")
    assert ArtifactSpec.load(tmp_path / "model.json") == SPEC
    assert json.loads((tmp_path / "model.json").read_text())["outputs"][0]["shape"] == ["N", 300, 4]


def test_a_verify_block_is_added_to_a_copy():
    verified = SPEC.with_verify({"passed": False})
    assert (verified.verify, SPEC.verify) == ({"passed": False}, {"passed": True})
    assert verified.with_verify(SPEC.verify) == SPEC


def test_errors_name_the_file(tmp_path):
    (tmp_path / "bad.json").write_text(json.dumps({**json.loads(SPEC.to_json()), "category_ids": []}))
    with pytest.raises(UserError, match=r"bad\.json: category_ids: got 0, expected 2"):
        ArtifactSpec.load(tmp_path / "bad.json")


def test_unknown_fields_are_left_for_newer_readers():
    assert ArtifactSpec.from_json({**json.loads(SPEC.to_json()), "later": 1}) == SPEC


def test_the_range_of_pixels_survives_and_sidecars_from_before_it_load():
    wide = replace(SPEC, input=replace(SPEC.input, pixel_range=(0, 4095)))
    assert ArtifactSpec.from_json(wide.to_json()) == wide
    data = json.loads(SPEC.to_json())
    del data["input"]["pixel_range"]
    assert ArtifactSpec.from_json(data) == SPEC and SPEC.input.pixel_range is None


def test_sidecars_from_before_masks_and_keypoints_still_load():
    data = json.loads(SPEC.to_json())
    del data["keypoint_sigmas"], data["semantic_classes"]
    old = ArtifactSpec.from_json(data)
    assert old == replace(SPEC, keypoint_sigmas=(), semantic_classes=())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (dict(schema=2), "schema: got 2, expected 1"),
        (dict(input=3), "input: got a int, expected an object"),
        (dict(input={**asdict(SPEC.input), "resize": "squash"}), "input.resize: got 'squash'"),
        (dict(input={**asdict(SPEC.input), "height": 0}), "input.height: got 0"),
        (dict(input={**asdict(SPEC.input), "height": "640"}), "input.height: got '640', expected an integer from 1"),
        (dict(input={**asdict(SPEC.input), "mean": [1]}), "input.mean"),
        (dict(input={**asdict(SPEC.input), "mean": 1}), "input.mean: got 1, expected three numbers"),
        (dict(input={**asdict(SPEC.input), "std": [1, 0, 1]}), "input.std: .* other than 0"),
        (dict(input={**asdict(SPEC.input), "pad_value": None}), "input.pad_value: got None, expected a number"),
        (dict(input={**asdict(SPEC.input), "pixel_range": [0]}), "input.pixel_range: got .*, expected two numbers"),
        (dict(input={**asdict(SPEC.input), "pixel_range": [9, 9]}), "input.pixel_range: got .*, expected low < high"),
        (dict(input={**asdict(SPEC.input), "color": "rgb"}), "input.color: got 'rgb', expected one of"),
        (dict(input={**asdict(SPEC.input), "interpolation": "area"}), "input.interpolation: got 'area'"),
        (dict(classes="ab"), "classes: got 'ab', expected a list of names"),
        (dict(category_ids=[1, "2"]), "category_ids: got .*, expected a list of integers"),
        (dict(category_ids=[1]), "category_ids: got 1, expected 2, one for each of classes"),
        (dict(skeleton=[[0, 1, 2]]), "skeleton: got .*, expected rows of 2 integers"),
        (dict(skeleton=[[0, 2]]), r"skeleton: got \(0, 2\), expected indices of the 2 keypoints"),
        (dict(skeleton=[[-1, 1]]), "skeleton: got"),
        (dict(semantic_classes="sky"), "semantic_classes: got 'sky', expected a list of names"),
        (dict(keypoint_sigmas=[0.1]), "keypoint_sigmas: got 1, expected 2, one for each of keypoints, or none"),
        (dict(keypoint_sigmas=[0.1, 0]), "keypoint_sigmas: got .*, expected a list of numbers above 0"),
        (dict(keypoint_sigmas=0.1), "keypoint_sigmas: got 0.1, expected a list"),
        (dict(outputs={}), "outputs: got a dict, expected a list"),
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
