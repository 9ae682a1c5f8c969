"""Videos with exact boxes: a camera of known motion looks at real photographs with annotations in COCO form.

Photographs lie side by side on a table. The camera pans, zooms and turns over it at a known speed, and cuts to other
places. Objects are pasted in at random frames, stay or drift, and vanish. Frames have noise and a changing exposure.
All is drawn from a seed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

SPEEDS = {"still": 0.0, "slow": 1.0, "medium": 4.0, "fast": 10.0, "very fast": 20.0}  # pixels a frame
SHAKE = "shake"  # a medium pan with a random offset of up to 4 pixels and half a degree in each frame
_MIX = ("still", "slow", "medium", "fast")
_TABLE = (3, 4)  # rows and columns of photographs
_NOISE = 3.0  # standard deviation, of 255
_LEAST_VISIBLE = 0.3  # share of an object below which a detection of it counts neither as right nor as wrong
_STAYS = 60  # frames for which a pasted object is there, at most


class Seen(NamedTuple):
    """An object in a frame."""

    track: int
    category: int
    box: np.ndarray  # (4,) xyxy, clipped to the frame
    ignored: bool  # hardly visible
    pasted: bool


class Frame(NamedTuple):
    """A frame and what is in it."""

    pixels: np.ndarray  # uint8 (H, W, 3) BGR
    objects: list[Seen]
    speed: str
    cut: bool  # the first one after a cut


class Photo(NamedTuple):
    """A photograph with its boxes (N, 4) xyxy and categories (N,)."""

    pixels: np.ndarray
    boxes: np.ndarray
    categories: np.ndarray


def read_photos(root: str | Path, split: str) -> list[Photo]:
    """The photographs of a data set in COCO form, all of the size of the first."""
    root = Path(root)
    data = json.loads((root / "annotations" / f"{split}.json").read_text(encoding="utf-8"))
    rows: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in data["images"]}
    for row in data["annotations"]:
        rows[row["image_id"]].append(row)
    photos: list[Photo] = []
    for image in data["images"]:
        pixels = cv2.imread(str(root / "images" / image["file_name"]))
        assert pixels is not None, image["file_name"]
        boxes = np.array([row["bbox"] for row in rows[image["id"]]], float).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        if not photos or pixels.shape == photos[0].pixels.shape:
            photos.append(Photo(pixels, boxes, np.array([row["category_id"] for row in rows[image["id"]]], int)))
    return photos


@dataclass
class _Pasted:
    """A crop of a real object, on the table for some frames."""

    patch: np.ndarray
    alpha: np.ndarray
    center: np.ndarray
    drift: np.ndarray  # pixels a frame
    box: np.ndarray  # (4,) about the center
    category: int
    track: int
    until: int


@dataclass
class _Table:
    pixels: np.ndarray
    boxes: np.ndarray
    categories: np.ndarray
    tracks: np.ndarray
    pasted: list[_Pasted] = field(default_factory=list)


class MovingCamera:
    """A video.

    Args:
        photos: what it shows.
        seed: of everything random.
        frames: their number.
        speed: a name of :data:`SPEEDS`, ``"shake"``, or ``"mix"`` for one of four for 20 to 50 frames each, with cuts.
        size: (height, width) of the frames.
        paste_every: frames between two pasted objects, on average.
    """

    def __init__(
        self,
        photos: Sequence[Photo],
        seed: int,
        frames: int = 300,
        speed: str = "mix",
        size: tuple[int, int] = (480, 640),
        paste_every: float = 12.0,
    ) -> None:
        self._photos, self._random = photos, np.random.default_rng(seed)
        self._count, self._speed, self._size, self._paste_every = frames, speed, size, paste_every
        self._tracks = 0
        self._noise = self._random.normal(0, _NOISE, (size[0] + 64, size[1] + 64, 3)).astype(np.float32)

    def __iter__(self) -> Iterator[Frame]:
        random, number, gain = self._random, 0, 1.0
        speed = self._speed
        cut = True
        table, center, angle, zoom = self._new_place()
        while number < self._count:
            if self._speed == "mix":
                speed = str(random.choice(_MIX))
                if random.random() < 0.3 and number:
                    table, center, angle, zoom = self._new_place()
                    cut = True
            moves = self._moves(speed)
            for _ in range(min(int(random.integers(20, 50)), self._count - number)):
                velocity, turn, growth, shake, shake_turn = next(moves)
                center, velocity = self._inside(table, center + velocity)
                angle, zoom = float(np.clip(angle + turn, -4, 4)), float(np.clip(zoom * growth, 0.85, 1.2))
                self._change_objects(table, center, number)
                gain = float(np.clip(gain * np.exp(random.normal(0, 0.006)), 0.85, 1.1))
                view = _view(center + shake, angle + shake_turn, zoom, self._size)
                yield Frame(self._pixels(table, view, gain), self._seen(table, view, angle), speed, cut)
                cut = False
                number += 1

    def _new_place(self) -> tuple[_Table, np.ndarray, float, float]:
        rows, columns = _TABLE
        chosen = self._random.choice(len(self._photos), rows * columns, replace=False)
        height, width = self._photos[0].pixels.shape[:2]
        pixels = np.zeros((rows * height, columns * width, 3), np.uint8)
        boxes, categories = [], []
        for place, index in enumerate(chosen):
            y, x = place // columns * height, place % columns * width
            photo = self._photos[index]
            pixels[y : y + height, x : x + width] = photo.pixels
            boxes.append(photo.boxes + [x, y, x, y])
            categories.append(photo.categories)
        count = sum(map(len, boxes))
        tracks = np.arange(self._tracks, self._tracks + count)
        self._tracks += count
        table = _Table(pixels, np.concatenate(boxes), np.concatenate(categories), tracks)
        half = np.array(self._size[::-1]) * 0.65
        center = self._random.uniform(half, np.array(pixels.shape[1::-1]) - half)
        return table, center, float(self._random.uniform(-2, 2)), float(self._random.uniform(0.95, 1.1))

    def _moves(self, speed: str) -> Iterator[tuple[np.ndarray, float, float, np.ndarray, float]]:
        """Pan, turn in degrees and zoom of each frame; and a shake, which does not add up."""
        random, nothing = self._random, np.zeros(2)
        shaking = speed == SHAKE
        pace = SPEEDS["medium" if shaking else speed]
        heading = random.uniform(0, 2 * np.pi)
        turn, growth = random.uniform(-0.03, 0.03) * min(pace, 5), 1 + random.uniform(-1, 1) * 0.0006 * min(pace, 5)
        while True:
            heading += random.normal(0, 0.03)
            pan = pace * random.uniform(0.8, 1.2) * np.array([np.cos(heading), np.sin(heading)])
            shake = random.uniform(-4, 4, 2) if shaking else nothing
            yield pan, turn, growth, shake, float(random.uniform(-0.5, 0.5)) if shaking else 0.0

    def _inside(self, table: _Table, center: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The camera turns back at the edge of the table, as a reflection: the speed stays."""
        low = np.array(self._size[::-1]) * 0.65
        high = np.array(table.pixels.shape[1::-1]) - low
        bounced = np.where(center < low, 2 * low - center, np.where(center > high, 2 * high - center, center))
        return bounced, bounced - center

    def _change_objects(self, table: _Table, center: np.ndarray, number: int) -> None:
        """Drift and remove pasted objects; paste one now and then, where there is room."""
        table.pasted = [pasted for pasted in table.pasted if pasted.until > number]
        for pasted in table.pasted:
            pasted.center = pasted.center + pasted.drift
        random = self._random
        if random.random() > 1 / self._paste_every:
            return
        photo = self._photos[int(random.integers(len(self._photos)))]
        if not len(photo.boxes):
            return
        rare = np.bincount(photo.categories)[photo.categories]  # all categories alike
        index = int(random.choice(len(photo.boxes), p=(1 / rare) / (1 / rare).sum()))
        x1, y1, x2, y2 = box = photo.boxes[index]
        margin = 0.1 * (box[2:] - box[:2]) + 2
        low = np.floor(box[:2] - margin).astype(int)
        high = np.ceil(box[2:] + margin).astype(int)
        height, width = photo.pixels.shape[:2]
        if low.min() < 0 or high[0] > width or high[1] > height:
            return  # cut off in its photograph
        others = np.delete(photo.boxes, index, 0)
        if _overlap(box, others).max(initial=0) > 0.1:
            return
        middle = np.array([(x1 + x2) / 2, (y1 + y2) / 2])
        about = box - np.tile(middle, 2)
        for _ in range(20):
            place = center + random.uniform(-0.42, 0.42, 2) * self._size[::-1]
            there = np.concatenate([table.boxes, *[[p.box + np.tile(p.center, 2)] for p in table.pasted]])
            if _overlap(about + np.tile(place, 2), there).max(initial=0) < 0.05:
                break
        else:
            return
        patch = photo.pixels[low[1] : high[1], low[0] : high[0]].astype(np.float32)
        drift = random.uniform(-2.5, 2.5, 2) if random.random() < 0.4 else np.zeros(2)
        pasted = _Pasted(
            patch,
            _soft_ellipse(patch.shape[:2], low - middle, about),
            place,
            drift,
            about,
            int(photo.categories[index]),
            self._tracks,
            number + int(random.integers(_STAYS // 2, _STAYS)),
        )
        self._tracks += 1
        table.pasted.append(pasted)

    def _pixels(self, table: _Table, view: np.ndarray, gain: float) -> np.ndarray:
        height, width = self._size
        picture = cv2.warpAffine(table.pixels, view, (width, height), flags=cv2.INTER_LINEAR).astype(np.float32)
        for pasted in table.pasted:
            rows, columns = pasted.patch.shape[:2]
            corner = pasted.center - [columns / 2, rows / 2]
            to_frame = view @ np.array([[1, 0, corner[0]], [0, 1, corner[1]], [0, 0, 1]])
            alpha = cv2.warpAffine(pasted.alpha, to_frame, (width, height))
            if alpha.any():
                patch = cv2.warpAffine(pasted.patch, to_frame, (width, height), borderMode=cv2.BORDER_REPLICATE)
                picture += alpha[..., None] * (patch - picture)
        y, x = self._random.integers(0, 64, 2)
        return np.clip(picture * gain + self._noise[y : y + height, x : x + width] + 0.5, 0, 255).astype(np.uint8)

    def _seen(self, table: _Table, view: np.ndarray, angle: float) -> list[Seen]:
        boxes = np.array([p.box + np.tile(p.center, 2) for p in table.pasted]).reshape(-1, 4)
        categories = np.concatenate([table.categories, [p.category for p in table.pasted]]).astype(int)
        tracks = np.concatenate([table.tracks, [p.track for p in table.pasted]]).astype(int)
        whole = _ellipse_boxes(np.concatenate([table.boxes, boxes]), view)
        clipped = np.clip(whole, 0, np.tile(self._size[::-1], 2))
        sides, visible = whole[:, 2:] - whole[:, :2], np.maximum(clipped[:, 2:] - clipped[:, :2], 0)
        share = visible.prod(1) / sides.prod(1)
        return [
            Seen(int(tracks[i]), int(categories[i]), clipped[i], bool(share[i] < _LEAST_VISIBLE), i >= len(table.boxes))
            for i in np.flatnonzero((visible > 1).all(1))
        ]


def _view(center: np.ndarray, angle: float, zoom: float, size: tuple[int, int]) -> np.ndarray:
    """(2, 3): from the table to the frame."""
    matrix = cv2.getRotationMatrix2D((float(center[0]), float(center[1])), angle, zoom)
    matrix[:, 2] += np.array(size[::-1]) / 2 - center
    return matrix


def _ellipse_boxes(boxes: np.ndarray, view: np.ndarray) -> np.ndarray:
    """Boxes in the frame of the ellipses that fill boxes of the table, which blood cells nearly do."""
    centers, halves = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
    moved = centers @ view[:, :2].T + view[:, 2]
    extents = np.sqrt((halves**2) @ (view[:, :2] ** 2).T)
    return np.concatenate([moved - extents, moved + extents], 1)


def _soft_ellipse(shape: tuple[int, ...], corner: np.ndarray, box: np.ndarray) -> np.ndarray:
    """1 in the ellipse of a box, falling to 0 outside; float32 (H, W)."""
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    radius = np.sqrt(((x + corner[0]) / box[2]) ** 2 + ((y + corner[1]) / box[3]) ** 2)
    return np.clip((1.2 - radius) / 0.15, 0, 1).astype(np.float32)


def _overlap(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Share of the smaller of two boxes that lies in the other."""
    low, high = np.maximum(others[:, :2], box[:2]), np.minimum(others[:, 2:], box[2:])
    common = np.maximum(high - low, 0).prod(1)
    return common / np.minimum((others[:, 2:] - others[:, :2]).prod(1), (box[2:] - box[:2]).prod())
