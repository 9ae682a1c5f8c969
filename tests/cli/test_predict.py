"""``efftasks predict``: pictures, predictions.json and what it says, with a file whose answers are known."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image
from pycocotools import mask as coco_masks

from efftasks.apis.entry_predictors import artifact_predictor, entry_predictor
from efftasks.cli.main import main
from efftasks.imaging.prediction import Prediction
from efftasks.runtime.outputs import CsvWriter
from efftasks.runtime.predictor import Predictor
from efftasks.runtime.sidecar import write_score_thresholds
from efftasks.runtime.tile_settings import TileSettings
from efftasks.runtime.video import Video
from efftasks.structures.errors import UserError
from efftasks.structures.spec import ArtifactSpec, InputSpec, OutputSpec


@pytest.fixture
def model(tmp_path: Path) -> str:
    """A file of batch 1 that finds a dog 0.9 at (8, 16) to (40, 48) in every 64 x 64 image, and a cat 0.2."""
    return write_model(tmp_path / "model.onnx", {})


def write_model(path: Path, more: dict[str, np.ndarray], **facts: Any) -> str:
    """The file of :func:`model`, with more outputs."""
    values: dict[str, np.ndarray] = {
        "boxes": np.array([[[8, 16, 40, 48], [0, 0, 9, 9]]], np.float32),
        "scores": np.array([[0.9, 0.2]], np.float32),
        "labels": np.array([[1, 0]], np.int64),
        **more,
    }
    spec = ArtifactSpec(
        task="detection",
        classes=("cat", "dog"),
        category_ids=(3, 7),
        input=InputSpec("images", 64, 64, mean=(0, 0, 0), std=(255, 255, 255), dynamic_batch=False),
        outputs=tuple(OutputSpec(name, value.shape, str(value.dtype), "") for name, value in values.items()),
        **facts,
    )
    graph = helper.make_graph(
        [helper.make_node("Identity", [f"{name}_"], [name]) for name in values],
        "constant",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 64, 64])],
        [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
            for name, value in values.items()
        ],
        [onnx.numpy_helper.from_array(value, f"{name}_") for name, value in values.items()],
    )
    onnx_model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(onnx_model, {"efftasks": spec.to_json()})
    onnx.save(onnx_model, str(path))
    return str(path)


def write_image(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((32, 32, 3), 90, np.uint8))
    return path


def read(out: Path) -> dict:
    return json.loads((out / "predictions.json").read_text())


def test_a_folder(model, tmp_path, capsys):
    for name in ("a.png", "b.png", "c.png"):
        write_image(tmp_path / "photos" / name)
    out = tmp_path / "out"
    assert main(["predict", model, str(tmp_path / "photos"), "--out", str(out), "--batch-size", "2"]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["a.jpg", "b.jpg", "c.jpg", "predictions.json"]
    found = read(out)
    assert [Path(image["file_name"]).name for image in found["images"]] == ["a.png", "b.png", "c.png"]
    assert found["categories"] == [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}]
    # 32 x 32 is enlarged to 64 x 64: half the coordinates
    dog = {"category_id": 7, "bbox": [4.0, 8.0, 16.0, 16.0], "score": 0.9}
    assert found["annotations"] == [{"image_id": i, **dog} for i in (1, 2, 3)]
    assert "3 images" in (said := capsys.readouterr().out) and "3 dog" in said and "cat" not in said
    drawn = cv2.imread(str(out / "a.jpg")).astype(int)
    assert np.abs(drawn[8:24, 3:6] - 90).max() > 40 and np.abs(drawn[28:, 26:] - 90).max() < 20


def test_scores_of_each_class_written_beside_the_file_are_used_and_overridden(model, tmp_path, capsys):
    """The cat scores 0.2 and the dog 0.9: with a threshold each, and with one for both."""
    sidecar = Path(model).with_suffix(".json")
    photo = write_image(tmp_path / "a.png")

    def objects(*options: str) -> list[int]:
        assert main(["predict", model, str(photo), "--out", str(tmp_path / "out"), "--no-draw", *options]) == 0
        return [row["category_id"] for row in read(tmp_path / "out")["annotations"]]

    sidecar.write_text(Predictor(model).spec.to_json())
    assert objects() == [7] and "minimum scores" not in capsys.readouterr().out
    assert write_score_thresholds(model, {"cat": 0.1, "dog": 0.95}) == sidecar
    assert objects() == [3]
    assert f"minimum scores of {model}: cat 0.1, dog 0.95; --score-thr takes one for all" in capsys.readouterr().out
    assert objects("--score-thr", "0.15") == [7, 3]
    assert [len(Predictor(model, score_thr=value)(str(photo))[0]) for value in (None, 0.0, 0.3)] == [1, 2, 1]
    assert Predictor(model, score_thr=None)(str(photo))[0].labels.tolist() == [0]


def test_thresholds_need_a_sidecar_and_leave_the_rest_of_it(model, tmp_path):
    with pytest.raises(UserError, match="the sidecar cannot be read"):
        write_score_thresholds(model, {"cat": 0.1})
    sidecar = Path(model).with_suffix(".json")
    before = json.loads(Predictor(model).spec.to_json())
    sidecar.write_text(json.dumps({**before, "of a newer version": 1}))
    write_score_thresholds(model, {"dog": 0.5})  # the cat was never detected
    assert json.loads(sidecar.read_text()) == {**before, "of a newer version": 1, "score_thresholds": [0.5, 0.5]}
    for values in ([0.5], [0.5, 1.5], ["a", "b"]):
        sidecar.write_text(json.dumps({**before, "score_thresholds": values}))
        with pytest.raises(UserError, match=r"model\.json: score_thresholds: got"):
            Predictor(model)


def test_masks_keypoints_and_a_label_map(tmp_path, capsys):
    regions = np.zeros((1, 64, 64), np.uint8)
    regions[:, 48:] = 1
    masks = np.full((1, 2, 16, 16), -1, np.float32)
    masks[:, 0, :, 5:] = 1  # right of 20
    points = np.array([[[[10, 20, 0.9], [70, 30, 0.5]], [[1, 2, 0.5], [3, 4, 0.5]]]], np.float32)
    outputs: dict[str, np.ndarray] = dict(masks=masks, keypoints=points, segmentation=regions)
    facts = dict(keypoints=("nose", "tail"), skeleton=((0, 1),), semantic_classes=("grass", "sky"))
    model = write_model(tmp_path / "full.onnx", outputs, **facts)
    photo = write_image(tmp_path / "photos" / "a.png")
    assert main(["predict", model, str(photo), "--out", str(tmp_path / "out")]) == 0

    found = read(tmp_path / "out")
    points_said = {"keypoints": ["nose", "tail"], "skeleton": [[1, 2]]}
    assert found["categories"] == [{"id": 3, "name": "cat", **points_said}, {"id": 7, "name": "dog", **points_said}]
    (dog,) = found["annotations"]
    assert dog["keypoints"] == [5, 10, 0.9, 35, 15, 0.5]
    inside = np.zeros((32, 32), np.uint8)
    inside[8:24, 10:20] = 1  # its box is (4, 8) to (20, 24)
    np.testing.assert_array_equal(coco_masks.decode(dog["segmentation"]), inside)
    assert found["semantic_classes"] == ["grass", "sky"] and found["images"][0]["segmentation"] == "labels/a.png"
    with Image.open(tmp_path / "out" / "labels" / "a.png") as labels:
        assert (np.asarray(labels) == (np.arange(32) >= 24)[:, None]).all()
    assert "1 dog, 75.0% grass, 25.0% sky" in capsys.readouterr().out


def test_a_segmenter_without_objects(tmp_path, capsys):
    values = {"segmentation": np.full((1, 64, 64), 1, np.uint8)}
    model = write_model(tmp_path / "semantic.onnx", values)
    stored = onnx.load(model)
    del stored.graph.output[:3]
    spec = ArtifactSpec.from_json(stored.metadata_props[0].value)
    helper.set_model_props(stored, {"efftasks": replace(spec, outputs=spec.outputs[3:]).to_json()})
    onnx.save(stored, model)
    photo = write_image(tmp_path / "photos" / "a.png")
    assert main(["predict", model, str(photo), "--out", str(tmp_path / "out")]) == 0
    found = read(tmp_path / "out")
    assert found["annotations"] == [] and found["categories"] == [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}]
    assert "semantic_classes" not in found and "100.0% dog" in capsys.readouterr().out


def test_threshold_and_glob(model, tmp_path):
    for name in ("a.png", "b.jpg"):
        write_image(tmp_path / "photos" / name)
    line = ["predict", model, str(tmp_path / "photos" / "*.jpg"), "--out", str(tmp_path / "out"), "--score-thr", "0.1"]
    assert main(line) == 0
    assert [x["category_id"] for x in read(tmp_path / "out")["annotations"]] == [7, 3]


def test_same_names_and_the_photos_themselves_are_kept(model, tmp_path):
    photos = [write_image(tmp_path / "photos" / name) for name in ("a.jpg", "a.png", "deep/a.jpg")]
    before = [photo.read_bytes() for photo in photos]
    assert main(["predict", model, str(tmp_path / "photos/**/*.*"), "--out", str(tmp_path / "photos")]) == 0
    assert [photo.read_bytes() for photo in photos] == before
    assert len(list((tmp_path / "photos").glob("a_*.jpg"))) == 3


def test_unreadable_images_are_skipped_and_named(model, tmp_path, capsys):
    write_image(tmp_path / "photos" / "a.png")
    bad = tmp_path / "photos" / "b.png"
    bad.write_bytes(b"no image")
    line = ["predict", model, str(tmp_path / "photos"), "--out", str(tmp_path / "out")]
    assert main([*line, "--batch-size", "2"]) == 0
    assert f"skipped, cannot be read: {bad}: the image does not decode as an image" in capsys.readouterr().out
    assert len(read(tmp_path / "out")["images"]) == 1
    assert main(["predict", model, str(bad), "--out", str(tmp_path / "out")]) == 2
    assert "b.png: the image does not decode as an image" in capsys.readouterr().err


def test_a_video(model, film, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["predict", model, str(film), "--out", str(out), "--csv"]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["film.mp4", "predictions.csv", "predictions.json"]
    found = read(out)
    assert [(image["file_name"], image["frame"]) for image in found["images"]] == [
        (f"film_{i:06d}.jpg", i) for i in range(3)
    ]
    assert len(found["annotations"]) == 3
    assert "3 frames in" in capsys.readouterr().out
    rows = (out / "predictions.csv").read_text().splitlines()
    # 48 x 32 is enlarged to 64 x 43: three fourths of the coordinates, clipped to the frame
    assert rows == [
        "file,frame,class,score,x1,y1,x2,y2",
        *(f"{film},{i},dog,0.9,6.0,11.907,30.0,32.0" for i in range(3)),
    ]
    drawn = Video(out / "film.mp4")
    assert (drawn.count, drawn.fps) == (3, 5.0)
    frames = [frame.pixels.astype(int) for frame in drawn]
    for i, frame in enumerate(frames):
        assert frame.shape == (32, 48, 3) and abs(frame[20:, 36:].mean() - 80 * i) < 12
        assert np.abs(frame[14:30, 4:9] - 80 * i).max() > 40  # the box


def test_pictures_of_the_frames_of_a_video(model, film, tmp_path):
    out = tmp_path / "out"
    assert main(["predict", model, str(film), "--out", str(out), "--save-frames", "--max-frames", "2"]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["film_000000.jpg", "film_000001.jpg", "predictions.json"]
    assert len(read(out)["images"]) == 2


def test_the_video_itself_is_kept(model, film, tmp_path):
    before = film.read_bytes()
    assert main(["predict", model, str(film), "--out", str(tmp_path)]) == 0
    assert film.read_bytes() == before and Video(tmp_path / "film_1.mp4").count == 3


class Camera:
    """Endless frames of 32 x 32."""

    def __init__(self, source: object) -> None:
        assert source == 0

    def isOpened(self) -> bool:
        return True

    def get(self, what: int) -> float:
        return 0.0

    def read(self) -> tuple[bool, np.ndarray]:
        return True, np.full((32, 32, 3), 90, np.uint8)

    def release(self) -> None: ...


def test_a_camera_ends_after_so_many_frames(model, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cv2, "VideoCapture", Camera)
    out = tmp_path / "out"
    assert main(["predict", model, "0", "--out", str(out), "--max-frames", "3"]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["camera0.mp4", "predictions.json"]
    frames = [image["frame"] for image in read(out)["images"]]
    assert len(frames) == 3 and frames == sorted(set(frames))
    assert "3 frames in" in capsys.readouterr().out


def test_an_interrupt_is_the_end_of_a_camera(model, tmp_path, monkeypatch):
    monkeypatch.setattr(cv2, "VideoCapture", Camera)
    add = CsvWriter.add
    rows = []

    def interrupted(self: CsvWriter, name: str, prediction: Prediction) -> None:
        rows.append(name)
        if len(rows) == 3:
            raise KeyboardInterrupt
        add(self, name, prediction)

    monkeypatch.setattr(CsvWriter, "add", interrupted)
    out = tmp_path / "out"
    assert main(["predict", model, "0", "--out", str(out), "--csv", "--no-draw"]) == 0
    assert len(read(out)["images"]) == 2
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("efftasks")]


def test_without_pictures(model, tmp_path):
    for name in ("a.png", "b.png"):
        write_image(tmp_path / "photos" / name)
    assert main(["predict", model, str(tmp_path / "photos"), "--out", str(tmp_path / "out"), "--no-draw"]) == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["predictions.json"]
    assert [(image["height"], image["width"]) for image in read(tmp_path / "out")["images"]] == [(32, 32)] * 2


def test_an_error_keeps_the_results_of_the_run_before(model, tmp_path, capsys):
    photo = write_image(tmp_path / "photos" / "a.png")
    line = ["predict", model, str(photo), "--out", str(tmp_path / "out"), "--csv"]
    assert main(line) == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    photo.write_bytes(b"no image")
    assert main(line) == 2
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_an_interrupt_completes_the_files(model, tmp_path, monkeypatch):
    for i in range(4):
        write_image(tmp_path / "photos" / f"{i}.png")
    add = CsvWriter.add

    def interrupted(self: CsvWriter, name: str, prediction: Prediction) -> None:
        if name.endswith("2.png"):
            raise KeyboardInterrupt
        add(self, name, prediction)

    monkeypatch.setattr(CsvWriter, "add", interrupted)
    out = tmp_path / "out"
    assert main(["predict", model, str(tmp_path / "photos"), "--out", str(out), "--csv"]) == 130
    assert [Path(image["file_name"]).name for image in read(out)["images"]] == ["0.png", "1.png"]
    assert len((out / "predictions.csv").read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--batch-size", "0"], "--batch-size: got 0, expected an integer from 1"),
        (["--score-thr", "30"], "--score-thr: got 30.0"),
        (["--threads", "0"], "threads: got 0"),
        (["--readers", "0"], "--readers: got 0, expected an integer from 1"),
        (["--max-frames", "0"], "--max-frames: got 0, expected an integer from 1"),
        (["--provider", "abacus"], "provider: got 'abacus', expected one that the installed onnxruntime has here: cpu"),
    ],
)
def test_wrong_options(model, tmp_path, capsys, words, said):
    image = write_image(tmp_path / "a.png")
    assert main(["predict", model, str(image), "--out", str(tmp_path / "out"), *words]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_no_image_and_no_model(model, tmp_path, capsys):
    assert main(["predict", model, str(tmp_path / "none"), "--out", str(tmp_path / "out")]) == 2
    assert "none: no image found" in capsys.readouterr().err
    assert main(["predict", str(tmp_path / "none.onnx"), str(tmp_path)]) == 2
    assert "none.onnx: no such file" in capsys.readouterr().err


def test_tiles(model, tmp_path, capsys):
    """A dog in every tile: of the two windows at 0 and 32 its center, 24, lies in the cores 0 to 48 and 48 to 96."""
    image = np.full((64, 96, 3), 90, np.uint8)
    image[:, 50:, 1] = 200
    cv2.imwrite(str(tmp_path / "wide.png"), image)
    out = tmp_path / "out"
    command = ["predict", model, str(tmp_path / "wide.png"), "--out", str(out), "--tiles"]
    assert main(command) == 0
    boxes = [[8.0, 16.0, 32.0, 32.0], [40.0, 16.0, 32.0, 32.0]]
    assert [row["bbox"] for row in read(out)["annotations"]] == boxes
    assert "tiles: 2 looked at, 0 skipped" in capsys.readouterr().out
    assert main([*command, "--tile-edges", "10"]) == 0  # that of 64 at 50, of averaged pixels
    assert [row["bbox"] for row in read(out)["annotations"]] == boxes[1:]
    assert "tiles: 1 looked at, 1 skipped" in capsys.readouterr().out
    assert main([*command, "--tile-scale", "0.5"]) == 0  # 128 x 128 pixels in a tile
    assert [row["bbox"] for row in read(out)["annotations"]] == [[16.0, 32.0, 64.0, 32.0]]  # clipped to the image


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tile-margin", "8"], "--tile-margin: got 8, but there are no tiles without --tiles"),
        (["--tiles", "--tile-margin", "32"], "margin: got 32 on both sides"),
        (["--tiles", "--tile-select", "2"], "select: got 2.0, expected a score"),
        (["--tiles", "--tile-scale", "1", "2", "3"], "scale: got (1.0, 2.0, 3.0)"),
        (["--tiles", "128"], "size: got (128, 128)"),
    ],
)
def test_wrong_tiles(model, tmp_path, capsys, options, message):
    photo = write_image(tmp_path / "a.png")
    assert main(["predict", model, str(photo), "--out", str(tmp_path / "out"), *options]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("name", [None, "dfine-n-coco"])
def test_a_config_belongs_to_a_checkpoint(model, tmp_path, capsys, name):
    photo = write_image(tmp_path / "a.png")
    assert main(["predict", name or model, str(photo), "--config", "x.py", "--out", str(tmp_path / "out")]) == 2
    assert f"--config: got x.py, but {name or model} is no checkpoint" in capsys.readouterr().err


def test_tiles_of_a_checkpoint(tmp_path, capsys):
    photo = write_image(tmp_path / "a.png")
    assert main(["predict", "best.pth", str(photo), "--config", "x.py", "--tiles"]) == 2
    assert "--tiles: got 0, but best.pth is a checkpoint" in capsys.readouterr().err


def test_tiles_of_the_entries_of_a_data_set(model, tmp_path):
    """As `test` predicts."""
    cv2.imwrite(str(tmp_path / "wide.png"), np.full((64, 96, 3), 90, np.uint8))
    predict, classes = artifact_predictor(model, tiles=TileSettings(margin=16))
    (prediction,) = predict([dict(img_path=str(tmp_path / "wide.png"))])
    assert classes == ("cat", "dog") and prediction.filter(0.5).boxes.tolist() == [[8, 16, 40, 48], [40, 16, 72, 48]]
    with pytest.raises(UserError, match=r"--tiles: got best\.pth, a checkpoint"):
        entry_predictor(None, "best.pth", tiles=TileSettings())
