"""Exported files that are broken, incomplete or of something else: each runs, or one sentence says what to do."""

from __future__ import annotations

import importlib
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from efftasks import Predictor
from efftasks.cli.main import main
from efftasks.export.exporters.onnx import export_onnx
from efftasks.runtime.artifact import Artifact
from efftasks.runtime.backends.base import Backend
from efftasks.runtime.backends.table import BACKENDS
from efftasks.structures.errors import UserError, WorkError
from efftasks.structures.spec import ArtifactFile, ArtifactSpec

PAGE = Path(__file__).parents[2] / "docs" / "bad_input.md"
CONFIG = "o2o-n_mobilenetv4-conv-s_1xb16-18e_shapes-128"
PICTURE = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def whole(detector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported file with its description inside, and no sidecar."""
    model, spec = detector
    return export_onnx(model, spec, tmp_path_factory.mktemp("artifacts") / "whole.onnx")


class Given(NamedTuple):
    """What a case is made of."""

    folder: Path
    whole: Path  # the exported file
    spec: ArtifactSpec

    def write(self, content: bytes, name: str = "model.onnx") -> Path:
        (self.folder / name).write_bytes(content)
        return self.folder / name

    def copy(self) -> Path:
        return Path(shutil.copy(self.whole, self.folder / "model.onnx"))

    def changed(self, change: Callable[[Any], object]) -> Path:
        """The file with a change of its ONNX model."""
        model = onnx.load(str(self.whole))
        change(model)
        onnx.save(model, str(self.folder / "model.onnx"))
        return self.folder / "model.onnx"

    def mute(self) -> Path:
        """The file without its description."""
        return self.changed(lambda model: model.ClearField("metadata_props"))

    def with_sidecar(self, path: Path, **changes: Any) -> Path:
        """Beside a file, a sidecar that states it; a field of None is left out."""
        spec = replace(self.spec, files=(ArtifactFile.of(path),))
        fields = {**json.loads(spec.to_json()), **changes}
        text = json.dumps({key: value for key, value in fields.items() if value is not None})
        path.with_suffix(".json").write_text(text)
        return path

    def openvino(self) -> Path:
        openvino = pytest.importorskip("openvino", reason="OpenVINO is not installed")
        openvino.save_model(openvino.Core().read_model(str(self.whole)), str(self.folder / "model.xml"))
        return self.folder / "model.xml"

    def ncnn(self) -> Path:
        pytest.importorskip("ncnn", reason="ncnn is not installed")
        text = "7767517\n2 2\nInput in 0 1 images\nConvolution c 1 1 images boxes 0=4 1=3 6=108\n"
        self.write(b"\0" * (4 + 108 * 4 + 4 * 4), "model.bin")
        return self.write(text.encode(), "model.param")


def half(path: Path, part: str = "") -> Path:
    """Cut a file, or another one of the artifact, into half."""
    file = path.with_suffix(part) if part else path
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    return path


def emptied(path: Path, part: str) -> Path:
    path.with_suffix(part).write_bytes(b"")
    return path


def without(path: Path, part: str) -> Path:
    path.with_suffix(part).unlink()
    return path


def beside(path: Path, text: str | bytes) -> Path:
    """Write a file of the sidecar's name."""
    path.with_suffix(".json").write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def exchanged(given: Given) -> Path:
    """A file beside the sidecar of another one, which had its name."""
    given.with_sidecar(given.mute())
    return given.copy()


def foreign(given: Given, *inputs: str) -> Path:
    """A classifier of somewhere else, or a network of several inputs."""
    names = inputs or ("input",)
    graph = helper.make_graph(
        [helper.make_node("Sum", list(names), ["sum"]), helper.make_node("ReduceMean", ["sum"], ["logits"])],
        "classifier",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 64, 96]) for name in names],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, str(given.folder / "model.onnx"))
    return given.folder / "model.onnx"


def folder_of_models(given: Given) -> Path:
    given.copy()
    return given.folder


def folder_named_as_a_file(given: Given) -> Path:
    (given.folder / "model.onnx").mkdir()
    return given.folder / "model.onnx"


def newer_opset(model: Any) -> None:
    model.opset_import[0].version = 99


def newer_ir(model: Any) -> None:
    model.ir_version = 99


def unknown_operator(model: Any) -> None:
    model.graph.node[0].op_type = "Abacus"


def wrong_metadata(model: Any) -> None:
    helper.set_model_props(model, {"efftasks": "{"})


RIGHT: dict[str, list[Callable[[Given], Path]]] = {
    "ONNX file alone": [lambda given: given.copy()],
    "ONNX file with a sidecar, without metadata": [lambda given: given.with_sidecar(given.mute())],
    "OpenVINO files alone": [lambda given: given.openvino()],
    "JSON of something else beside a file with metadata": [
        lambda given: beside(given.copy(), "{"),
        lambda given: beside(given.copy(), b"\xff\xfe"),
        lambda given: beside(given.copy(), '{"images": [], "annotations": []}'),
    ],
}
WRONG: dict[str, list[tuple[Callable[[Given], Path], str]]] = {
    "neither metadata nor sidecar": [
        (
            lambda given: given.mute(),
            r"neither metadata 'efftasks' inside nor model\.json .*copy .* or export it again",
        ),
        (lambda given: given.ncnn(), r"model\.param: neither metadata 'efftasks' inside nor model\.json beside it"),
    ],
    "sidecar of another file": [
        (exchanged, r"model\.onnx: got \d+ bytes, expected \d+ as model\.json states"),
        (
            lambda given: given.with_sidecar(
                given.copy(), files=[dict(name="a.onnx", sha256="0" * 64, bytes=given.whole.stat().st_size)]
            ),
            r"model\.onnx: got the SHA-256 .*, expected 0+\.\.\. as model\.json states",
        ),
    ],
    "sidecar that is broken": [
        (lambda given: beside(given.mute(), "{"), r"model\.json: not JSON"),
        (lambda given: beside(given.mute(), b"\xff\xfe"), r"model\.json: not JSON in UTF-8"),
        (lambda given: beside(given.mute(), "[]"), r"model\.json: got a list, expected an object"),
        (lambda given: given.changed(wrong_metadata), r"model\.onnx: not JSON"),
    ],
    "sidecar of a newer schema": [
        (lambda given: given.with_sidecar(given.copy(), schema=9), r"model\.json: schema: got 9, .* a newer efftasks")
    ],
    "sidecar with a missing or wrong field": [
        (lambda given: given.with_sidecar(given.copy(), input=None), r"model\.json: field 'input' is missing"),
        (lambda given: given.with_sidecar(given.mute(), outputs=None), r"model\.json: field 'outputs' is missing"),
        (lambda given: given.with_sidecar(given.copy(), classes="cat"), r"model\.json: classes: got 'cat', expected a"),
    ],
    "newer opset or IR version": [
        (lambda given: given.changed(newer_opset), r"got opset 99, ONNX Runtime [\d.]+ reads up to \d+; update it"),
        (lambda given: given.changed(newer_ir), r"got IR version 99, ONNX Runtime [\d.]+ reads up to \d+; update it"),
    ],
    "unknown operator": [
        (lambda given: given.changed(unknown_operator), r"model\.onnx: ONNX Runtime [\d.]+ cannot load .*Abacus")
    ],
    "truncated file": [
        (lambda given: half(given.copy()), r"model\.onnx: corrupt, or not an ONNX file \("),
        (lambda given: half(given.openvino()), r"model\.xml: corrupt, or not a file that OpenVINO reads"),
        (lambda given: half(given.openvino(), ".bin"), r"model\.xml: corrupt, or not a file that OpenVINO reads"),
        (lambda given: half(given.ncnn()), r"model\.param: corrupt, or not a file that ncnn reads"),
        (lambda given: half(given.ncnn(), ".bin"), r"model\.bin: corrupt, or not a file that ncnn reads"),
    ],
    "empty file": [
        (lambda given: given.write(b""), r"model\.onnx: the file is empty \(0 bytes\)"),
        (lambda given: emptied(given.openvino(), ".bin"), r"model\.bin: the file is empty \(0 bytes\)"),
    ],
    "pointer of Git LFS": [
        (lambda given: given.write(b"version https://git-lfs.github.com/spec/v1\n"), r"got a pointer of Git LFS")
    ],
    "without one of its files": [
        (lambda given: without(given.openvino(), ".bin"), r"model\.bin: no such file, but model\.xml is of no use"),
        (lambda given: without(given.ncnn(), ".bin"), r"model\.bin: no such file, but model\.param is of no use"),
    ],
    "other one of its files": [
        (lambda given: given.openvino().with_suffix(".bin"), r"model\.bin: got a part .* the other one: .*model\.xml"),
        (lambda given: given.ncnn().with_suffix(".bin"), r"model\.bin: got a part .* the other one: .*model\.param"),
    ],
    "sidecar instead of the file": [
        (
            lambda given: given.with_sidecar(given.copy()).with_suffix(".json"),
            r"model\.json: got a description, expected the exported file beside it",
        )
    ],
    "network of something else": [
        (foreign, r"model\.onnx: neither metadata 'efftasks' inside nor model\.json beside it"),
        (
            lambda given: given.with_sidecar(foreign(given)),
            r"model\.onnx: input: its description names \['images'\], the network has \['input'\]",
        ),
        (
            lambda given: given.with_sidecar(foreign(given, "images", "sizes")),
            r"model\.onnx: got a network with the inputs images, sizes, expected one",
        ),
    ],
    "folder": [
        (folder_of_models, r"got a folder, expected an exported file \(\.onnx, .*, such as .*model\.onnx"),
        (folder_named_as_a_file, r"model\.onnx: got a folder, expected"),
    ],
    "missing file": [(lambda given: given.folder / "model.onnx", r"model\.onnx: no such file")],
    "file that no runtime reads": [
        (lambda given: given.write(b"x", "a.h5"), r"a\.h5: no runtime for \.h5, expected an")
    ],
}
OTHER_ROWS = {"checkpoint", "runtime that is not installed", "description that does not fit the network's input"}


@pytest.fixture
def given(tmp_path: Path, whole: Path) -> Given:
    (tmp_path / "model").mkdir()
    return Given(tmp_path / "model", whole, Artifact(whole).spec)


@pytest.fixture
def picture(tmp_path: Path) -> str:
    cv2.imwrite(str(tmp_path / "a.png"), PICTURE)
    return str(tmp_path / "a.png")


@pytest.mark.parametrize(("name", "i"), [(name, i) for name, makers in RIGHT.items() for i in range(len(makers))])
def test_it_runs(name, i, given, picture, tmp_path):
    path = RIGHT[name][i](given)
    (found,), (expected,) = Predictor(path)(PICTURE), Predictor(given.whole)(PICTURE)
    assert Artifact(path).spec.classes == given.spec.classes
    np.testing.assert_allclose(found.scores, expected.scores, atol=2e-3)  # OpenVINO writes halves
    if path.suffix == ".onnx":
        np.testing.assert_array_equal(found.boxes, expected.boxes)
    assert main(["predict", str(path), picture, "--out", str(tmp_path / "out")]) == 0


@pytest.mark.parametrize(("name", "i"), [(name, i) for name, cases in WRONG.items() for i in range(len(cases))])
def test_it_is_one_sentence(name, i, given, picture, tmp_path, capsys):
    make, message = WRONG[name][i]
    path = make(given)
    for load in (Artifact, Predictor):
        with pytest.raises(UserError, match=message) as error:
            load(path)
        assert "\n" not in str(error.value)
    commands = [["predict", str(path), picture, "--out", str(tmp_path / "out")]]
    if path.suffix not in ("", ".bin"):  # for them a config is the first argument, or a checkpoint
        commands += [["test", CONFIG, str(path)], ["benchmark", str(path)]]
    for words in commands:
        assert main(words) == 2
        last = capsys.readouterr().err.strip().splitlines()[-1]
        assert last.startswith("error: ") and re.search(message, last)


def test_a_description_that_does_not_fit_the_input(given, picture, tmp_path, capsys):
    """One that states no files, as old ones do: nothing tells before the first run that it is another's."""

    def wider(model: Any) -> None:
        del model.graph.node[:], model.graph.output[:]
        model.graph.input[0].type.tensor_type.shape.dim[3].ClearField("dim_param")
        model.graph.input[0].type.tensor_type.shape.dim[3].dim_value = 128
        for output in given.spec.outputs:
            value = np.zeros([1, *output.shape[1:]], output.dtype)
            model.graph.initializer.append(onnx.numpy_helper.from_array(value, f"{output.name}_"))
            model.graph.node.append(helper.make_node("Identity", [f"{output.name}_"], [output.name]))
            kind = helper.np_dtype_to_tensor_dtype(value.dtype)
            model.graph.output.append(helper.make_tensor_value_info(output.name, kind, value.shape))

    path = given.changed(wider)
    message = r"model\.onnx: onnxruntime cannot run it on an input float32 \(1, 3, 64, 96\) \(.*Expected: 128.*\)"
    with pytest.raises(WorkError, match=message) as error:
        Predictor(path)(PICTURE)
    assert "\n" not in str(error.value)
    assert main(["predict", str(path), picture, "--out", str(tmp_path / "out")]) == 1
    assert re.search(f"error: .*{message}", capsys.readouterr().err.strip().splitlines()[-1])


def test_a_checkpoint(given, picture, tmp_path, capsys):
    path = given.write(b"x", "best.pth")
    with pytest.raises(
        UserError, match=r"best\.pth: no runtime for \.pth: a checkpoint needs its config .* or an export"
    ):
        Predictor(path)
    assert main(["predict", str(path), picture, "--out", str(tmp_path / "out")]) == 2
    assert "--config: missing, a checkpoint" in capsys.readouterr().err


def test_a_runtime_that_is_not_installed(given, picture, tmp_path, capsys, monkeypatch):
    """All runtimes of the table: tests/runtime/test_backends.py."""

    def load(path: Path, threads: int | None) -> Any:
        return importlib.import_module("abacus_runtime")

    backend = Backend("abacus", ".abacus", (".abacus",), "abacus_runtime", "abacus", load)
    monkeypatch.setitem(BACKENDS, "abacus", backend)
    path = given.write(b"x", "model.abacus")
    assert main(["predict", str(path), picture, "--out", str(tmp_path / "out")]) == 2
    expected = (
        r"model\.abacus: the runtime abacus is not installed .*; install it with: pip install 'efftasks\[abacus\]'"
    )
    assert re.search(expected, capsys.readouterr().err)


def test_the_page_has_a_row_for_each_case():
    section = PAGE.read_text(encoding="utf-8").split("## Exported files")[1].split("\n## ")[0]
    rows = [row.split("|")[1].strip() for row in section.splitlines() if row.startswith("| ")][1:]
    assert sorted(rows) == sorted({*RIGHT, *WRONG, *OTHER_ROWS})
