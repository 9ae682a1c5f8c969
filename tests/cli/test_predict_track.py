"""``efftasks predict --track``: numbers in all that is written, with a film of shapes and a file that finds them."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from efftasks.cli.main import main
from efftasks.runtime.predictor import Predictor
from efftasks.runtime.video import Video
from efftasks.structures.spec import ArtifactSpec, InputSpec, OutputSpec

SIDE, FRAMES = 160, 24
COLORS = ((0, 0, 230), (0, 230, 0), (230, 0, 0))  # (b, g, r)


def place(shape: int, frame: int) -> tuple[int, int, int, int]:
    """Box of one of the three shapes; those of 0 and 1 pass one another."""
    x, y = ((6 + 5 * frame, 10), (120 - 5 * frame, 46), (100, 90 + 2 * frame))[shape]
    return x, y, x + 24, y + 22


def picture(frame: int) -> np.ndarray:
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    for shape, color in enumerate(COLORS):
        x1, y1, x2, y2 = place(shape, frame)
        image[y1:y2, x1:x2] = color
    return image


@pytest.fixture
def model(tmp_path: Path) -> str:
    """A file that gives the box of all that is red, green and blue."""
    nodes, boxes = [], []
    for axis, name in ((2, "x"), (3, "y")):  # the axis that is left out
        nodes += [
            helper.make_node("ReduceMax", ["images", f"axis{axis}"], [f"line{name}"], keepdims=0),
            helper.make_node("Greater", [f"line{name}", "half"], [f"is{name}"]),
            helper.make_node("Where", [f"is{name}", "grid", "far"], [f"from{name}"]),
            helper.make_node("Where", [f"is{name}", "grid1", "zero"], [f"to{name}"]),
            helper.make_node("ReduceMin", [f"from{name}", "last"], [f"{name}1"]),
            helper.make_node("ReduceMax", [f"to{name}", "last"], [f"{name}2"]),
        ]
    boxes = ["x1", "y1", "x2", "y2"]
    nodes += [
        helper.make_node("Concat", boxes, ["boxes"], axis=2),
        helper.make_node("Identity", ["scores_"], ["scores"]),
        helper.make_node("Identity", ["labels_"], ["labels"]),
    ]
    values = {
        **{f"axis{axis}": np.array([axis]) for axis in (2, 3)},
        "last": np.array([2]),
        "half": np.float32(0.5),
        "far": np.float32(1e4),
        "zero": np.float32(0),
        "grid": np.arange(SIDE, dtype=np.float32),
        "grid1": np.arange(SIDE, dtype=np.float32) + 1,
        "scores_": np.array([[0.9, 0.8, 0.2]], np.float32),
        "labels_": np.zeros((1, 3), np.int64),
    }
    outputs = {"boxes": ((1, 3, 4), "float32"), "scores": ((1, 3), "float32"), "labels": ((1, 3), "int64")}
    spec = ArtifactSpec(
        task="detection",
        classes=("shape",),
        category_ids=(1,),
        input=InputSpec("images", SIDE, SIDE, mean=(0, 0, 0), std=(255, 255, 255), dynamic_batch=False),
        outputs=tuple(OutputSpec(name, shape, dtype, "") for name, (shape, dtype) in outputs.items()),
    )
    graph = helper.make_graph(
        nodes,
        "colors",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, SIDE, SIDE])],
        [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)
            for name, (shape, dtype) in outputs.items()
        ],
        [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()],
    )
    file = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(file, {"efftasks": spec.to_json()})
    onnx.save(file, str(tmp_path / "model.onnx"))
    return str(tmp_path / "model.onnx")


@pytest.fixture
def film(tmp_path: Path) -> Path:
    path = tmp_path / "film.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 20.0, (SIDE, SIDE))
    for frame in range(FRAMES):
        writer.write(picture(frame))
    writer.release()
    return path


def shape_of(bbox: list[float], frame: int) -> int:
    corners = np.array([bbox[0], bbox[1], bbox[0] + bbox[2], bbox[1] + bbox[3]])
    return int(np.argmin([np.abs(corners - place(shape, frame)).sum() for shape in range(3)]))


@pytest.mark.parametrize("options", [[], ["bytetrack", "--key-frames", "2"], ["sort", "--tiles"]])
def test_numbers_of_a_film(model, film, tmp_path, capsys, options):
    pytest.importorskip("trackers")
    out = tmp_path / "out"
    assert main(["predict", model, str(film), "--out", str(out), "--csv", "--track", *options]) == 0
    assert "tracks: 2" in capsys.readouterr().out
    data = json.loads((out / "predictions.json").read_text())
    frame_of = {image["id"]: image["frame"] for image in data["images"]}
    numbers: dict[int, set[int]] = {0: set(), 1: set()}
    rows = data["annotations"]
    for row in rows:
        if "track_id" in row:
            numbers[shape_of(row["bbox"], frame_of[row["image_id"]])].add(row["track_id"])
    assert sorted(map(len, numbers.values())) == [1, 1] and numbers[0] != numbers[1]  # no switch
    assert sum("track_id" in row for row in rows) >= 2 * (FRAMES - 3) and len(rows) == 2 * FRAMES
    with (out / "predictions.csv").open(newline="") as file:
        written = [row["track_id"] for row in csv.DictReader(file)]
    assert written == [str(row.get("track_id", "")) for row in rows]
    *_, last = Video(out / "film.mp4")
    trail = last.pixels[20:23, 40:100].astype(int)  # where the first shape came from, black in the film
    assert (trail.max(-1) > 60).any(0).mean() > 0.8


@pytest.mark.parametrize(("options", "least"), [(["bytetrack"], 0.1), (["sort"], 0.3)])
def test_the_model_gives_the_low_scores_that_a_tracker_takes(model, film, tmp_path, monkeypatch, options, least):
    pytest.importorskip("trackers")
    given = []

    class Recorded(Predictor):
        def __init__(self, *args: Any, **settings: Any) -> None:
            given.append(settings["score_thr"])
            super().__init__(*args, **settings)

    monkeypatch.setattr("efftasks.runtime.predictor.Predictor", Recorded)
    line = ["predict", model, str(film), "--out", str(tmp_path / "out"), "--no-draw", "--max-frames", "3"]
    assert main([*line, "--track", *options]) == 0
    assert given == [least]


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (["a.png"], "a.png: --track: got one image, expected a video or a folder of its frames"),
        (["b.png", "a.png"], "--track: got no number at the end of the name, expected frames in order"),
    ],
)
def test_images_that_are_no_film(model, tmp_path, capsys, names, problem):
    pytest.importorskip("trackers")
    folder = tmp_path / "frames"
    folder.mkdir()
    for name in names:
        cv2.imwrite(str(folder / name), picture(0))
    assert main(["predict", model, str(folder), "--out", str(tmp_path / "out"), "--track"]) == 2
    assert problem in capsys.readouterr().err


def test_without_the_package(model, film, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "trackers", None)
    assert main(["predict", model, str(film), "--out", str(tmp_path / "out"), "--track"]) == 2
    assert "trackers is not installed" in capsys.readouterr().err and not (tmp_path / "out").exists()
