"""Videos, cameras and streams: frames and their numbers, what is broken or cut off, and the newest frame."""

from __future__ import annotations

import struct
import threading
from collections.abc import Generator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from efftasks.runtime.sources import Images, VideoFrames, is_video, open_source
from efftasks.runtime.video import Frame, Newest, Video
from efftasks.structures.errors import UserError

FRAMES = 12


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """A video of 12 frames, gray at 20 times the number, 10 a second."""
    path = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    if not writer.isOpened():
        pytest.skip("this OpenCV writes no video")
    for i in range(FRAMES):
        writer.write(np.full((48, 64, 3), 20 * i, np.uint8))
    writer.release()
    return path


def frame_places(data: bytes | bytearray) -> list[tuple[int, int]]:
    """Start and length of each JPEG in an AVI file."""
    places: list[tuple[int, int]] = []
    start = data.find(b"00dc", data.find(b"movi"))
    while len(places) < FRAMES:
        (length,) = struct.unpack("<I", data[start + 4 : start + 8])
        places.append((start + 8, length))
        start = data.find(b"00dc", start + 8 + length)
    return places


def shades(frames: list[Frame]) -> list[int]:
    return [round(float(frame.pixels.mean()) / 20) for frame in frames]


def test_frames_and_what_the_file_states(film):
    video = Video(film)
    assert (video.name, video.fps, video.count, video.live) == ("film", 10.0, FRAMES, False)
    frames = list(video)
    assert [frame.number for frame in frames] == shades(frames) == list(range(FRAMES))
    assert frames[0].pixels.shape == (48, 64, 3) and frames[0].pixels.dtype == np.uint8


@pytest.mark.parametrize("broken", [(4,), (4, 5, 8), (0,)])
def test_a_broken_frame_is_skipped_and_named(film, caplog, broken):
    data = bytearray(film.read_bytes())
    for i in broken:
        start, length = frame_places(data)[i]
        data[start : start + length] = bytes(length)
    film.write_bytes(data)
    frames = list(Video(film))
    assert [frame.number for frame in frames] == shades(frames) == [i for i in range(FRAMES) if i not in broken]
    expected = {
        (4,): ["frame 4 cannot be decoded, skipped"],
        (4, 5, 8): ["frames 4 to 5 cannot be decoded, skipped", "frame 8 cannot be decoded, skipped"],
        (0,): ["frame 0 cannot be decoded, skipped"],
    }[broken]
    assert [record.getMessage() for record in caplog.records] == [f"{film}: {text}" for text in expected]


def test_a_file_that_ends_early_is_named(film, caplog):
    data = film.read_bytes()
    film.write_bytes(data[: frame_places(data)[7][0]])
    frames = list(Video(film))
    assert shades(frames) == list(range(7))
    assert [record.getMessage() for record in caplog.records] == [
        f"{film}: ends after frame 6, though it states {FRAMES} frames"
    ]


def test_what_is_no_video(film, tmp_path):
    with pytest.raises(UserError, match=r"none\.mp4: the video is missing or cannot be decoded"):
        Video(tmp_path / "none.mp4")
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    with pytest.raises(UserError, match=r"bad\.mp4: the video is missing or cannot be decoded"):
        Video(tmp_path / "bad.mp4")
    data = bytearray(film.read_bytes())
    for start, length in frame_places(data):
        data[start : start + length] = bytes(length)
    film.write_bytes(data)
    with pytest.raises(UserError, match=r"film\.avi: no frame can be decoded"):
        list(Video(film))


def test_leaving_early_closes_the_file(film):
    video = Video(film)
    for frame in video:
        if frame.number == 2:
            break
    video.close()
    assert list(video) == []


class FakeCapture:
    """A camera of 5 frames that states no rate and no number of them."""

    opened: list[object] = []

    def __init__(self, source: object) -> None:
        self.opened.append(source)
        self._left = 5 if source != 7 else 0

    def isOpened(self) -> bool:
        return self._left > 0

    def get(self, what: int) -> float:
        return {cv2.CAP_PROP_FPS: 0.0, cv2.CAP_PROP_FRAME_COUNT: -1.0}[what]

    def read(self) -> tuple[bool, np.ndarray | None]:
        self._left -= 1
        return (True, np.zeros((8, 8, 3), np.uint8)) if self._left >= 0 else (False, None)

    def release(self) -> None:
        self._left = 0


@pytest.fixture
def cameras(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    monkeypatch.setattr(FakeCapture, "opened", [])
    monkeypatch.setattr(cv2, "VideoCapture", FakeCapture)
    return FakeCapture.opened


def test_a_camera_and_a_stream(cameras):
    for source, given, name in ((0, 0, "camera0"), ("2", 2, "camera2"), ("rtsp://host/live/door?x=1", None, "door")):
        opened = open_source(source)
        assert isinstance(opened, VideoFrames)
        assert (opened.name, opened.live, opened.fps, opened.total) == (name, True, None, None)
        items = list(opened)
        assert items[-1].frame == 4 and items[-1].name == f"{name}_000004"
        assert cameras[-1] == (source if given is None else given)
    with pytest.raises(UserError, match="no camera of index 7 can be opened"):
        open_source("7")


def test_passwords_are_in_no_message_and_no_list(cameras, monkeypatch):
    opened = open_source("rtsp://me:secret@host/door@1")
    assert isinstance(opened, VideoFrames)
    assert opened.place == "rtsp://host/door@1" and cameras == ["rtsp://me:secret@host/door@1"]
    monkeypatch.setattr(FakeCapture, "isOpened", lambda self: False)
    with pytest.raises(UserError, match=r"^rtsp://host/door: the stream cannot be opened"):
        open_source("rtsp://me:secret@host/door")


def test_what_is_a_video(cameras, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for source in (0, "0", "12", "film.mp4", Path("film.MKV"), "rtsp://host/x", "http://host/x.mp4"):
        assert is_video(source), source
    others: list[Any] = [
        "photo.jpg",
        "photos",
        Path("photos/*.png"),
        ["film.mp4"],
        np.zeros((4, 4, 3)),
        b"0",
        True,
        "1.5",
    ]
    assert not any(map(is_video, others))
    (tmp_path / "0").mkdir()  # a folder of that name is a folder
    cv2.imwrite("0/a.png", np.zeros((4, 4, 3), np.uint8))
    assert not is_video("0") and isinstance(open_source("0"), Images)
    for source in (True, -1):
        with pytest.raises(UserError, match=f"source: got {source}"):
            open_source(source)


def test_the_newest_frame_of_a_live_source():
    """Three frames arrive while nobody asks; then the source waits, and then it ends."""
    arrived, go_on = threading.Event(), threading.Event()
    pixels = np.zeros((4, 4, 3), np.uint8)

    def camera() -> Generator[Frame, None, None]:
        for i in range(3):
            yield Frame(i, pixels)
        arrived.set()  # the third one was stored before the source is asked for the next
        assert go_on.wait(10)
        yield Frame(3, pixels)

    newest = Newest(camera())
    assert arrived.wait(10)
    assert next(newest).number == 2
    go_on.set()
    assert [frame.number for frame in newest] == [3]
    newest.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "efftasks-camera"]


def test_an_error_of_a_live_source_reaches_who_asks():
    def camera() -> Generator[Frame, None, None]:
        yield from ()
        raise OSError("unplugged")

    newest = Newest(camera())
    with pytest.raises(OSError, match="unplugged"):
        next(newest)
    with pytest.raises(StopIteration):
        next(newest)
    newest.close()


def test_leaving_a_live_source_stops_its_thread():
    closed = threading.Event()

    def camera() -> Generator[Frame, None, None]:
        try:
            i = 0
            while True:
                yield Frame(i, np.zeros((4, 4, 3), np.uint8))
                i += 1
        finally:
            closed.set()

    newest = Newest(camera())
    first, second = next(newest), next(newest)
    assert second.number > first.number
    newest.close()
    assert closed.is_set()
    assert not [thread for thread in threading.enumerate() if thread.name == "efftasks-camera"]
