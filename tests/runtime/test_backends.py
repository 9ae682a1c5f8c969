"""The table of runtimes: each is one entry, and everything reads it. A toy runtime in numpy is such an entry."""

from __future__ import annotations

import builtins
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from efftasks import Predictor
from efftasks.bench.rows import BenchmarkSettings, artifact_rows
from efftasks.cli.main import build_parser, main
from efftasks.runtime.backends.base import Backend
from efftasks.runtime.backends.table import BACKENDS, expected_models, find_backend
from efftasks.runtime.topdown import TopDownPredictor
from efftasks.structures.errors import UserError
from efftasks.structures.spec import ArtifactFile, ArtifactSpec, DecoderSpec, InputSpec, OutputSpec

HEIGHT, WIDTH = 8, 12
SPEC = ArtifactSpec(
    task="detection",
    classes=("dark", "bright"),
    category_ids=(3, 7),
    input=InputSpec("pixels", HEIGHT, WIDTH, mean=(1, 2, 3), std=(10, 20, 40), layout="NHWC", divisor=1),
    outputs=(
        OutputSpec("boxes", ("N", 2, 4), "float32", ""),
        OutputSpec("scores", ("N", 2), "float32", ""),
        OutputSpec("labels", ("N", 2), "int64", ""),
    ),
    backend="toy",
)


class ToySession:
    """Two files, JSON and an array. It gives two boxes, and the mean of red and of blue as their scores."""

    def __init__(self, path: Path, threads: int | None) -> None:
        self.inputs = ("pixels",)
        self.outputs = tuple(json.loads(path.read_text())["outputs"])
        self.metadata = None
        self._boxes = np.load(path.with_suffix(".weights"))
        self._memory: dict[str, np.ndarray] = {}
        self.seen = np.zeros(0)

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        assert images.flags.c_contiguous and images.shape[1:3] == (HEIGHT, WIDTH)
        self.seen = images.copy()
        means = images.mean((1, 2))[:, [0, 2]]
        order = np.argsort(-means, axis=1)
        values = {
            "boxes": self._boxes[order],
            "scores": np.take_along_axis(means, order, 1),
            "labels": order.astype(np.int64),
            "keypoints": np.repeat(means[:, :1, None], 3, 2),
        }
        if not self._memory or len(self._memory["boxes"]) < len(images):
            self._memory = values
        for name, value in values.items():  # the same memory each time, as a runtime may do
            self._memory[name][: len(images)] = value
        return {name: self._memory[name][: len(images)] for name in self.outputs}


TOY = Backend("toy", ".toy", (".toy", ".weights"), module="numpy", extra="toys", load=ToySession)


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKENDS, "toy", TOY)


def write_toy(folder: Path, spec: ArtifactSpec = SPEC) -> Path:
    path = folder / "model.toy"
    path.write_text(json.dumps({"outputs": [output.name for output in spec.outputs]}))
    with path.with_suffix(".weights").open("wb") as file:
        np.save(file, np.array([[0, 0, 4, 4], [2, 2, 10, 6]], np.float32))
    replace(spec, files=tuple(ArtifactFile.of(part) for part in TOY.parts(path))).save(path.with_suffix(".json"))
    return path


def colors(*bgr: tuple[int, int, int]) -> list[np.ndarray]:
    """Pictures of one color each, as large as the input."""
    return [np.broadcast_to(np.array(color, np.uint8), (HEIGHT, WIDTH, 3)).copy() for color in bgr]


def test_a_predictor_runs_on_it_with_channels_last(toy, tmp_path):
    predictor = Predictor(write_toy(tmp_path))
    images = colors((43, 22, 6), (3, 2, 11))
    found = predictor(images, batch_size=2)
    session: Any = predictor.session.session
    np.testing.assert_allclose(session.seen[0], np.full((HEIGHT, WIDTH, 3), [0.5, 1, 1]), rtol=1e-5)
    np.testing.assert_allclose(session.seen[1], np.full((HEIGHT, WIDTH, 3), [1, 0, 0]), atol=1e-6)
    assert [p.labels.tolist() for p in found] == [[1, 0], [0, 1]]
    np.testing.assert_allclose(np.stack([p.scores for p in found]), np.array([[1, 0.5], [1, 0]]), atol=1e-6)
    np.testing.assert_allclose(found[0].boxes, [[2, 2, 10, 6], [0, 0, 4, 4]])


def test_it_may_take_bytes(toy, tmp_path):
    """Reused for a larger and a smaller picture: nothing of the first one stays in the padding."""
    facts = replace(SPEC.input, pad_value=7.0).of_bytes()
    predictor = Predictor(write_toy(tmp_path, replace(SPEC, input=facts)))
    session: Any = predictor.session.session
    predictor([*colors((43, 22, 6), (3, 2, 11)), np.full((4, 12, 3), (1, 2, 3), np.uint8)], batch_size=2)
    assert session.seen.dtype == np.uint8 and session.seen.shape == (1, HEIGHT, WIDTH, 4)
    assert (session.seen[0, :4, :, :3] == (3, 2, 1)).all() and (session.seen[0, 4:, :, :3] == 7).all()


def test_images_are_padded_the_same_in_both_layouts(toy, tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (5, 11, 3), dtype=np.uint8)
    last = Predictor(write_toy(tmp_path))
    first = Predictor(write_toy(tmp_path, replace(SPEC, input=replace(SPEC.input, layout="NCHW"))))
    (a, _), (b, _) = last.preprocess([image]), first.preprocess([image])
    assert a.shape == (1, HEIGHT, WIDTH, 3) and b.shape == (1, 3, HEIGHT, WIDTH)
    np.testing.assert_array_equal(a.transpose(0, 3, 1, 2), b)


def test_what_it_gave_stays_though_the_runtime_uses_its_memory_again(toy, tmp_path):
    predictor = Predictor(write_toy(tmp_path))
    (first,) = predictor(colors((43, 22, 6))[0])
    kept = (first.boxes.copy(), first.scores.copy(), first.labels.copy())
    predictor(colors((3, 2, 11))[0])
    for before, now in zip(kept, (first.boxes, first.scores, first.labels)):
        np.testing.assert_array_equal(before, now)


def test_crops_of_a_top_down_estimator_are_in_its_layout(toy, tmp_path):
    outputs = (OutputSpec("keypoints", ("N", 1, 3), "float32", ""),)
    facts = replace(SPEC.input, resize="crop", std=(1, 1, 1), mean=(0, 0, 0))
    spec = replace(SPEC, task="top-down pose", outputs=outputs, keypoints=("nose",), input=facts)
    predictor = TopDownPredictor(write_toy(tmp_path, spec), batch_size=2)
    predictor(colors((0, 0, 9))[0], [[1, 1, 10, 7]] * 3)
    session: Any = predictor.session.session
    assert session.seen.shape == (1, HEIGHT, WIDTH, 3) and session.seen[0, 4, 6].tolist() == [9, 0, 0]
    predictor = TopDownPredictor(write_toy(tmp_path, replace(spec, input=facts.of_bytes())), batch_size=2)
    predictor(colors((1, 2, 9))[0], [[1, 1, 10, 7]] * 3)
    session = predictor.session.session
    assert session.seen.dtype == np.uint8 and session.seen[0, 4, 6, :3].tolist() == [9, 2, 1]


def test_a_decoder_outside_of_the_file(toy, tmp_path):
    spec = replace(SPEC, decode="outside", decoder=DecoderSpec("top-pairs", 2), outputs=SPEC.outputs[:2])
    assert Predictor(write_toy(tmp_path, spec)).session.outputs == {"boxes", "scores", "labels"}
    for change, error in (
        (dict(decoder=DecoderSpec("soft-nms", 2)), "decoder.name: got 'soft-nms', expected one of top-pairs"),
        (dict(outputs=SPEC.outputs[:1]), "outputs: got boxes, expected boxes, scores and not labels"),
        (dict(outputs=SPEC.outputs), "outputs: got boxes, labels, scores, expected boxes, scores and not labels"),
    ):
        with pytest.raises(UserError, match=error):
            Predictor(write_toy(tmp_path, replace(spec, **change)))


@pytest.mark.parametrize("facts", [SPEC.input, SPEC.input.of_bytes()], ids=["floats", "bytes"])
def test_the_benchmark_times_it(facts, toy, tmp_path, monkeypatch):
    monkeypatch.setattr("efftasks.bench.rows.peak_rss_of", lambda *arguments: None)  # the process knows no toy
    seen: list[np.ndarray] = []

    class Watched(ToySession):
        def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
            seen.append(images)
            return super().run(images)

    monkeypatch.setitem(BACKENDS, "toy", replace(TOY, load=Watched))
    path = write_toy(tmp_path, replace(SPEC, input=facts))
    rows = list(artifact_rows(str(path), None, BenchmarkSettings(backends=("toy",))))
    assert [row["backend"] for row, _ in rows] == ["toy", "toy, end to end"]
    assert rows[0][0]["file MB"] == sum(part.stat().st_size for part in TOY.parts(path)) / 1e6
    assert all(call() > 0 for _, call in rows)
    assert (seen[0].shape, seen[0].dtype) == ((1, HEIGHT, WIDTH, facts.channels), facts.dtype)
    assert len(np.unique(seen[0])) > 100  # random
    assert next(row["backend"] for row, _ in artifact_rows(str(path), None, BenchmarkSettings())) == "toy"


def test_commands_and_messages_name_it(toy, tmp_path, capsys):
    cv2.imwrite(str(tmp_path / "a.png"), colors((43, 22, 6))[0])
    path = write_toy(tmp_path)
    words = ["predict", str(path), str(tmp_path / "a.png"), "--out", str(tmp_path / "out")]
    assert main(words) == 0 and main([*words, "--backend", "toy"]) == 0
    stored = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert stored["annotations"][0]["category_id"] == 7
    with pytest.raises(SystemExit):
        build_parser().parse_args(["benchmark", "--help"])
    assert "toy" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        build_parser().parse_args([*words, "--backend", "abacus"])
    assert "toy" in capsys.readouterr().err
    assert ".toy" in expected_models()
    with pytest.raises(
        UserError, match=r"model\.onnx: no runtime for \.onnx, expected a file that toy reads \(\.toy\)"
    ):
        find_backend(tmp_path / "model.onnx", "toy")


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (lambda path: path.with_suffix(".weights").unlink(), r"model\.weights: no such file"),
        (
            lambda path: path.with_suffix(".weights").write_bytes(b"x"),
            r"model\.weights: got 1 bytes, expected \d+ as mo",
        ),
        (lambda path: path.write_bytes(path.read_bytes()[::-1]), r"model\.toy: got the SHA-256 "),
        (lambda path: path.with_suffix(".json").unlink(), r"model\.toy: neither metadata 'efftasks' inside nor model"),
    ],
)
def test_files_that_are_missing_or_changed_are_named(toy, tmp_path, damage: Callable[[Path], object], error):
    path = write_toy(tmp_path)
    Predictor(path)
    damage(path)
    with pytest.raises(UserError, match=error):
        Predictor(path)


def test_the_artifact_may_have_another_name(toy, tmp_path):
    path = write_toy(tmp_path, replace(SPEC, outputs=SPEC.outputs))
    sidecar = ArtifactSpec.load(path.with_suffix(".json"))
    renamed = path.rename(path.with_name("mine.toy"))
    path.with_suffix(".weights").rename(renamed.with_suffix(".weights"))
    sidecar.save(renamed.with_suffix(".json"))
    (found,) = Predictor(renamed)(colors((43, 22, 6))[0])
    assert found.labels.tolist() == [1, 0]
    # The file that the runtime reads is the one that is checked, not an intact one of the old name.
    weights = renamed.with_suffix(".weights")
    path.with_suffix(".weights").write_bytes(weights.read_bytes())
    weights.write_bytes(bytes(len(weights.read_bytes())))
    with pytest.raises(UserError, match=r"mine\.weights"):
        Predictor(renamed)


@pytest.mark.parametrize("backend", BACKENDS.values(), ids=lambda backend: backend.name)
def test_a_runtime_that_is_not_installed_names_its_extra(backend: Backend, tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.split(".")[0] == backend.module:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *rest, **more)

    for part in backend.parts(tmp_path / f"model{backend.suffix}"):
        part.touch()
    monkeypatch.setattr(builtins, "__import__", without)
    package = "efftasks" if backend.extra is None else rf"'efftasks\[{backend.extra}\]'"
    with pytest.raises(UserError, match=rf"the runtime {backend.name} is not installed .*: pip install {package}$"):
        backend.open(tmp_path / f"model{backend.suffix}")


def test_every_entry_of_the_table_stands_for_itself():
    assert len({backend.suffix for backend in BACKENDS.values()}) == len(BACKENDS)
    for name, backend in BACKENDS.items():
        assert backend.name == name and backend.files[0] == backend.suffix
        assert find_backend(f"a/model{backend.suffix}") is backend
        assert find_backend(f"a/MODEL{backend.suffix.upper()}", name) is backend
        for suffix in backend.also_reads:
            assert find_backend(f"model{suffix}") is not backend and find_backend(f"model{suffix}", name) is backend


def test_a_provider_is_passed_on_and_never_replaced(tmp_path, monkeypatch):
    used: list[str | None] = []

    class Chooses(ToySession):
        def __init__(self, path: Path, threads: int | None, provider: str | None = None) -> None:
            super().__init__(path, threads)
            used.append(provider)

    path = write_toy(tmp_path)
    monkeypatch.setitem(BACKENDS, "toy", replace(TOY, load=Chooses, providers=lambda: ("cpu", "gpu")))
    Predictor(path)
    Predictor(path, provider="GPU")
    assert used == [None, "gpu"]
    outputs = (OutputSpec("keypoints", ("N", 1, 3), "float32", ""),)
    pose = replace(SPEC, task="top-down pose", outputs=outputs, keypoints=("nose",))
    (tmp_path / "pose").mkdir()
    TopDownPredictor(write_toy(tmp_path / "pose", pose), provider="gpu")
    assert used == [None, "gpu", "gpu"]
    with pytest.raises(UserError, match=r"provider: got 'npu', expected one that the installed toy has here: cpu, gpu"):
        Predictor(path, provider="npu")
    monkeypatch.setitem(BACKENDS, "toy", TOY)
    with pytest.raises(UserError, match=r"provider: got 'gpu', but toy has no choice of providers; leave it out"):
        Predictor(path, provider="gpu")


@pytest.mark.parametrize("name", [name for name, backend in BACKENDS.items() if backend.providers is not None])
def test_the_cpu_is_the_default_provider(name):
    backend = BACKENDS[name]
    pytest.importorskip(backend.module)
    assert backend.providers is not None
    providers = backend.providers()
    assert providers[0] == "cpu" and len(set(providers)) == len(providers)
    assert all(provider == provider.lower() for provider in providers)


def test_memory_that_a_runtime_uses_again_is_copied_for_a_stream(toy, tmp_path):
    """The session is three pictures ahead when the first prediction is taken."""
    predictor = Predictor(write_toy(tmp_path))
    pictures = colors(*((43, 22, 6 + 40 * i) for i in range(6)))
    alone = [predictor(picture)[0] for picture in pictures]
    for reference, found in zip(alone, predictor.stream(pictures), strict=True):
        np.testing.assert_array_equal(found.scores, reference.scores)
        np.testing.assert_array_equal(found.boxes, reference.boxes)
    assert len({prediction.scores.tobytes() for prediction in alone}) == 6
