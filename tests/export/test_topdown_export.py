"""A top-down pose estimator on the command line: crops of given boxes, exported, verified, scored."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from efftasks import apis
from efftasks.cli.main import main
from efftasks.runtime.topdown import TopDownPredictor
from efftasks.structures.errors import UserError

CONFIG = "simcc-n_mobilenetv4-conv-s_1xb16-60e_gluetubes-256"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three pictures with two objects each, and one without any."""
    root = tmp_path_factory.mktemp("tubes")
    (root / "images").mkdir()
    (root / "annotations").mkdir()
    random = np.random.default_rng(0)
    images: list[dict] = []
    objects: list[dict] = []
    for i in range(4):
        coarse = random.integers(0, 255, (6, 8, 3), dtype=np.uint8)
        cv2.imwrite(str(root / f"images/{i}.png"), cv2.resize(coarse, (160, 120), interpolation=cv2.INTER_CUBIC))
        images.append(dict(id=i + 1, file_name=f"{i}.png", width=160, height=120))
        for x, y in ((10, 20), (80, 40)) if i < 3 else ():
            points = [x + 5, y + 5, 2, x + 30, y + 40, 2]
            facts = dict(bbox=[x, y, 40, 50], area=2000, iscrowd=0, keypoints=points, num_keypoints=2)
            objects.append(dict(id=len(objects) + 1, image_id=i + 1, category_id=1, **facts))
    category = dict(id=1, name="glue tube", keypoints=["head", "tail"], skeleton=[[1, 2]])
    found = dict(images=images, annotations=objects, categories=[category])
    for split in ("train", "val"):
        (root / f"annotations/{split}.json").write_text(json.dumps(found))
    return root


@pytest.fixture(scope="module")
def options(data: Path) -> list[str]:
    return ["--cfg-options", f"data_root={data}", "image_size=(96,64)"]


@pytest.fixture(scope="module")
def checkpoint(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    cfg = apis.load_config(CONFIG, {"data_root": str(data), "image_size": (96, 64)})
    model = apis.build(cfg)
    path = tmp_path_factory.mktemp("topdown") / "model.pth"
    meta = dict(classes=("glue tube",), keypoints=cfg.keypoints.to_dict())
    torch.save(dict(state_dict=model.state_dict(), meta=dict(dataset_meta=meta)), path)
    return path


@pytest.fixture(scope="module")
def artifact(checkpoint: Path, options: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported")
    words = ["export", CONFIG, str(checkpoint), "--backend", "onnx", "--out", str(out), "--eval"]
    assert main([*words, *options]) == 0
    return out / "model.onnx"


def test_the_file_is_verified_and_scores_as_the_model_does(artifact, checkpoint, options, tmp_path):
    sidecar = json.loads(artifact.with_suffix(".json").read_text())
    assert sidecar["task"] == "top-down pose" and sidecar["verify"]["passed"]
    assert sidecar["keypoints"] == ["head", "tail"]
    scores = []
    for model in (checkpoint, artifact):
        assert main(["test", CONFIG, str(model), "--out", str(tmp_path / "metrics.json"), *options]) == 0
        scores.append(json.loads((tmp_path / "metrics.json").read_text()))
    assert scores[0] == pytest.approx(scores[1], abs=0.002)


def test_keypoints_of_given_boxes(artifact, data):
    boxes = [[10, 20, 50, 70], [80, 40, 120, 90]]
    found = TopDownPredictor(artifact)(str(data / "images/0.png"), boxes)
    assert found.keypoints is not None and found.keypoints.shape == (2, 2, 3)
    np.testing.assert_allclose(found.boxes, boxes)


def test_a_file_of_bytes_gives_the_same_keypoints(artifact, checkpoint, data, options, tmp_path):
    words = ["export", CONFIG, str(checkpoint), "--backend", "onnx", "--input", "uint8", "--out", str(tmp_path)]
    assert main([*words, *options]) == 0
    boxes = [[-20, -10, 50, 70], [80, 40, 170, 130], [5, 5, 40, 30]]  # beyond the picture, too
    floats, of_bytes = (TopDownPredictor(path, batch_size=2) for path in (artifact, tmp_path / "model.onnx"))
    assert of_bytes.spec.input.dtype == "uint8" and of_bytes.spec.verify["passed"]
    expected, keypoints = (model(str(data / "images/0.png"), boxes).keypoints for model in (floats, of_bytes))
    assert expected is not None and keypoints is not None and expected.std(0).max() > 1
    np.testing.assert_allclose(keypoints, expected, atol=1e-3)


def test_what_needs_boxes_says_so(artifact, checkpoint, data, options, tmp_path, capsys):
    assert main(["predict", str(artifact), str(data / "images")]) == 2
    assert "use TopDownPredictor" in capsys.readouterr().err
    words = ["export", CONFIG, str(checkpoint), "--backend", "onnx", "--out", str(tmp_path)]
    assert main([*words, "--images", str(data / "images"), *options]) == 2
    assert "boxes" in capsys.readouterr().err
    model = apis.load(apis.load_config(CONFIG, {"data_root": str(data), "image_size": (96, 64)}), checkpoint)
    with pytest.raises(UserError, match="boxes"):
        apis.predict(model, str(data / "images/0.png"))
