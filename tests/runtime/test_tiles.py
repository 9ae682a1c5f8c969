"""Objects of large images are found once each, whatever the tiles; with a detector that finds what is bright."""

from __future__ import annotations

import logging
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from efftasks.imaging.prediction import Prediction
from efftasks.runtime.artifact import Artifact
from efftasks.runtime.predictor import Predictor
from efftasks.runtime.tile_settings import TileSettings
from efftasks.runtime.tiles import TiledPredictor
from efftasks.structures.errors import UserError
from efftasks.structures.spec import ArtifactSpec, InputSpec, OutputSpec

SIZE, STRIDE, COUNT = (64, 96), 8, 100
DARK = 8  # gray level up to which a pixel is background


class BlobArtifact(Artifact):
    """Boxes of what is bright in the input, the mean gray level as its score, its strongest channel as its label.

    Also a keypoint at the upper left corner, and a label map of what is bright, where they are asked for.

    Args:
        parts: of ``keypoints``, ``segmentation``, ``masks``; and ``objects``.
        input_facts: of the description of the input.
    """

    def __init__(self, *parts: str, **input_facts: Any) -> None:
        facts: dict[str, Any] = (
            dict(mean=(0, 0, 0), std=(1, 1, 1), pad_value=0.0, color="BGR", divisor=STRIDE) | input_facts
        )
        shapes: dict[str, tuple[Any, ...]] = {}
        if "objects" in parts:
            shapes |= dict(boxes=("N", COUNT, 4), scores=("N", COUNT), labels=("N", COUNT))
        if "keypoints" in parts:
            shapes["keypoints"] = ("N", COUNT, 1, 3)
        if "masks" in parts:
            shapes["masks"] = ("N", COUNT, 16, 24)
        if "segmentation" in parts:
            shapes["segmentation"] = ("N", *SIZE)
        kinds = dict(labels="int64", segmentation="uint8")
        self.path = Path("blobs.onnx")
        self.spec = ArtifactSpec(
            task="detection" if "objects" in parts else "semantic segmentation",
            classes=("blue", "green", "red"),
            category_ids=(1, 2, 3),
            input=InputSpec("images", *SIZE, **facts),
            outputs=tuple(OutputSpec(name, shape, kinds.get(name, "float32"), "") for name, shape in shapes.items()),
            keypoints=("corner",) if "keypoints" in parts else (),
        )
        self.outputs = frozenset(shapes)
        self.lock = threading.Lock()
        self.batches: list[int] = []

    def run_network(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Network input float32 (N, 3, H, W) -> outputs."""
        self.batches.append(len(images))
        rows = [self._look(np.ascontiguousarray(image.transpose(1, 2, 0))) for image in images]
        return {name: np.stack([row[name] for row in rows]) for name in self.outputs}

    def run_apart(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """The same; its arrays are new."""
        with self.lock:
            return self.run_network(images)

    def decode(self, outputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """They are decoded."""
        return outputs

    def _look(self, image: np.ndarray) -> dict[str, np.ndarray]:
        bright = (image.max(2) > DARK).astype(np.uint8)
        _, regions, stats, _ = cv2.connectedComponentsWithStats(bright)
        found = []
        for i, (left, top, width, height, _) in enumerate(stats[1:], 1):
            mean = image[regions == i].mean(0)
            found.append((float(mean.max()) / 255, int(mean.argmax()), (left, top, left + width, top + height)))
        found = sorted(found, reverse=True)[:COUNT]
        boxes, points = np.zeros((COUNT, 4), np.float32), np.zeros((COUNT, 1, 3), np.float32)
        scores, labels = np.zeros(COUNT, np.float32), np.zeros(COUNT, np.int64)
        for row, (score, label, box) in enumerate(found):
            boxes[row], scores[row], labels[row], points[row, 0] = box, score, label, (*box[:2], score)
        return dict(boxes=boxes, scores=scores, labels=labels, keypoints=points, segmentation=bright)


def predictor(*parts: str, score_thr: float = 0.01, **input_facts: Any) -> Predictor:
    """A predictor with it; of objects where nothing else is asked for."""
    return Predictor(BlobArtifact(*(parts or ("objects",)), **input_facts), score_thr=score_thr)


def draw_blobs(
    image: np.ndarray, count: int, sides: tuple[int, int], random: np.random.Generator, grid: int = 1
) -> np.ndarray:
    """Draw rectangles that do not touch; their boxes float32 (K, 4), best first.

    Args:
        image: uint8 (H, W, 3), drawn into.
        count: how many are tried.
        sides: the least and the largest length of a side.
        random: decides.
        grid: corners lie at multiples of it.
    """
    height, width = image.shape[:2]
    boxes: list[tuple[int, int, int, int]] = []
    for level in range(min(count, 200)):
        w, h = (int(n) // grid * grid for n in random.integers(sides[0], sides[1] + 1, 2))
        if w > width or h > height:
            continue
        x, y = (int(random.integers(0, n + 1)) // grid * grid for n in (width - w, height - h))
        if (image[max(0, y - grid) : y + h + grid, max(0, x - grid) : x + w + grid] > 0).any():
            continue
        image[y : y + h, x : x + w, random.integers(3)] = 255 - level  # no two are alike
        boxes.append((x, y, x + w, y + h))
    return np.array(boxes, np.float32).reshape(-1, 4)


SIZES = [(1, 1), (30, 40), (64, 96), (65, 96), (64, 97), (63, 95), (128, 193), (150, 20), (20, 333), (257, 300)]


def tiled(*parts: str, **settings: Any) -> TiledPredictor:
    return TiledPredictor(predictor(*parts), TileSettings(**settings))


def batches(model: TiledPredictor) -> list[int]:
    """How many tiles were run at a time."""
    assert isinstance(model.predictor.session, BlobArtifact)
    return model.predictor.session.batches


def scene(size: tuple[int, int], sides: tuple[int, int], seed: int = 0, count: int = 60, grid: int = 1) -> Any:
    image = np.zeros((*size, 3), np.uint8)
    return image, draw_blobs(image, count, sides, np.random.default_rng(seed), grid)


def assert_exact(prediction: Prediction, image: np.ndarray, boxes: np.ndarray) -> None:
    np.testing.assert_array_equal(prediction.boxes, boxes)
    assert (np.diff(prediction.scores) <= 0).all()
    corners = image[boxes[:, 1].astype(int), boxes[:, 0].astype(int)]
    np.testing.assert_array_equal(prediction.labels, corners.argmax(1))
    np.testing.assert_allclose(prediction.scores, corners.max(1) / 255, atol=1e-6)
    assert prediction.boxes.dtype == prediction.scores.dtype == np.float32 and prediction.labels.dtype == np.int64
    assert prediction.size == image.shape[:2]


@pytest.mark.parametrize("resize", ["letterbox", "stretch"])
@pytest.mark.parametrize("size", SIZES)
def test_every_object_is_found_once(size, resize):
    model = TiledPredictor(predictor(resize=resize), TileSettings())
    assert model.margin == 16
    total = 0
    for seed in range(4):
        image, boxes = scene(size, (1, 32), seed)  # up to two margins
        (prediction,) = model(image, batch_size=3)
        assert_exact(prediction, image, boxes)
        total += len(boxes)
    assert total > 3 or size == (1, 1)


def test_more_objects_than_a_tile_gives():
    image, boxes = scene((600, 600), (2, 5), count=200)
    boxes_alone = predictor()(image)[0].boxes  # made smaller, and at most 100
    assert len(boxes) > COUNT >= len(boxes_alone)
    assert_exact(tiled()(image)[0], image, boxes)


@pytest.mark.parametrize(
    ("resize", "scale"),
    [("letterbox", 0.5), ("letterbox", 2.0), ("stretch", (0.5, 0.25)), ("stretch", 2.0), ("stretch", (1.0, 0.5))],
)
def test_another_scale(resize, scale):
    model = TiledPredictor(predictor(resize=resize), TileSettings(scale=scale))
    image, boxes = scene((260, 380), (8, 15), grid=4)
    (prediction,) = model(image)
    assert len(boxes) > 15 and len(prediction) == len(boxes)
    if scale == 2.0:  # blurs the borders of objects, and with them the scores
        rows, expected = (boxes[np.lexsort(np.round(boxes).T)] for boxes in (prediction.boxes, boxes))
        np.testing.assert_allclose(rows, expected, atol=1.0)
    else:
        np.testing.assert_array_equal(prediction.boxes, boxes)


def test_an_image_that_is_a_tile_is_what_the_predictor_gives():
    image, _ = scene(SIZE, (3, 20))
    (expected,), (prediction,) = predictor()(image), tiled()(image)
    for name in ("boxes", "scores", "labels"):
        np.testing.assert_array_equal(getattr(prediction, name), getattr(expected, name))


def test_large_objects_are_those_of_a_smaller_scale():
    image = np.zeros((256, 384, 3), np.uint8)
    image[40:120, 48:148, 0] = 250  # 100 x 80
    image[200:208, 300:320, 1] = 200  # small, and seen at the smaller scale, too
    image[4:252, 200:216, 2] = 150  # 16 x 248
    boxes = np.array([[48, 40, 148, 120], [300, 200, 320, 208], [200, 4, 216, 252]], np.float32)
    assert len(tiled()(image)[0]) > 3  # cut into pieces
    two, three = tiled(levels=2)(image)[0], tiled(levels=9)(image)[0]
    for prediction in (two, three):
        np.testing.assert_array_equal(prediction.boxes, boxes)
        np.testing.assert_array_equal(prediction.labels, [0, 1, 2])


def test_the_scale_of_an_object_follows_from_its_size_alone():
    """Less than two margins is the tiles', even where both scales see it."""
    model = tiled(levels=2, step=2)
    for side, finest in ((29, True), (30, True), (32, False), (33, False)):
        image = np.zeros((128, 192, 3), np.uint8)
        image[20 : 20 + 2, 10 : 10 + side] = 255
        (prediction,) = model(image)
        # The finest scale has odd sides exactly, the smaller one blurs them to even ones.
        assert prediction.boxes.tolist() == [[10, 20, 10 + side if finest else 10 + side + side % 2, 22]]


def test_a_threshold_of_zero_looks_at_all_tiles():
    image, boxes = scene((500, 700), (8, 30))
    model = tiled(select=0, edges=0)
    assert_exact(model(image)[0], image, boxes)
    assert model.counts.skipped == 0 and model.counts.done == len(model.grids(image.shape[:2])[0].tiles)


def clusters() -> tuple[np.ndarray, np.ndarray]:
    """Objects in two corners of a large image."""
    image = np.zeros((700, 700, 3), np.uint8)
    first = draw_blobs(image[:100, :100], 12, (9, 30), np.random.default_rng(0))
    corner = np.zeros((100, 200, 3), np.uint8)
    second = draw_blobs(corner, 12, (9, 30), np.random.default_rng(1)) + [500, 600, 500, 600]
    image[600:, 500:] = corner
    return image, np.concatenate([first, second]).astype(np.float32)


@pytest.mark.parametrize("settings", [dict(select=0.05), dict(edges=5), dict(select=0.05, edges=5)])
def test_empty_tiles_are_skipped(settings):
    image, boxes = clusters()
    seen: list[tuple[int, int]] = []
    model = TiledPredictor(predictor(), TileSettings(**settings), lambda done, total: seen.append((done, total)))
    (prediction,), (of_all,) = model(image), tiled()(image)
    assert {tuple(box) for box in boxes} == {tuple(box) for box in prediction.boxes}
    np.testing.assert_array_equal(prediction.boxes, of_all.boxes)
    assert model.counts.skipped > 4 * model.counts.done > 0
    assert sum(batches(model)) == len(seen)
    assert [done for done, _ in seen] == list(range(1, len(seen) + 1)) and seen[-1][0] == seen[-1][1]


def test_a_higher_threshold_skips_more():
    image, _ = scene((500, 500), (9, 30), count=120)
    done = []
    for select in (0, 0.3, 0.6, 1.0):
        model = tiled(select=select)
        model(image)
        done.append(model.counts.done)
    assert done == sorted(done, reverse=True) and done[-1] < done[0]


def test_candidates_count_below_the_threshold_of_the_predictor():
    image = np.zeros((500, 500, 3), np.uint8)
    image[300:320, 300:320] = 102  # a score of 0.4; a narrow one, made smaller, has less
    image[100:104, 100:104] = 204
    model = TiledPredictor(predictor(score_thr=0.5), TileSettings(select=0.1))
    (prediction,) = model(image)
    assert prediction.scores.tolist() == pytest.approx([0.8]) and model.counts.done >= 2


def test_nothing_anywhere():
    for settings in (dict(), dict(select=0.5), dict(edges=10), dict(levels=3)):
        (prediction,) = tiled("objects", "keypoints", **settings)(np.zeros((300, 400, 3), np.uint8))
        assert prediction.boxes.shape == (0, 4) and prediction.labels.dtype == np.int64
        assert prediction.keypoints is not None and prediction.keypoints.shape == (0, 1, 3)


def test_keypoints_move_with_their_boxes():
    image, _ = scene((300, 400), (3, 30))
    image[100:102, 100:200] = 60  # of the smaller scale
    (prediction,) = tiled("objects", "keypoints", levels=2)(image)
    assert len(prediction) > 10 and prediction.keypoints is not None
    np.testing.assert_array_equal(prediction.keypoints[:, 0, :2], prediction.boxes[:, :2])
    np.testing.assert_array_equal(prediction.keypoints[:, 0, 2], prediction.scores)


@pytest.mark.parametrize("parts", [("segmentation",), ("objects", "segmentation")])
def test_label_maps_are_put_together_from_the_cores(parts):
    image, _ = scene((257, 301), (1, 60))
    (prediction,) = tiled(*parts)(image)
    np.testing.assert_array_equal(prediction.segmentation, image.max(2) > 0)
    assert (len(prediction) > 0) == ("objects" in parts)


def test_labels_of_skipped_tiles_are_those_of_the_smaller_scale():
    image, _ = clusters()
    image[300:364, 300:396] = 40  # without edges inside
    model = tiled("segmentation", edges=255, levels=1)
    (prediction,) = model(image)
    assert model.counts.done == 0 and prediction.segmentation is not None
    np.testing.assert_array_equal(prediction.segmentation[296:370, 296:400], image[296:370, 296:400].max(2) > 0)
    assert len(tiled("segmentation").grids((700, 700))) == 1  # nothing is run for nothing


@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_stream_gives_what_calls_give(tmp_path, batch_size):
    images = [scene((200 + 20 * i, 300), (3, 30), seed=i)[0] for i in range(3)]
    for i, image in enumerate(images):
        cv2.imwrite(str(tmp_path / f"{i}.png"), image)
    model = tiled(select=0.05)
    expected = [model(image)[0] for image in images]
    streams = (
        model.stream(tmp_path, batch_size, keep_pixels=True),
        model.stream(iter(images), batch_size, readers=2),
        iter(model(images, batch_size)),
    )
    for number, stream in enumerate(streams):
        predictions = list(stream)
        assert len(predictions) == 3
        for one, other, image in zip(predictions, expected, images):
            for name in ("boxes", "scores", "labels"):
                np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
            if number == 0:
                np.testing.assert_array_equal(one.pixels, image)
    assert [Path(str(p.image)).name for p in model.stream(tmp_path)] == ["0.png", "1.png", "2.png"]
    assert max(batches(model)) == batch_size


def test_frames_of_a_video(tmp_path):
    frames = [scene((160, 240), (10, 30), seed=i)[0] for i in range(3)]
    writer = cv2.VideoWriter(str(tmp_path / "v.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (240, 160))
    for frame in frames:
        writer.write(frame)
    writer.release()
    predictions = list(TiledPredictor(predictor(score_thr=0.3)).stream(tmp_path / "v.avi"))
    assert [p.frame for p in predictions] == [0, 1, 2] and predictions[1].stem == "v_000001"


def test_an_image_that_cannot_be_read(tmp_path, caplog):
    (tmp_path / "a.png").write_bytes(b"nothing")
    image, boxes = scene((100, 120), (3, 30))
    cv2.imwrite(str(tmp_path / "b.png"), image)
    model = tiled()
    with pytest.raises(UserError, match=r"a\.png"):
        model(tmp_path)
    with caplog.at_level(logging.WARNING, "efftasks"):
        (prediction,) = model(tmp_path, on_error="skip")
    assert "a.png" in caplog.text and len(prediction) == len(boxes)
    errors: list[UserError] = []
    assert len(list(model.stream(tmp_path, on_error=errors.append))) == 1 and len(errors) == 1


@pytest.mark.parametrize("settings", [dict(), dict(levels=3), dict(select=0.5)])
def test_memory_is_that_of_a_few_batches(settings):
    image = np.zeros((1100, 1100, 3), np.uint8)
    image[1000:1020, 1000:1020] = 255
    model = tiled(**settings)
    model(image[:200, :200])
    tracemalloc.start()
    (prediction,) = model(image, batch_size=4)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(prediction) == 1
    assert peak < 3e6  # all windows together are 11 MB in bytes, and 44 in floats


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(margin=-1), "margin: got -1, expected an integer from 0"),
        (dict(margin=0, levels=2), "margin: got 0, expected an integer from 1"),
        (dict(margin=32), "margin: got 32 on both sides of a core .a multiple of 4., expected less than half .* 64 x"),
        (dict(margin=29), "margin: got 32 on both sides"),
        (dict(scale=0), "scale: got 0, expected one or two numbers"),
        (dict(scale=(1.0, 2.0, 3.0)), "scale: got .1.0, 2.0, 3.0., expected one or two numbers"),
        (dict(select=1.5), "select: got 1.5, expected a score in 0 to 1"),
        (dict(select=float("nan")), "select: got nan"),
        (dict(edges=-1), "edges: got -1, expected gray levels"),
        (dict(levels=0), "levels: got 0, expected an integer from 1"),
        (dict(step=1), "step: got 1, expected a number"),
        (dict(scale=(1.0, 0.5)), "scale: got 1.0 and 0.5, expected one number for a model that keeps the aspect ratio"),
        (dict(side=128), "size: got .128, 128., .* takes 64 x 96 only"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(UserError, match=message):
        tiled(**settings)


def test_another_size_of_the_input():
    model = TiledPredictor(predictor(dynamic_size=True), TileSettings(side=128))
    image, boxes = scene((300, 400), (3, 60))
    assert model.margin == 32 and model.size == (128, 128)
    assert_exact(model(image)[0], image, boxes)
    with pytest.raises(UserError, match="multiples of 8"):
        TiledPredictor(predictor(dynamic_size=True), TileSettings(side=100))


@pytest.mark.parametrize(
    ("size", "stride", "stated", "margin"),
    [
        ((320, 320), 32, None, 64),
        ((640, 640), 32, None, 64),
        ((64, 96), 8, None, 16),
        ((64, 64), 32, None, 16),
        ((224, 224), 32, None, 48),
        ((320, 320), 32, 65, 80),
        ((45, 60), 15, 3, 15),
        ((48, 48), 32, None, 16),
    ],
)
def test_margins(size, stride, stated, margin):
    assert TileSettings(margin=stated).margin_of(size, stride) == margin


def test_what_cannot_be_tiled():
    with pytest.raises(UserError, match="tiles: got a model that gives masks"):
        TiledPredictor(Predictor(BlobArtifact("objects", "masks")))
    with pytest.raises(UserError, match=r"select: got 0\.5, expected 0 for a model without boxes"):
        tiled("segmentation", select=0.5)


def test_wrong_arguments():
    model = tiled()
    image = np.zeros((100, 100, 3), np.uint8)
    wrong: list[dict[str, Any]] = [dict(batch_size=0), dict(readers=0), dict(on_error="what")]
    for arguments in wrong:
        with pytest.raises(UserError, match=next(iter(arguments))):
            model(image, **arguments)
        with pytest.raises(UserError, match=next(iter(arguments))):
            model.stream(image, **arguments)
    with pytest.raises(UserError, match="images: got"):
        model(17)
    with pytest.raises(UserError, match=r"images\[0\]"):
        model(np.zeros((3, 5), float))
