"""Fitting a rule for input sizes: it finds the rule of a made problem, and says how good it is through the command."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from efftasks.apis.fitting_sizes import fit_rule
from efftasks.apis.size_rows import SizeRuns, chosen_sizes
from efftasks.cli.main import main
from efftasks.runtime.size_features import ANSWER_FEATURES, PICTURE_FEATURES
from efftasks.runtime.size_rules import CascadeRule, load_rule
from efftasks.runtime.sizes import open_sizes


def plain_picture(blue: int, green: int, red: int, side: int = 128) -> np.ndarray:
    """A square of one color; its scores are these numbers by 255."""
    return np.full((side, side, 3), (blue, green, red), np.uint8)


Write = Callable[..., Path]
SIZES = [(32, 32), (64, 64), (96, 96)]
COUNT = 20


def made_problem(noise: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Features of 200 images, and losses that depend on the second and fifth."""
    random = np.random.default_rng(0)
    features = random.normal(3, 2, (200, len(ANSWER_FEATURES)))
    small = 0.2 + 0.05 * (features[:, 1] - 3) - 0.02 * (features[:, 4] - 3)
    losses = np.stack([small, small / 2, np.zeros(200)], axis=1)
    return features, losses + random.normal(0, 1, losses.shape) * noise


def test_a_rule_finds_what_losses_depend_on() -> None:
    features, losses = made_problem()
    rule = fit_rule(features, losses, "answer", SIZES)
    np.testing.assert_allclose(rule.losses(features), np.clip(losses, 0, 1), atol=2e-3)
    weights = np.array(rule.weights)[0, :-1] / np.array(rule.std)
    np.testing.assert_allclose(weights[[1, 4]], [0.05, -0.02], rtol=0.01)
    assert np.abs(np.delete(weights, [1, 4])).max() < 1e-3
    # The smallest size whose loss is at most the threshold, which the made losses say, too.
    clear = np.abs(losses[:, :2] - 0.15).min(1) > 3e-3
    expected = (losses <= 0.15).argmax(1)
    rule.threshold = 0.15
    assert [rule.choose(row) for row in features[clear]] == expected[clear].tolist()
    assert set(expected.tolist()) == {0, 1, 2}


def test_noise_alone_gives_nearly_equal_estimates() -> None:
    random = np.random.default_rng(1)
    features = random.normal(size=(40, len(PICTURE_FEATURES)))
    losses = np.abs(random.normal(0.2, 0.1, (40, 3)))
    estimates = fit_rule(features, losses, "picture", SIZES).losses(features)
    assert estimates.std(0).max() < 0.02  # a regression without penalty gives 0.05
    np.testing.assert_allclose(estimates.mean(0), losses.mean(0), atol=1e-6)


def test_a_feature_that_never_changes_says_nothing() -> None:
    features, losses = made_problem()
    features[:, 0] = 7
    rule = fit_rule(features, losses, "answer", SIZES)
    assert np.isfinite(np.array(rule.weights)).all() and rule.std[0] == 1


def test_a_larger_threshold_takes_no_larger_size() -> None:
    features, losses = made_problem(noise=0.1)
    rule = fit_rule(features, losses, "answer", SIZES)
    chosen = []
    for rule.threshold in np.linspace(0, 1, 11).tolist():
        chosen.append([rule.choose(row) for row in features])
    assert all(np.diff(np.array(chosen)[1:], axis=0).ravel() <= 0) and len(set(map(tuple, chosen))) > 3


def test_times_of_a_cascade_are_those_of_all_sizes_that_it_ran(write_sized: Write, tmp_path: Path) -> None:
    predictor = open_sizes(write_sized(tmp_path / "model.onnx"), SIZES, threads=1)
    pictures = [plain_picture(255, 0, 0), plain_picture(128, 0, 0)]
    answers = [[predictor.predict_pixels(i, [picture])[0] for i in range(3)] for picture in pictures]
    nothing = np.zeros((2, len(PICTURE_FEATURES)))
    runs = SizeRuns([{}, {}], ("blue",), answers, np.array([[100.0, 200, 400]] * 2), nothing, np.zeros(2))
    chosen, milliseconds = chosen_sizes(runs, CascadeRule(), SIZES)
    assert chosen.tolist() == [0, 2]
    np.testing.assert_allclose(milliseconds, [100, 700], atol=20)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Pictures of one color with an object of that color in the upper left corner: large where it is bright."""
    (tmp_path / "images").mkdir()
    images, objects = [], []
    for i in range(COUNT):
        bright = i % 2
        cv2.imwrite(str(tmp_path / "images" / f"{i}.png"), plain_picture(250 if bright else 128, 0, 0))
        images.append(dict(id=i + 1, file_name=f"{i}.png", height=128, width=128))
        side = 64 if bright else 32  # of the answers: 16 of 32, or 16 of 64 pixels
        objects.append(dict(id=i + 1, image_id=i + 1, category_id=1, bbox=[0, 0, side, side], area=side**2, iscrowd=0))
    categories = [dict(id=i, name=name) for i, name in enumerate(("blue", "green", "red"), 1)]
    (tmp_path / "annotations").mkdir()
    text = json.dumps(dict(images=images, annotations=objects, categories=categories))
    (tmp_path / "annotations" / "val.json").write_text(text)
    return tmp_path


@pytest.mark.parametrize("looks_at", ["answer", None])
def test_the_command_fits_a_rule_that_tells_the_images_apart(
    write_sized: Write, data: Path, capsys: Any, looks_at: str | None
) -> None:
    model = write_sized(data / "model.onnx")
    words = [
        "test",
        "o2o-n_mobilenetv4-conv-s_1xb16-100e_custom-640",
        str(model),
        "--skip-check",
        "--sizes",
        "32",
        "64",
    ]
    config = ["--cfg-options", f"data_root={data}/", "classes=blue,green,red"]
    rule = data / "rule.json"
    fit = ["--fit-sizes", str(rule), "--size-threshold", "0.2", "--out", str(data / "r.json")]
    fit += [] if looks_at is None else ["--fit-sizes-on", looks_at]
    assert main([*words, *fit, *config]) == 0
    small, large, by_rule = json.loads((data / "r.json").read_text())
    assert (small["size"], large["size"], by_rule["threshold"]) == ("32x32", "64x64", 0.2)
    assert by_rule["coco/bbox_mAP"] > 0.99 > max(small["coco/bbox_mAP"], large["coco/bbox_mAP"])
    assert by_rule["32x32 %"] == by_rule["64x64 %"] == 50
    assert "fitted to these images" in capsys.readouterr().out
    fitted = load_rule(rule)
    assert fitted.sizes == ((32, 32), (64, 64)) and len(fitted.files) == 2
    assert fitted.looks_at == (looks_at or "picture")

    assert main([*words, "--size-rule", str(rule), "--size-threshold", "0.2", "1", *config]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if "by rule" in line]
    assert len(rows) == 2 and "| 50.00 | 50.00 |" in rows[0].replace("50.0 ", "50.00 ")


def test_too_few_images(write_sized: Write, data: Path, capsys: Any) -> None:
    path = data / "annotations" / "val.json"
    few = json.loads(path.read_text())
    few["images"] = few["images"][:5]
    few["annotations"] = few["annotations"][:5]
    path.write_text(json.dumps(few))
    words = ["test", "o2o-n_mobilenetv4-conv-s_1xb16-100e_custom-640", str(write_sized(data / "model.onnx"))]
    words += ["--skip-check", "--sizes", "32", "64", "--fit-sizes", str(data / "rule.json")]
    assert main([*words, "--cfg-options", f"data_root={data}/", "classes=blue,green,red"]) == 2
    assert "has 5 images, expected at least 20" in capsys.readouterr().err


def test_other_classes(write_sized: Write, data: Path, capsys: Any) -> None:
    model = write_sized(data / "model.onnx", classes=("blue", "green", "yellow"))
    words = [
        "test",
        "o2o-n_mobilenetv4-conv-s_1xb16-100e_custom-640",
        str(model),
        "--skip-check",
        "--sizes",
        "32",
        "64",
    ]
    assert main([*words, "--cfg-options", f"data_root={data}/", "classes=blue,green,red"]) == 2
    assert "are not those of the test data" in capsys.readouterr().err
