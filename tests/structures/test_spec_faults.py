"""Every field of a sidecar, deleted, None or of another type: it loads as it was meant, or the field is named."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from efftasks.structures.comparison import DetectionAgreement
from efftasks.structures.errors import UserError
from efftasks.structures.spec import (
    ArtifactFile,
    ArtifactSpec,
    DecoderSpec,
    ExitSpec,
    InputSpec,
    OutputSpec,
    QuantizationSpec,
)

SPEC = ArtifactSpec(
    task="pose",
    classes=("a", "b"),
    category_ids=(1, 2),
    input=InputSpec("images", 64, 96, mean=(0, 0, 0), std=(1, 1, 1)),
    outputs=(OutputSpec("boxes", ("N", 2, 4), "float32", "xyxy"),),
    keypoints=("nose", "tail"),
    keypoint_sigmas=(0.1, 0.1),
    skeleton=((0, 1),),
    semantic_classes=("grass",),
    palette=((1, 2, 3),),
    decode="outside",
    decoder=DecoderSpec("top-pairs", 2),
    early_exit=ExitSpec("split", 0.5, "rest.onnx", (OutputSpec("maps", ("N", 8), "float32", ""),)),
    precision="int8",
    quantization=QuantizationSpec("int8", "int8", "per-tensor", 1, "0f" * 32, ("head",)),
    comparison=DetectionAgreement(),
    files=(ArtifactFile("model.onnx", "0f" * 32, 1),),
)
STORED: dict[str, Any] = json.loads(SPEC.to_json())
FIELDS: list[tuple[Any, ...]] = [
    *((name,) for name in STORED),
    *(("input", name) for name in STORED["input"]),
    *(("outputs", 0, name) for name in STORED["outputs"][0]),
    *(("files", 0, name) for name in STORED["files"][0]),
    *((part, name) for part in ("decoder", "early_exit", "quantization", "comparison") for name in STORED[part]),
]
# Where None has a meaning: not known, that of the precision, or of no use to the decoder.
NULLABLE = {("comparison",), ("input", "pixel_range"), *(("quantization", name) for name in STORED["quantization"])}
NULLABLE |= {("quantization",), ("decoder", "max_detections"), ("decoder", "bins_per_pixel"), ("early_exit",)}
NULLABLE.remove(("quantization", "float_layers"))
EMPTY = {"keypoint_sigmas", "skeleton", "semantic_classes", "palette", "shape"}  # lists that may be
WRONG = (None, [None], ["x", None], {"x": None}, float("inf"), float("nan"), [[1, 2, 3, 4]])


def changed(field: tuple[Any, ...], *value: Any) -> dict[str, Any]:
    """The sidecar with another value in a field, or without it."""
    data = copy.deepcopy(STORED)
    part: Any = data
    for key in field[:-1]:
        part = part[key]
    del part[field[-1]]
    if value:
        part[field[-1]] = value[0]
    return data


@pytest.mark.parametrize("field", FIELDS, ids=str)
def test_wrong_types_are_named(field):
    for value in WRONG:
        if field == ("verify",) and isinstance(value, dict):
            continue
        if field in NULLABLE and value is None:
            continue
        if field == ("quantization",) and isinstance(value, dict):  # each of its fields may be left out
            continue
        with pytest.raises(UserError) as error:
            ArtifactSpec.from_json(changed(field, value), origin="a.json")
        assert str(error.value).startswith("a.json: ") and str(field[-1]) in str(error.value)


@pytest.mark.parametrize("field", FIELDS, ids=str)
def test_what_is_missing_has_a_default_or_is_named(field):
    try:
        spec = ArtifactSpec.from_json(changed(field), origin="a.json")
    except UserError as error:
        assert str(field[-1]) in str(error)
    else:
        assert isinstance(spec, ArtifactSpec) and field[-1] not in ("classes", "input", "outputs", "mean", "shape")
