"""`Predictor.stream`: the predictions of the plain loop to the bit, from every source, without threads left behind."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from efftasks import Predictor
from efftasks.imaging.prediction import Prediction
from efftasks.structures.errors import UserError
from efftasks.structures.spec import ArtifactSpec, InputSpec, OutputSpec

COUNT = 12


def write_model(path: Path) -> Path:
    """A file whose scores are the means of the three channels of its input, best first; boxes grow with them."""
    spec = ArtifactSpec(
        task="instance segmentation",
        classes=("blue", "green", "red"),
        category_ids=(1, 2, 3),
        input=InputSpec("images", 32, 64, mean=(1, 2, 3), std=(300, 301, 302), color="BGR"),
        outputs=(
            OutputSpec("boxes", ("N", 3, 4), "float32", ""),
            OutputSpec("scores", ("N", 3), "float32", ""),
            OutputSpec("labels", ("N", 3), "int64", ""),
            OutputSpec("masks", ("N", 3, 8, 16), "float32", ""),
        ),
    )
    nodes = [
        helper.make_node("ReduceMean", ["images", "sides"], ["means"], keepdims=0),
        helper.make_node("TopK", ["means", "three"], ["scores", "labels"], axis=1),
        helper.make_node("AveragePool", ["images"], ["cells"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Sub", ["cells", "half"], ["masks"]),
        helper.make_node("Unsqueeze", ["scores", "last"], ["column"]),
        helper.make_node("Mul", ["column", "corners"], ["boxes"]),
    ]
    values = {
        "sides": np.array([2, 3]),
        "three": np.array([3]),
        "half": np.array(0.4, np.float32),
        "last": np.array([2]),
        "corners": np.array([[[1, 2, 60, 30]]], np.float32),
    }
    kinds = {output.name: output for output in spec.outputs}
    graph = helper.make_graph(
        nodes,
        "means",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 3, 32, 64])],
        [
            helper.make_tensor_value_info(
                name, TensorProto.INT64 if name == "labels" else TensorProto.FLOAT, list(kind.shape)
            )
            for name, kind in kinds.items()
        ],
        [onnx.numpy_helper.from_array(value, name) for name, value in values.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, {"efftasks": spec.to_json()})
    onnx.save(model, str(path))
    return path


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return Predictor(write_model(tmp_path_factory.mktemp("model") / "model.onnx"), threads=1)


@pytest.fixture
def pictures() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(0, 200 + i, (20 + i, 90 - 3 * i, 3), dtype=np.uint8) for i in range(COUNT)]


@pytest.fixture
def photos(tmp_path: Path, pictures: list[np.ndarray]) -> Path:
    for i, picture in enumerate(pictures):
        (tmp_path / "photos").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / "photos" / f"{i:02d}.png"), picture)
    return tmp_path / "photos"


@pytest.fixture(autouse=True)
def _no_threads_left() -> Iterator[None]:
    yield
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("efftasks")] == []


def plain(predictor: Predictor, images: list[Any], batch_size: int = 1) -> list[Prediction]:
    """Batch by batch, in one thread and without threads of the package."""
    return [
        prediction
        for start in range(0, len(images), batch_size)
        for prediction in predictor(images[start : start + batch_size], batch_size=batch_size)
    ]


def assert_same(one: list[Prediction], other: list[Prediction]) -> None:
    assert len(one) == len(other) > 0
    for a, b in zip(one, other):
        for name in ("boxes", "scores", "labels", "masks"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
        assert a.size == b.size
    assert len({prediction.scores.tobytes() for prediction in one}) == len(one)  # none can be taken for another


@pytest.mark.parametrize("batch_size", [1, 5])
@pytest.mark.parametrize("readers", [None, 1, 2, 4])
def test_predictions_are_those_of_the_plain_loop(predictor, photos, pictures, readers, batch_size):
    files = sorted(photos.iterdir())
    expected = plain(predictor, files, batch_size)
    sources: dict[str, Any] = dict(
        folder=photos, pattern=str(photos / "*.png"), list=files, generator=(file for file in files), arrays=pictures
    )
    for name, source in sources.items():
        found = list(predictor.stream(source, batch_size=batch_size, readers=readers))
        assert_same(found, expected)
        if name != "arrays":
            assert [prediction.image for prediction in found] == [str(file) for file in files]
    assert_same(predictor(photos, batch_size=batch_size, readers=readers), expected)
    assert [p.stem for p in predictor(pictures, batch_size=batch_size)] == [f"image_{i:06d}" for i in range(COUNT)]


def test_a_runtime_that_uses_its_memory_again(tmp_path, pictures):
    """Masks are made of its outputs when the caller takes them, and the session is ahead."""
    pytest.importorskip("openvino")
    predictor = Predictor(write_model(tmp_path / "model.onnx"), backend="openvino", threads=1, provider="cpu")
    assert_same(list(predictor.stream(pictures, batch_size=2)), plain(predictor, pictures, 2))
    with pytest.raises(
        UserError, match="provider: got 'abacus', expected one that the installed openvino has here: cpu"
    ):
        Predictor(tmp_path / "model.onnx", backend="openvino", provider="abacus")


def test_the_size_of_the_image_is_known_without_reading_it(predictor, photos):
    assert [p.size for p in predictor.stream(photos)] == [(20 + i, 90 - 3 * i) for i in range(COUNT)]


def test_pixels_are_kept_on_request(predictor, photos, pictures):
    assert all(prediction.pixels is None for prediction in predictor.stream(photos))
    for prediction, picture in zip(predictor.stream(photos, keep_pixels=True), pictures, strict=True):
        np.testing.assert_array_equal(prediction.pixels, picture)
        drawn = prediction.draw()
        np.testing.assert_array_equal(drawn, replace(prediction, pixels=None).draw())
        (Path(prediction.image)).unlink()
        np.testing.assert_array_equal(drawn, prediction.draw())  # without the file


def test_two_streams_and_a_call_at_a_time(predictor, photos, pictures):
    """Their input buffers are their own."""
    expected = plain(predictor, sorted(photos.iterdir()))
    alone = predictor(pictures[3])
    found: tuple[list[Prediction], list[Prediction]] = ([], [])
    for one, other in zip(predictor.stream(photos), predictor.stream(pictures)):
        found[0].append(one)
        found[1].append(other)
        np.testing.assert_array_equal(predictor(pictures[3])[0].boxes, alone[0].boxes)
    assert_same(found[0], expected)
    assert_same(found[1], expected)


def test_it_is_lazy(predictor, pictures):
    """An endless source is no matter."""
    taken: list[int] = []

    def endless() -> Iterator[np.ndarray]:
        while True:
            taken.append(len(taken))
            yield pictures[len(taken) % COUNT]

    stream = predictor.stream(endless(), readers=2)
    assert taken == []
    for i, _ in zip(range(20), stream):
        assert len(taken) <= i + 7
    stream.close()


def test_a_generator_is_advanced_in_the_thread_of_its_caller(predictor, pictures):
    threads = set()

    def images() -> Iterator[np.ndarray]:
        for picture in pictures:
            threads.add(threading.current_thread())
            yield picture

    assert len(list(predictor.stream(images()))) == COUNT
    assert threads == {threading.current_thread()}


@pytest.mark.parametrize("readers", [1, 2])
def test_an_image_that_cannot_be_read(predictor, photos, caplog, readers):
    files = sorted(photos.iterdir())
    files[5].write_bytes(b"no image")
    found = []
    with pytest.raises(UserError, match=r"05\.png: the image"):
        for prediction in predictor.stream(photos, readers=readers):
            found.append(prediction.stem)
    assert found == [f"{i:02d}" for i in range(5)]
    expected = [f"{i:02d}" for i in range(COUNT) if i != 5]
    assert [p.stem for p in predictor.stream(photos, 3, on_error="skip", readers=readers)] == expected
    assert "skipped: " in caplog.text and "05.png: the image" in caplog.text
    files[8].unlink()
    errors: list[UserError] = []
    found = [p.stem for p in predictor.stream(files, on_error=errors.append, readers=readers)]
    assert found == [stem for stem in expected if stem != "08"]
    assert [Path(str(error).split(":")[0]).name for error in errors] == ["05.png", "08.png"]


def test_an_error_of_a_generator_comes_after_what_it_gave(predictor, pictures):
    def failing() -> Iterator[np.ndarray]:
        yield from pictures[:4]
        raise ZeroDivisionError("of the source")

    found = []
    with pytest.raises(ZeroDivisionError, match="of the source"):
        for prediction in predictor.stream(failing()):
            found.append(prediction)
    assert_same(found, plain(predictor, pictures[:4]))


def test_a_program_that_ends_within_a_stream_ends(predictor, photos):
    """Nobody closes the iterator, and nothing waits for it."""
    code = (
        f"from efftasks import Predictor; model = Predictor({str(predictor.session.path)!r}); "
        f"stream = model.stream({str(photos)!r}, readers=2); print(next(stream).stem)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2], timeout=60
    )
    assert (done.stdout.strip(), done.stderr, done.returncode) == ("00", "", 0)


def test_an_error_of_the_caller_and_an_early_end(predictor, photos):
    with pytest.raises(KeyError):
        for _ in predictor.stream(photos):
            raise KeyError("of the caller")
    for _ in predictor.stream(photos, readers=2):
        break
    assert len(list(predictor.stream(photos))) == COUNT


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(readers=0), "readers: got 0, expected an integer from 1"),
        (dict(batch_size=0), "batch_size: got 0"),
        (dict(on_error="ignore"), "on_error: got 'ignore', expected 'raise', 'skip' or a function"),
    ],
)
def test_wrong_arguments_are_named_at_once(predictor, photos, change, message):
    with pytest.raises(UserError, match=message):
        predictor.stream(photos, **change)
    with pytest.raises(UserError, match=message):
        predictor(photos, **change)


def test_a_video_with_a_broken_frame(predictor, tmp_path, caplog):
    """Numbers and names are those of the file; the stream of a part of it ends without threads."""
    path = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 32))
    if not writer.isOpened():
        pytest.skip("this OpenCV writes no video")
    for i in range(COUNT):
        writer.write(np.full((32, 64, 3), 20 * i, np.uint8))
    writer.release()
    data = bytearray(path.read_bytes())
    starts = [place for place in range(len(data)) if data[place : place + 3] == b"\xff\xd8\xff"]
    data[starts[4] : starts[5] - 8] = bytes(starts[5] - 8 - starts[4])
    path.write_bytes(data)

    found = list(predictor.stream(path, batch_size=5))
    numbers = [i for i in range(COUNT) if i != 4]
    assert [prediction.frame for prediction in found] == numbers
    assert [prediction.stem for prediction in found] == [f"film_{i:06d}" for i in numbers]
    assert "film.avi: frame 4 cannot be decoded, skipped" in caplog.text
    frames = [prediction.image for prediction in found]
    assert_same(found, plain(predictor, frames, 5))
    stream = predictor.stream(path)
    assert [next(stream).frame for _ in range(3)] == [0, 1, 2]
    stream.close()
    with pytest.raises(UserError, match=r"none\.avi: the video is missing"):
        next(predictor.stream(tmp_path / "none.avi"))
