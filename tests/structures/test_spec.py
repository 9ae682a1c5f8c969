import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from efftasks.structures.comparison import POLICIES, DetectionAgreement
from efftasks.structures.errors import UserError
from efftasks.structures.spec import (
    ArtifactFile,
    ArtifactSpec,
    DecoderSpec,
    InputSpec,
    OutputSpec,
    QuantizationSpec,
)

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


INT8 = replace(
    SPEC,
    input=replace(SPEC.input, layout="NHWC"),
    precision="int8",
    quantization=QuantizationSpec("int8", "uint8", "per-channel", 300, "a0" * 32, ("head.boxes",)),
    comparison=DetectionAgreement(least_share=0.8),
    decode="outside",
    decoder=DecoderSpec("top-pairs", 100),
    files=(ArtifactFile("model.xml", "1b" * 32, 10), ArtifactFile("model.bin", "2c" * 32, 0)),
    backend="openvino",
)
OLD = Path(__file__).parents[1] / "fixtures" / "sidecar_schema1.json"


def output(**change: Any) -> dict[str, Any]:
    return {**asdict(SPEC.outputs[0]), **change}


def test_round_trip(tmp_path):
    assert ArtifactSpec.from_json(SPEC.to_json()) == SPEC
    SPEC.save(tmp_path / "model.json")
    assert ArtifactSpec.load(tmp_path / "model.json") == SPEC
    assert json.loads((tmp_path / "model.json").read_text())["outputs"][0]["shape"] == ["N", 300, 4]


def test_round_trip_of_everything(tmp_path):
    INT8.save(tmp_path / "model.json")
    assert ArtifactSpec.load(tmp_path / "model.json") == INT8
    stored = json.loads((tmp_path / "model.json").read_text())
    assert stored["comparison"]["kind"] == "detections" and stored["schema"] == 2
    assert replace(INT8, comparison=replace(POLICIES["fp32"])).policy == POLICIES["fp32"]


def test_sidecars_of_the_first_schema_load_with_what_was_true_of_them():
    old = json.loads(OLD.read_text())
    assert old["schema"] == 1 and not {"files", "decode", "quantization"} & set(old)
    spec = ArtifactSpec.load(OLD)
    assert (spec.task, spec.classes, spec.outputs[3].shape) == ("pose", ("disc", "triangle"), ("N", 100, 4, 3))
    assert (spec.decode, spec.decoder, spec.files, spec.quantization) == ("inside", None, (), None)
    assert spec.policy == POLICIES["fp32"] and spec.verify["passed"] is True
    written = json.loads(spec.to_json())
    assert written.pop("schema") == 2 and written["input"].pop("channels") == 3
    assert {key: value for key, value in written.items() if key in old} == {k: old[k] for k in old if k != "schema"}


def test_json_holds_no_number_that_other_languages_refuse():
    spec = SPEC.with_verify({"metrics": {"mIoU": float("nan"), "AP": 0.5}, "worst": [float("inf"), 1]})
    stored = json.loads(spec.to_json(), parse_constant=lambda name: pytest.fail(name))
    assert stored["verify"] == {"metrics": {"mIoU": None, "AP": 0.5}, "worst": [None, 1]}


def test_an_input_of_bytes_has_four_channels_last():
    of_bytes = SPEC.input.of_bytes()
    assert (of_bytes.dtype, of_bytes.layout, of_bytes.channels) == ("uint8", "NHWC", 4)
    assert replace(of_bytes, dtype="float32", layout="NCHW", channels=3) == SPEC.input
    spec = replace(SPEC, input=of_bytes)
    assert ArtifactSpec.from_json(spec.to_json()) == spec and of_bytes.of_bytes() == of_bytes
    for stated in (OLD.read_text(), SPEC.to_json()):  # from before there were such inputs
        data = json.loads(stated)
        data["input"].pop("channels", None)
        assert ArtifactSpec.from_json(data).input.channels == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(channels=3), "input.channels: got 3, expected 4 where dtype is uint8"),
        (dict(dtype="float32"), "input.channels: got 4, expected 3 where dtype is float32"),
        (dict(layout="NCHW"), "input.layout: got 'NCHW', expected 'NHWC' where dtype is uint8"),
        (dict(pad_value=114.5), "input.pad_value: got 114.5, expected an integer in 0 to 255"),
        (dict(pad_value=-1.0), "input.pad_value: got -1.0, expected an integer in 0 to 255"),
        (dict(pad_value=256), "input.pad_value: got 256, expected an integer in 0 to 255"),
    ],
)
def test_faults_of_an_input_of_bytes_are_named(change, message):
    with pytest.raises(UserError, match=message):
        replace(SPEC.input.of_bytes(), **change)


def test_a_file_is_known_by_its_size_and_digest(tmp_path):
    path = tmp_path / "draft.bin"
    path.write_bytes(b"abc")
    file = ArtifactFile.of(path, "model.bin")
    assert file == ArtifactFile("model.bin", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", 3)
    file.check(path, "model.json")
    for content, error in (
        (b"abcd", r"got 4 bytes, expected 3 as model\.json states"),
        (b"abd", "got the SHA-256 a52d"),
    ):
        path.write_bytes(content)
        with pytest.raises(UserError, match=rf"draft\.bin: {error}"):
            file.check(path, "model.json")
    path.unlink()
    with pytest.raises(UserError, match=r"draft\.bin: no such file, but model\.json names it"):
        file.check(path, "model.json")


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
        (dict(schema=3), "schema: got 3, expected 1 or 2; a newer one needs a newer efftasks"),
        (dict(schema=True), "schema: got True"),
        (dict(task="tracking"), "task: got 'tracking', expected one of detection, "),
        (dict(precision="fp8"), "precision: got 'fp8', expected one of fp32, fp16, int8"),
        (dict(backend="../x"), "backend: got '../x', expected the name of an exporter"),
        (dict(decode="later"), "decode: got 'later', expected one of inside, outside"),
        (dict(decode="outside"), "decoder: got none where decode is 'outside'"),
        (dict(decoder=dict(name="top-pairs", max_detections=9)), "decoder: got an object where decode is 'inside'"),
        (dict(decode="outside", decoder=dict(name="", max_detections=9)), "decoder.name: got ''"),
        (dict(decode="outside", decoder=dict(name="a", max_detections=0)), "decoder.max_detections: got 0"),
        (dict(quantization={}), "quantization: got an object, expected none where the precision is fp32"),
        (dict(palette=[[0, 0, 256]]), r"palette: got \(0, 0, 256\), expected numbers in 0 to 255"),
        (dict(palette=[[0, 0, 2.5]]), "palette: got .*, expected rows of 3 integers"),
        (dict(versions={"torch": 2}), "versions: got .*, expected an object of texts"),
        (dict(input={**asdict(SPEC.input), "layout": "HWC"}), "input.layout: got 'HWC', expected one of NCHW, NHWC"),
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
        (dict(outputs=[output(shape=[])]), r"outputs.shape: got \(\), expected a list of integers from 1 and names"),
        (dict(outputs=[output(shape=["N", 0])]), "outputs.shape: got .*'N', 0"),
        (dict(outputs=[output(shape=["", 4])]), "outputs.shape"),
        (dict(outputs=[output(dtype="float")]), "outputs.dtype: got 'float', expected one of float32"),
        (dict(outputs=[output(), output()]), "outputs: got the names boxes, boxes, expected each once"),
        (dict(files=[dict(name="a/b", sha256="0" * 64, bytes=1)]), "files.name: got 'a/b'"),
        (dict(files=[dict(name="..", sha256="0" * 64, bytes=1)]), "files.name: got '..'"),
        (dict(files=[dict(name="a", sha256="0" * 63, bytes=1)]), "files.sha256: got '000"),
        (dict(files=[dict(name="a", sha256="0" * 64, bytes=-1)]), "files.bytes: got -1"),
        (dict(files=2 * [dict(name="a", sha256="0" * 64, bytes=1)]), "files: got the names a, a, expected each once"),
        (dict(files=[dict(name="a", sha256="0" * 64)]), r"files\[0\]: field 'bytes' is missing"),
        (dict(comparison={}), "comparison.kind: got None, expected one of tolerance, detections"),
        (dict(comparison=dict(kind="tolerance", box_px=-1)), "comparison.box_px: got -1, expected a number from 0"),
        (dict(comparison=dict(kind="detections", least_share=2)), "comparison.least_share: got 2, .* in 0 to 1"),
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
