"""docs/artifact.schema.json and the class say the same: fields, and what each refuses."""

from __future__ import annotations

import copy
import json
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from efftasks.structures.comparison import POLICIES, DetectionAgreement, Tolerance
from efftasks.structures.errors import UserError
from efftasks.structures.spec import (
    TASKS,
    ArtifactFile,
    ArtifactSpec,
    DecoderSpec,
    ExitSpec,
    InputSpec,
    OutputSpec,
    QuantizationSpec,
)

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = json.loads((ROOT / "docs" / "artifact.schema.json").read_text(encoding="utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)

FULL = ArtifactSpec(
    task="multi-task",
    classes=("a", "b"),
    category_ids=(1, 2),
    input=InputSpec("images", 64, 96, mean=(0, 0, 0), std=(1, 1, 1), layout="NHWC", pixel_range=(0, 4095)),
    outputs=(OutputSpec("boxes", ("N", 84, 4), "float32", "xyxy"), OutputSpec("scores", ("N", 84, 2), "uint8", "")),
    keypoints=("nose", "tail"),
    keypoint_sigmas=(0.1, 0.1),
    skeleton=((0, 1),),
    semantic_classes=("grass",),
    palette=((1, 2, 3),),
    score_thresholds=(0.25, 0.5),
    decode="outside",
    decoder=DecoderSpec("top-pairs", 2),
    early_exit=ExitSpec("split", 0.5, "rest.onnx", (OutputSpec("maps", ("N", 8), "float32", ""),)),
    precision="int8",
    quantization=QuantizationSpec("int8", "int8", "per-tensor", 1, "0f" * 32, ("head",)),
    comparison=DetectionAgreement(),
    files=(ArtifactFile("model.onnx", "0f" * 32, 1),),
    versions={"torch": "2"},
    source={"config": "c"},
    verify={"passed": True},
)
STORED: dict[str, Any] = json.loads(FULL.to_json())
OF_BYTES: dict[str, Any] = json.loads(replace(FULL, input=FULL.input.of_bytes()).to_json())
PARTS: dict[str, type] = {
    "input": InputSpec,
    "output": OutputSpec,
    "file": ArtifactFile,
    "quantization": QuantizationSpec,
    "decoder": DecoderSpec,
    "early_exit": ExitSpec,
}


def class_takes(data: dict[str, Any]) -> bool:
    try:
        ArtifactSpec.from_json(copy.deepcopy(data))
    except UserError:
        return False
    return True


def test_the_schema_is_a_schema():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize(("name", "kind"), PARTS.items(), ids=str)
def test_parts_have_the_fields_of_their_classes(name: str, kind: type):
    assert set(SCHEMA["$defs"][name]["properties"]) == {field.name for field in fields(kind)}


def test_the_description_has_the_fields_of_its_class():
    assert set(SCHEMA["properties"]) == {field.name for field in fields(ArtifactSpec)}
    for kind in (Tolerance, DetectionAgreement):
        properties = SCHEMA["$defs"][kind.kind]["properties"]
        assert set(properties) == {"kind", *(field.name for field in fields(kind))}
    assert set(SCHEMA["$defs"]) == {*PARTS, Tolerance.kind, DetectionAgreement.kind}


@pytest.mark.parametrize(("name", "kind"), [("", ArtifactSpec), *PARTS.items()], ids=str)
def test_what_has_no_default_is_required(name: str, kind: type):
    part = SCHEMA["$defs"][name] if name else SCHEMA
    needed = {field.name for field in fields(kind) if field.default is field.default_factory is MISSING}
    assert set(part["required"]) == (needed if name else needed | {"schema"})
    for required in part["required"]:
        changed = copy.deepcopy(STORED)
        places = {"output": ("outputs", 0), "file": ("files", 0)}.get(name, (name,) if name else ())
        target: Any = changed
        for key in places:
            target = target[key]
        del target[required]
        assert not VALIDATOR.is_valid(changed) and not class_takes(changed), required


def test_words_are_the_same():
    assert SCHEMA["properties"]["task"]["enum"] == list(TASKS)
    assert SCHEMA["properties"]["precision"]["enum"] == list(POLICIES)


def test_real_sidecars_are_valid():
    VALIDATOR.validate(STORED)
    VALIDATOR.validate(OF_BYTES)
    VALIDATOR.validate(json.loads((ROOT / "tests" / "fixtures" / "sidecar_schema1.json").read_text()))
    for policy in POLICIES.values():
        stored = dict(STORED)
        stored["comparison"] = json.loads(ArtifactSpec(**{**vars(FULL), "comparison": policy}).to_json())["comparison"]
        VALIDATOR.validate(stored)
        assert class_takes(stored)


def each_field(data: dict[str, Any], path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The place of every field of a description, of its parts, and of the first entry of each list."""
    places: list[tuple[Any, ...]] = []
    for key, value in data.items():
        places.append((*path, key))
        if path + (key,) == ("verify",):
            continue
        if isinstance(value, dict):
            places += each_field(value, (*path, key))
        if isinstance(value, list) and value:
            places.append((*path, key, 0))
            if isinstance(value[0], dict):
                places += each_field(value[0], (*path, key, 0))
    return places


VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    1.5,
    "",
    "x",
    "../x",
    [],
    [1],
    ["x"],
    [None],
    {},
    {"x": 1},
    [[1, 2, 3, 4]],
)
# Rules between two fields, of which the schema has the sentence in its description alone: (field, value).
BETWEEN_FIELDS = [
    *(
        (name, value)
        for name, one in (("classes", "x"), ("category_ids", 1), ("keypoints", "x"))
        for value in ([], [one])
    ),
    ("keypoint_sigmas", [1]),
    ("score_thresholds", [1]),
    ("decoder", None),
]


@pytest.mark.parametrize("place", each_field(STORED), ids=str)
def test_class_and_schema_refuse_the_same(place: tuple[Any, ...]):
    for value in VALUES:
        changed = copy.deepcopy(STORED)
        part: Any = changed
        for key in place[:-1]:
            part = part[key]
        part[place[-1]] = value
        if len(place) == 1 and (place[0], value) in BETWEEN_FIELDS:
            assert VALIDATOR.is_valid(changed) and not class_takes(changed), (place, value)
            continue
        assert VALIDATOR.is_valid(changed) == class_takes(changed), (place, value)


@pytest.mark.parametrize("name", OF_BYTES["input"])
def test_class_and_schema_refuse_the_same_of_an_input_of_bytes(name: str):
    """Number of channels, order of axes and padding depend on the type there."""
    for value in (*VALUES, 3, 4, 114.5, 256, "NCHW", "NHWC", "float32", "uint8"):
        changed = copy.deepcopy(OF_BYTES)
        changed["input"][name] = value
        assert VALIDATOR.is_valid(changed) == class_takes(changed), value
    without = copy.deepcopy(OF_BYTES)
    del without["input"][name]
    assert VALIDATOR.is_valid(without) == class_takes(without)
