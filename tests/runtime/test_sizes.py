"""One of a few input sizes for each image: what is chosen, by hand; streams, and files of one size."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from efftasks import Predictor
from efftasks.runtime.size_features import ANSWER_FEATURES, PICTURE_FEATURES, answer_features, picture_features
from efftasks.runtime.size_rules import CascadeRule, LearnedRule, load_rule
from efftasks.runtime.sizes import SizedPredictor, open_sizes, parse_sizes
from efftasks.structures.errors import UserError
from efftasks.structures.spec_parts import ArtifactFile


def plain_picture(blue: int, green: int, red: int, side: int = 128) -> np.ndarray:
    """A square of one color; its scores are these numbers by 255."""
    return np.full((side, side, 3), (blue, green, red), np.uint8)


Write = Callable[..., Path]
DECIDED, UNDECIDED, EMPTY = plain_picture(255, 0, 0), plain_picture(128, 0, 0), plain_picture(0, 0, 0)
SIZES = [(32, 32), (64, 64), (96, 96)]


@pytest.fixture
def model(write_sized: Write, tmp_path: Path) -> Path:
    return write_sized(tmp_path / "model.onnx")


def sized(model: Path, *texts: str, **settings: Any) -> SizedPredictor:
    return open_sizes(model, parse_sizes(texts or ("32", "64", "96")), threads=1, **settings)


def by_answer(threshold: float, **changes: Any) -> LearnedRule:
    """Losses of the sizes: all that is undecided at the smallest, half of it at the next, 0 at the last."""
    column = ANSWER_FEATURES.index("log_undecided")
    rows = [[0.0] * (len(ANSWER_FEATURES) + 1) for _ in SIZES]
    rows[0][column], rows[1][column] = 1.0, 0.5
    none = (0.0,) * len(ANSWER_FEATURES)
    ones = (1.0,) * len(ANSWER_FEATURES)
    rule = LearnedRule("answer", tuple(SIZES), none, ones, tuple(map(tuple, rows)), threshold=threshold)
    return replace(rule, **changes)


@pytest.fixture(autouse=True)
def _no_threads_left() -> Iterator[None]:
    yield
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("efftasks")] == []


def test_a_cascade_goes_on_while_objects_are_undecided(model: Path) -> None:
    predictions = sized(model)([DECIDED, UNDECIDED, EMPTY])
    assert [prediction.input_size for prediction in predictions] == [(32, 32), (96, 96), (32, 32)]
    # At the threshold of 1 nothing is too undecided.
    assert {p.input_size for p in sized(model, threshold=1.0)([DECIDED, UNDECIDED])} == {(32, 32)}


def test_a_cascade_goes_on_while_objects_are_small(write_sized: Write, tmp_path: Path) -> None:
    model = write_sized(tmp_path / "small.onnx", side=11)  # on all sizes below the 12 pixels
    assert sized(model)([DECIDED])[0].input_size == (96, 96)
    assert sized(model, threshold=1.0)([DECIDED])[0].input_size == (32, 32)


def test_the_loss_of_a_cascade_by_hand(model: Path) -> None:
    (answer,) = Predictor(model, size=(32, 32))([plain_picture(204, 51, 10)])
    # Scores 0.8 and 0.2 (0.04 is not looked at): 4 s (1 - s) is 0.64 for both.
    assert CascadeRule().loss(answer, (32, 32)) == pytest.approx(0.64, abs=1e-5)
    # Boxes of 16 pixels at 32 are of 8 at 16.
    assert CascadeRule().loss(answer, (16, 16)) == 1.0


@pytest.mark.parametrize(
    ("threshold", "expected"), [(0.0, (96, 96)), (0.3, (96, 96)), (0.4, (64, 64)), (0.69, (64, 64)), (0.7, (32, 32))]
)
def test_a_learned_rule_takes_the_smallest_size_that_loses_little(
    model: Path, threshold: float, expected: tuple[int, int]
) -> None:
    predictor = SizedPredictor(sized(model).predictors, by_answer(threshold))
    # Scores 0.502 alone: log(1 + 1.0) = 0.693, and half of it.
    assert predictor([UNDECIDED])[0].input_size == expected


def test_where_no_size_loses_little_that_of_the_least_loss_is_taken() -> None:
    constants = np.zeros((3, len(PICTURE_FEATURES) + 1))
    constants[:, -1] = 0.5, 0.3, 0.4
    count = len(PICTURE_FEATURES)
    rule = LearnedRule("picture", tuple(SIZES), (0.0,) * count, (1.0,) * count, tuple(map(tuple, constants)))
    assert [replace(rule, threshold=t).first(DECIDED) for t in (0.1, 0.3, 0.45, 0.5)] == [1, 1, 1, 0]


def test_a_rule_on_pictures_runs_only_the_chosen_size(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    column = PICTURE_FEATURES.index("mean")
    rows = np.zeros((3, len(PICTURE_FEATURES) + 1))
    rows[0, column] = rows[1, column] = 1
    count = len(PICTURE_FEATURES)
    rule = LearnedRule("picture", tuple(SIZES), (0.0,) * count, (1.0,) * count, tuple(map(tuple, rows)))
    predictor = SizedPredictor(sized(model).predictors, rule)
    ran: list[int] = []
    original = predictor.predict_pixels

    def noted(index: int, pixels: Any) -> Any:
        ran.append(index)
        return original(index, pixels)

    monkeypatch.setattr(predictor, "predict_pixels", noted)
    assert [p.input_size for p in predictor([EMPTY, plain_picture(255, 255, 255)])] == [(32, 32), (96, 96)]
    assert ran == [0, 2]


@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize("readers", [None, 3])
def test_streams_give_what_calls_give(model: Path, tmp_path: Path, batch_size: int, readers: int | None) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(7):
        cv2.imwrite(str(folder / f"{i}.png"), plain_picture(255 - 30 * i, 20 * i, 3 * i))
    (folder / "broken.png").write_bytes(b"no image")
    predictor = sized(model, score_thr=0.3)
    errors: list[UserError] = []
    stream = list(predictor.stream(folder, batch_size, errors.append, readers, keep_pixels=True))
    assert len(stream) == 7 and len(errors) == 1 and len({p.input_size for p in stream}) > 1
    for i, prediction in enumerate(stream):
        assert prediction.image == str(folder / f"{i}.png") and prediction.stem == str(i)
        assert prediction.pixels is not None and prediction.pixels[0, 0, 0] == 255 - 30 * i
        (alone,) = Predictor(model, size=prediction.input_size, score_thr=0.3)(folder / f"{i}.png")
        for name in ("boxes", "scores", "labels"):
            np.testing.assert_array_equal(getattr(prediction, name), getattr(alone, name))
        assert prediction.size == alone.size
    called = predictor(folder, batch_size=batch_size, on_error="skip")
    assert [p.scores.tolist() for p in called] == [p.scores.tolist() for p in stream]
    with pytest.raises(UserError, match="broken"):
        list(predictor.stream(folder, batch_size))


def test_frames_of_a_video(model: Path, film: Path) -> None:
    predictions = list(sized(model).stream(film, batch_size=2))
    assert [(p.frame, p.name) for p in predictions] == [(i, f"film_{i:06d}") for i in range(3)]
    assert {p.input_size for p in predictions} == {(96, 96)}  # the padding is grey, which is undecided


def test_files_of_one_size_give_what_one_of_any_size_gives(write_sized: Write, model: Path, tmp_path: Path) -> None:
    files = [write_sized(tmp_path / f"{size}.onnx", size) for size in (96, 32, 64)]
    fixed = open_sizes(files[0], parse_sizes([str(files[1]), str(files[2])]), threads=1)
    pictures = [DECIDED, UNDECIDED, plain_picture(200, 3, 100)]
    for a, b in zip(fixed(pictures, batch_size=3), sized(model)(pictures), strict=True):
        assert a.input_size == b.input_size
        np.testing.assert_allclose(a.boxes, b.boxes)
        np.testing.assert_allclose(a.scores, b.scores, atol=1e-6)


def test_features_by_hand(model: Path) -> None:
    (answer,) = Predictor(model, size=(32, 32))([plain_picture(204, 51, 10)])
    numbers = dict(zip(ANSWER_FEATURES, answer_features(answer, (32, 32)).tolist(), strict=True))
    assert numbers == pytest.approx(
        {
            "log_count": np.log(3),
            "log_expected": np.log(2),
            "log_undecided": np.log(1 + 1.28),
            "mean_score": 0.5,
            "best_score": 0.8,
            "log_smallest": np.log(16),
            "log_median": np.log(16),
            "small_share": 0.0,
        },
        abs=1e-5,
    )
    (none,) = Predictor(model, size=(32, 32))([EMPTY])
    assert np.isfinite(answer_features(none, (32, 32))).all()


def test_features_of_pictures() -> None:
    flat = dict(zip(PICTURE_FEATURES, picture_features(plain_picture(51, 51, 51)), strict=True))
    assert flat["mean"] == pytest.approx(0.2, abs=1e-3) and flat["std"] == pytest.approx(0, abs=1e-6)
    assert flat["edges_64"] == flat["busy"] == 0 and flat["log_sides"] == pytest.approx(np.log(128))
    stripes = np.zeros((128, 128, 3), np.uint8)
    stripes[:, ::4] = stripes[:, 1::4] = 255  # columns of one pixel of the thumbnail
    busy = dict(zip(PICTURE_FEATURES, picture_features(stripes), strict=True))
    assert busy["edges_64"] == pytest.approx(1, abs=0.01) and busy["busy"] == 1
    assert busy["edges_16"] == pytest.approx(0, abs=0.01)


def test_a_saved_rule_is_read_again(write_sized: Write, model: Path, tmp_path: Path) -> None:
    rule = by_answer(0.4, files=(ArtifactFile.of(model),) * 3)
    rule.save(tmp_path / "rule.json")
    assert load_rule(tmp_path / "rule.json") == rule
    assert sized(model, rule=tmp_path / "rule.json")([UNDECIDED])[0].input_size == (64, 64)
    assert sized(model, rule=tmp_path / "rule.json", threshold=0.8)([UNDECIDED])[0].input_size == (32, 32)
    with pytest.raises(UserError, match="got a rule for the sizes 32x32, 64x64, 96x96, expected 32x32, 64x64;"):
        sized(model, "32", "64", rule=tmp_path / "rule.json")
    write_sized(model, side=17)
    with pytest.raises(UserError, match="SHA-256"):
        sized(model, rule=tmp_path / "rule.json")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is no JSON"),
        ("[]", "is no size rule"),
        ('{"kind": "efftasks size rule 1"}', "is damaged"),
        (None, "cannot be read"),
    ],
)
def test_files_that_are_no_rules(model: Path, tmp_path: Path, text: str | None, words: str) -> None:
    path = tmp_path / "rule.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=words):
        sized(model, rule=path)


def test_a_rule_of_other_features(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="numbers for 8 features and 3 sizes"):
        by_answer(0.1, mean=(0.0,))
    with pytest.raises(UserError, match="looks_at: got 'stars'"):
        by_answer(0.1, looks_at="stars")


def test_sizes_that_cannot_be(write_sized: Write, model: Path, tmp_path: Path) -> None:
    fixed = write_sized(tmp_path / "fixed.onnx", 64)
    for path, texts, words in (
        (model, ["32"], "got 1 of them, expected at least two"),
        (model, ["32", "32"], "expected each larger"),
        (model, ["32", "50"], "got 50x50, expected multiples of 32"),
        (model, ["0", "32"], "got '0', expected a side in pixels"),
        (model, ["32", "nowhere.onnx"], "got 'nowhere.onnx'"),
        (fixed, ["32", "64"], "takes 64x64 only: export it with --dynamic-size"),
    ):
        with pytest.raises(UserError, match=words):
            open_sizes(path, parse_sizes(texts))
    other = write_sized(tmp_path / "other.onnx", 96, classes=("a", "b", "c"))
    with pytest.raises(UserError, match=r"other.onnx: got detection of 3 classes"):
        open_sizes(fixed, parse_sizes([str(other)]))
    for settings in (dict(threshold=1.5), dict(threshold=-0.1), dict(score_thr=2)):
        with pytest.raises(UserError, match="expected a number in 0 to 1"):
            sized(model, **settings)
    with pytest.raises(UserError, match="batch_size: got 0"):
        sized(model)([DECIDED], batch_size=0)
    with pytest.raises(UserError, match="readers: got 0"):
        sized(model).stream([DECIDED], readers=0)
    assert parse_sizes(["480x640"]) == [(480, 640)]


def test_files_of_one_size_are_chosen_among_by_their_weights(write_sized, tmp_path):
    wide = write_sized(tmp_path / "wide.onnx", 64, side=32, source={"config": "more" * 99})
    narrow = write_sized(tmp_path / "narrow.onnx", 64, side=16)
    predictor = open_sizes(wide, [narrow], threshold=0.5)
    assert predictor.names == ["64x64 narrow.onnx", "64x64 wide.onnx"]
    pictures = [np.full((64, 64, 3), (blue, 0, 0), np.uint8) for blue in (255, 128)]
    decided, undecided = predictor(pictures)
    assert decided.boxes[0].tolist() == [0, 0, 16, 16] and undecided.boxes[0].tolist() == [0, 0, 32, 32]
    with pytest.raises(UserError, match="or another file with more weights"):
        open_sizes(wide, [wide])


def test_small_boxes_ask_for_a_larger_size_and_not_for_a_wider_network(write_sized, tmp_path):
    wide = write_sized(tmp_path / "wide.onnx", 64, side=4, source={"config": "more" * 99})
    narrow = write_sized(tmp_path / "narrow.onnx", 64, side=4)
    (prediction,) = open_sizes(wide, [narrow])([np.full((64, 64, 3), (255, 0, 0), np.uint8)])
    assert prediction.input_size == (64, 64)
    rule = CascadeRule()
    assert rule.next(0, prediction, [(64, 64), (64, 64)]) == 0 and rule.next(0, prediction, [(64, 64), (96, 96)]) == 1
