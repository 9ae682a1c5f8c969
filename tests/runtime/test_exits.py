"""Exported files with an early exit: what they give, what runs, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from efftasks import Predictor
from efftasks.cli.main import main
from efftasks.export.exporters.table import EXPORTERS
from efftasks.runtime.artifact import Artifact
from efftasks.structures.errors import UserError, WorkError

SCORES = (0.2, 0.8, 0.4)  # of the pictures: the middle one leaves at 0.5
KINDS = [
    ("if", "onnx"),
    ("if", "openvino"),
    ("split", "onnx"),
    pytest.param("split", "openvino", marks=pytest.mark.slow),
]


@pytest.fixture(scope="module")
def toys(module_at: Callable[[Path], ModuleType]) -> Any:
    return module_at(Path(__file__).resolve().parents[1] / "fixtures" / "early_exit.py")


@pytest.fixture(scope="module")
def model(toys: Any) -> Any:
    return toys.TwoAnswers().eval()


@pytest.fixture(scope="module")
def written(toys: Any, model: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """The file of a form by an exporter, written once."""
    made: dict[tuple[str, str], Path] = {}

    def path(form: str, name: str) -> Path:
        if EXPORTERS[name].missing:
            pytest.skip(f"{name} is not installed")
        if (form, name) not in made:
            made[form, name] = toys.write(model, tmp_path_factory.mktemp("exits"), form, EXPORTERS[name])
        return made[form, name]

    return path


@pytest.fixture
def copied(written: Callable[[str, str], Path], tmp_path: Path) -> Callable[[str], Path]:
    """A copy of the ONNX files of a form, to be spoilt."""
    return lambda form: Path(shutil.copytree(written(form, "onnx").parent, tmp_path / form), "model.onnx")


def picture(score: float) -> np.ndarray:
    """An image (64, 64, 3) whose mean is this, of pixels scaled to [0, 1]."""
    noise = np.random.default_rng(int(100 * score)).normal(0, 20, (64, 64, 3))
    return (255 * score + noise - noise.mean()).clip(0, 255).round().astype(np.uint8)


PICTURES = [picture(score) for score in SCORES]


def network_input() -> torch.Tensor:
    return torch.from_numpy(np.stack(PICTURES)[..., ::-1].transpose(0, 3, 1, 2).astype(np.float32) / 255)


@pytest.mark.parametrize(("form", "exporter"), KINDS)
@pytest.mark.parametrize("threshold", [0, 0.5, 2])
def test_files_give_what_the_model_gives_on_both_paths(form, exporter, threshold, written, toys):
    expected = toys.TwoAnswers(threshold).eval().infer(network_input())
    predictions = Predictor(written(form, exporter), exit_threshold=threshold)(PICTURES, batch_size=3)
    for i, prediction in enumerate(predictions):
        assert prediction.exited == (SCORES[i] >= threshold)
        assert prediction.exit_score == pytest.approx(SCORES[i], abs=0.01)
        np.testing.assert_allclose(prediction.scores, expected.scores[i].detach(), atol=1e-5)
        np.testing.assert_allclose(prediction.boxes, expected.boxes[i].detach().clamp(0, 64), atol=1e-3)
        assert np.array_equal(prediction.labels, expected.labels[i])


def test_the_two_paths_differ(toys):
    images = network_input()
    ends = [toys.TwoAnswers(threshold).eval().infer(images).scores for threshold in (0, 2)]
    assert (ends[0] - ends[1]).abs().max() > 0.1


@pytest.mark.parametrize(("form", "exporter"), KINDS)
def test_the_threshold_of_the_file_holds_where_none_is_given(form, exporter, written):
    predictor = Predictor(written(form, exporter))
    assert predictor.session.exit_threshold == 0.5
    assert [prediction.exited for prediction in predictor(PICTURES)] == [False, True, False]


@pytest.mark.parametrize(("form", "batch", "threads"), [("if", 1, 1), ("split", 2, 1), ("split", 3, 2)])
def test_a_stream_gives_the_same(form, batch, threads, written, tmp_path):
    for i in range(9):
        cv2.imwrite(str(tmp_path / f"{i}.png"), PICTURES[i % 3])
    predictor = Predictor(written(form, "onnx"))
    streamed = list(predictor.stream(str(tmp_path), batch, readers=threads))
    assert [prediction.exited for prediction in streamed] == [False, True, False] * 3
    for prediction, expected in zip(streamed, predictor(PICTURES * 3)):
        np.testing.assert_allclose(prediction.scores, expected.scores, atol=1e-6)
        assert prediction.exit_score == pytest.approx(expected.exit_score)


class Counting:
    """A session that counts the images it runs on."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self.batches: list[int] = []

    def run_named(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.batches.append(len(next(iter(inputs.values()))))
        return self._session.run_named(inputs)


def test_the_rest_runs_on_the_images_that_go_on_alone(written):
    predictor = Predictor(written("split", "onnx"))
    network: Any = predictor.session._network
    network._rest = counting = Counting(network._rest)
    for threshold in (0, 0.5, 2):
        predictor.session.exit_threshold = threshold
        predictor(PICTURES, batch_size=3)
    assert counting.batches == [2, 3]


def test_an_image_that_scores_the_threshold_exits(written):
    for form in ("if", "split"):
        predictor = Predictor(written(form, "onnx"))
        score = predictor(PICTURES[1])[0].exit_score
        assert score is not None
        for threshold, exited in ((score, True), (float(np.nextafter(np.float32(score), np.float32(1))), False)):
            predictor.session.exit_threshold = threshold
            assert predictor(PICTURES[1])[0].exited is exited


@pytest.mark.parametrize("threshold", [-0.1, float("nan"), float("inf"), "0.5"])
def test_a_threshold_is_a_number_from_0(threshold, written):
    with pytest.raises(UserError, match=r"exit_threshold: got .*, expected a number from 0"):
        Predictor(written("if", "onnx"), exit_threshold=threshold)


def test_a_file_without_an_exit_takes_no_threshold(toys, model, tmp_path):
    path = toys.write(model, tmp_path, None, EXPORTERS["onnx"])
    with pytest.raises(UserError, match=r"exit_threshold: got 0.5, but .*model\.onnx has no early exit"):
        Predictor(path, exit_threshold=0.5)
    whole = Predictor(path)(PICTURES)
    assert [(prediction.exited, prediction.exit_score) for prediction in whole] == [(None, None)] * 3
    late = toys.TwoAnswers(2).eval().infer(network_input())
    np.testing.assert_allclose([prediction.scores for prediction in whole], late.scores.detach(), atol=1e-5)


def test_a_batch_is_refused_by_a_file_that_decides_itself(written):
    artifact = Artifact(written("if", "onnx"))
    with pytest.raises(WorkError, match="cannot run it on an input float32"):
        artifact.run(np.zeros((2, 3, 64, 64), np.float32))


def test_the_second_file_is_a_part(copied):
    path = copied("split")
    rest = path.with_name("model.rest.onnx")
    content = rest.read_bytes()
    rest.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(UserError, match=r"model\.rest\.onnx: got the SHA-256"):
        Predictor(path)
    rest.unlink()
    with pytest.raises(UserError, match=r"model\.rest\.onnx: no such file, but model\.json names it"):
        Predictor(path)
    path.with_suffix(".json").unlink()
    with pytest.raises(UserError, match=r"model\.rest\.onnx: no such file, but model\.onnx is the first part"):
        Predictor(path)


def test_a_second_file_of_another_network_is_refused(copied, written):
    path = copied("split")
    path.with_suffix(".json").unlink()
    shutil.copy(path, path.with_name("model.rest.onnx"))
    with pytest.raises(UserError, match=r"model\.rest\.onnx: inputs: got images, expected maps as model\.onnx states"):
        Predictor(path)


def test_the_second_file_alone_is_no_artifact(copied):
    path = copied("split").with_name("model.rest.onnx")
    with pytest.raises(
        UserError, match=r"model\.rest\.onnx: got the second part .*, expected the first one: .*model\.onnx"
    ):
        Predictor(path)


@pytest.mark.skipif(bool(EXPORTERS["ncnn"].missing), reason="ncnn is not installed")
def test_a_runtime_of_one_input_refuses_an_exit(copied, tmp_path):
    for suffix in (".param", ".bin"):
        (tmp_path / f"model{suffix}").write_bytes(b"7767517\n")
    described = json.loads(copied("split").with_suffix(".json").read_text())
    (tmp_path / "model.json").write_text(json.dumps({**described, "files": []}))
    with pytest.raises(
        UserError, match=r"early_exit: got 'split', but ncnn runs .* expected one of onnxruntime, openvino"
    ):
        Predictor(tmp_path / "model.param")


def test_the_command_says_how_many_left_early(written, tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    for i, image in enumerate(PICTURES):
        cv2.imwrite(str(tmp_path / "photos" / f"{i}.png"), image)
    line = [
        "predict",
        str(written("if", "onnx")),
        str(tmp_path / "photos"),
        "--no-draw",
        "--out",
        str(tmp_path / "out"),
    ]
    for options, said in (
        ([], "1 left at the early exit (33.3%)"),
        (["--exit-threshold", "0.3"], "2 left at the early exit (66.7%)"),
    ):
        assert main([*line, *options]) == 0
        assert said in capsys.readouterr().out
