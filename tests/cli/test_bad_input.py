"""What users do wrong, through the command line: one clear sentence, the right exit code, no traceback."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch

from efftasks import apis
from efftasks.cli.main import main
from efftasks.datasets.shapes import write_shapes

CONFIG = "o2o-n_mobilenetv4-conv-s_1xb16-18e_shapes-128"


@pytest.fixture(autouse=True)
def _quiet_handlers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A logger of an earlier test may still hold that test's captured stream, which is closed by now."""
    monkeypatch.setattr(logging, "raiseExceptions", False)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shapes(tmp_path_factory.mktemp("data") / "shapes", train=4, val=2, size=64, seed=0)


def check_failure(capsys: pytest.CaptureFixture[str], words: list[str], code: int, *said: str) -> None:
    assert main(words) == code
    error = capsys.readouterr().err
    last = error.strip().splitlines()[-1]
    assert last.startswith("error: ") and "Traceback" not in error
    for part in said:
        assert part in last


def train(shapes: Path, tmp_path: Path, *options: str) -> list[str]:
    return ["train", CONFIG, "--work-dir", str(tmp_path / "run"), "--cfg-options", f"data_root={shapes}/", *options]


def test_a_missing_config_and_a_near_name(capsys, tmp_path):
    check_failure(capsys, ["train", str(tmp_path / "none.py")], 2, "none.py: no such config file")
    check_failure(capsys, ["train", CONFIG.replace("18e", "19e")], 2, f"did you mean '{CONFIG}'")


def test_a_config_that_does_not_parse(capsys, tmp_path):
    (tmp_path / "bad.py").write_text("model = dict(\n")
    check_failure(capsys, ["train", str(tmp_path / "bad.py")], 2, "bad.py: the config does not parse")


def test_a_typo_in_a_registered_type(capsys, shapes, tmp_path):
    check_failure(capsys, train(shapes, tmp_path, "model.neck.type=LightPan"), 2, "LightPan", "LightPAN")


def test_missing_data_and_empty_annotations(capsys, shapes, tmp_path):
    check_failure(capsys, train(tmp_path / "nowhere", tmp_path), 2, "annotations/train.json", "cannot be read")
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations/train.json").write_text("")
    check_failure(capsys, train(tmp_path, tmp_path), 2, "train.json", "empty")


def test_a_class_list_that_does_not_fit(capsys, shapes, tmp_path):
    check_failure(capsys, train(shapes, tmp_path, "classes=(circle,squares)"), 2, "'squares'", "did you mean 'square'?")
    check_failure(capsys, train(shapes, tmp_path, "model.head.num_classes=5"), 2, "num_classes: got 5, expected 6")


def test_checkpoints_that_do_not_fit(capsys, shapes, tmp_path):
    words = ["--cfg-options", f"data_root={shapes}/"]
    torch.save({"state_dict": {"backbone.x": torch.zeros(1)}, "meta": {}}, tmp_path / "other.pth")
    check_failure(
        capsys,
        ["test", CONFIG, str(tmp_path / "other.pth"), *words],
        2,
        "another architecture",
        "missing",
        "unexpected",
    )
    whole = (tmp_path / "other.pth").read_bytes()
    (tmp_path / "half.pth").write_bytes(whole[: len(whole) // 2])
    check_failure(
        capsys, ["test", CONFIG, str(tmp_path / "half.pth"), *words], 2, "half.pth: truncated, or not a checkpoint"
    )
    check_failure(capsys, ["test", CONFIG, str(tmp_path / "none.pth"), *words], 2, "none.pth: no such checkpoint file")
    check_failure(capsys, ["test", CONFIG, str(tmp_path / "none.onnx"), *words], 2, "none.onnx: no such file")


def test_predict_with_a_checkpoint_needs_its_config(capsys, tmp_path):
    (tmp_path / "a.pth").write_bytes(b"")
    check_failure(capsys, ["predict", str(tmp_path / "a.pth"), "x.jpg", "--out", str(tmp_path)], 2, "--config: missing")


@pytest.mark.slow
def test_a_file_that_does_not_agree_is_not_shipped(capsys, shapes, tmp_path, monkeypatch):
    model = apis.build(apis.load_config(CONFIG, {"data_root": f"{shapes}/"}))
    for scores, sides in zip(model.head.one_to_one.classes, model.head.one_to_one.boxes):
        torch.nn.init.normal_(scores[-1].weight, 0.0, 0.3)  # fresh scores all tie; these spread
        torch.nn.init.normal_(sides[-1].weight, 0.0, 1e-3)  # boxes of some strides, as a trained model has them
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # one batch gives the statistics: with fresh ones features fade out
    with torch.no_grad():
        model.train()(torch.rand(4, 3, 192, 192))
    meta = dict(dataset_meta=dict(classes=apis.load_config(CONFIG).classes, category_ids=[1, 2, 3, 4, 5, 6]))
    torch.save({"state_dict": model.state_dict(), "meta": meta}, tmp_path / "a.pth")
    words = ["export", CONFIG, str(tmp_path / "a.pth"), "--out", str(tmp_path / "out")]
    words += ["--num-images", "2", "--cfg-options", f"data_root={shapes}/"]
    fused = apis.fuse

    def shifted(network):
        wrong = fused(network)
        wrong.head.strides = tuple(2 * stride for stride in wrong.head.strides)
        return wrong

    monkeypatch.setattr("efftasks.apis.exporting.fuse", shifted)
    check_failure(capsys, words, 1, "model.onnx.unverified", "was not shipped")
    assert not (tmp_path / "out/model.onnx").exists() and (tmp_path / "out/model.onnx.unverified").exists()
    monkeypatch.setattr("efftasks.apis.exporting.fuse", fused)
    assert main(words) == 0
    sidecar = json.loads((tmp_path / "out/model.json").read_text())
    assert sidecar["verify"]["passed"] is True and sidecar["classes"][0] == "circle"
