"""One scene of the built-in set: which objects it has, where, what hides what, and its picture.

Objects are placed from front to back. So what an object still shows is known when it is placed, and one that would
show too little is not placed at all: no scrap of an object is ever visible without its annotation.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from efftasks.datasets import shapes_render as render
from efftasks.datasets.shapes_geometry import CLASSES, cover, keypoints_of, outlines_of

__all__ = ["Instance", "Scene", "make_scene"]

EMPTY_SHARE = 0.03  # of the scenes, with no object at all
MIN_SHOWN = 0.35  # of an object's whole area, that beyond the picture included
MIN_PIXELS = 24
_OCCLUDED = 0.25  # of the objects look for a place partly behind another


@dataclass(frozen=True)
class Instance:
    """One object: ``label`` indexes ``CLASSES``; ``mask`` (S, S) bool is what is visible of it.

    ``keypoints`` (4, 3) are x, y in pixels (pixel i covers [i, i + 1)) and COCO's visibility: 2 on the mask, 1 in the
    picture but hidden, 0 (at 0, 0) outside the picture.
    """

    label: int
    mask: NDArray[np.bool_]
    keypoints: NDArray[np.float64]


@dataclass(frozen=True)
class Scene:
    """A picture (S, S, 3) uint8 BGR, its objects, and its semantic map (S, S) uint8: 0 background, else label + 1."""

    image: NDArray[np.uint8]
    instances: tuple[Instance, ...]
    semantic: NDArray[np.uint8]


@dataclass
class _Item:
    """Something to be painted: an object (label >= 0) or clutter (-1)."""

    label: int
    left: int
    top: int
    alpha: NDArray[np.float32]
    radius: float
    keypoints: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 2)))
    forward: NDArray[np.float64] = field(default_factory=lambda: np.array([1.0, 0.0]))
    mask: NDArray[np.bool_] | None = None  # what is visible of an object


def make_scene(seed: int, split: int, index: int, size: int) -> Scene:
    """Scene ``index`` of a split: the same for the same four numbers, whatever else is made.

    Args:
        seed: of the whole set.
        split: 0 for training, 1 for validation; each has random streams of its own.
        index: of the scene in its split.
        size: side of the square picture in pixels.
    """
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(split, index)))
    taken = np.zeros((size, size), bool)
    front = [_clutter(rng, size) for _ in range(rng.integers(0, 3))]
    for item in front:
        taken |= _covered(item, size)
    objects: list[_Item] = []
    if rng.random() >= EMPTY_SHARE:
        for _ in range(1 + min(rng.poisson(2.5), 10)):
            placed = _place(rng, size, taken, bool(objects))
            if placed is not None:
                objects.append(placed)
                taken |= _covered(placed, size)
    back = [_clutter(rng, size) for _ in range(rng.integers(0, 4))]
    image = _photograph(rng, size, [*front, *objects, *back])
    instances = tuple(_instance(item, size) for item in objects)
    semantic = np.zeros((size, size), np.uint8)
    for instance in instances:
        semantic[instance.mask] = instance.label + 1
    return Scene(image=image, instances=instances, semantic=semantic)


def _covered(item: _Item, size: int) -> NDArray[np.bool_]:
    """(S, S): the pixels at least half of which the item covers."""
    whole = np.zeros((size, size), bool)
    height, width = item.alpha.shape
    y0, y1, x0, x1 = max(item.top, 0), min(item.top + height, size), max(item.left, 0), min(item.left + width, size)
    if y1 > y0 and x1 > x0:
        whole[y0:y1, x0:x1] = item.alpha[y0 - item.top : y1 - item.top, x0 - item.left : x1 - item.left] >= 0.5
    return whole


def _place(rng: np.random.Generator, size: int, taken: NDArray[np.bool_], behind_others: bool) -> _Item | None:
    """An object with enough of it visible, partly hidden for some; None where no place was found."""
    label = int(rng.integers(len(CLASSES)))
    radius = size * float(np.exp(rng.uniform(np.log(0.09), np.log(0.32))))
    hide = behind_others and rng.random() < _OCCLUDED
    spin, squash = rng.uniform(0, 2 * np.pi, 2), rng.uniform(0.75, 1.0)
    matrix = radius * _rotation(spin[0]) @ _rotation(spin[1]) @ np.diag([1.0, squash]) @ _rotation(-spin[1])
    for _ in range(14):
        centre = rng.uniform(0, size, 2)
        lines = [line @ matrix.T + centre for line in outlines_of(CLASSES[label])]
        left, top, alpha = cover(lines)
        points = keypoints_of(CLASSES[label]) @ matrix.T + centre
        item = _Item(label, left, top, alpha, radius, points, matrix[:, 0] / radius)
        whole = _covered(item, size)
        item.mask = whole & ~taken
        shown = int(item.mask.sum())
        uncovered = shown / max(int(whole.sum()), 1)
        if shown < max(MIN_PIXELS, MIN_SHOWN * float(alpha.sum())):
            continue
        if (0.4 <= uncovered <= 0.9) if hide else uncovered >= 0.97:
            return item
    return None


def _rotation(angle: float) -> NDArray[np.float64]:
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos, -sin], [sin, cos]])


def _clutter(rng: np.random.Generator, size: int) -> _Item:
    """Something that is none of the classes: a bent wire, or a straight bar."""
    centre = rng.uniform(0, size, 2)
    radius = size * rng.uniform(0.05, 0.16)
    straight = rng.integers(2)
    t = np.linspace(-1, 1, 16)
    bend = 0.0 if straight else rng.uniform(-0.6, 0.6)
    spine = np.stack([t * rng.uniform(1.5, 4.5), bend * np.sin(t * np.pi * rng.uniform(0.4, 1.2))], axis=1)
    half = np.array([0.0, size * rng.uniform(0.004, 0.013) / radius])
    line = np.concatenate([spine + half, (spine - half)[::-1]])
    left, top, alpha = cover([line @ (radius * _rotation(rng.uniform(0, 2 * np.pi))).T + centre])
    return _Item(-1, left, top, alpha, float(radius))


def _photograph(rng: np.random.Generator, size: int, front_to_back: list[_Item]) -> NDArray[np.uint8]:
    canvas = render.background(rng, size)
    for item in front_to_back[::-1]:
        height, width = item.alpha.shape
        y, x = max(item.top, 0), max(item.left, 0)
        under = canvas[y : max(item.top + height, y + 1), x : max(item.left + width, x + 1)]
        around = under.mean((0, 1)) if under.size else canvas.mean((0, 1))
        tones = render.VIVID if item.label >= 0 else render.MUTED
        base = render.colour_unlike(rng, around, rng.uniform(60, 120), tones)
        period = item.radius * rng.uniform(0.25, 0.8)
        ink = render.fill(rng, base, height, width, rng.uniform(0.1, 0.35), period, tones)
        if rng.random() < 0.4:
            offset = np.rint(rng.uniform(-0.16, 0.16, 2) * item.radius).astype(int)
            shadow = (int(offset[0]), int(offset[1]))
            render.add_shadow(canvas, item.left, item.top, item.alpha, shadow, rng.uniform(0.25, 0.6))
        if item.label >= 0:
            ink = _shade(item, ink)
        render.paint(canvas, item.left, item.top, item.alpha, ink)
        if item.label >= 0:
            _mark_head(rng, canvas, item, base)
    return render.expose(rng, canvas)


def _shade(item: _Item, ink: NDArray[np.float32]) -> NDArray[np.float32]:
    """Brighter towards the head, so that the direction can be seen from all of the object."""
    height, width = item.alpha.shape
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    dx, dy = (item.forward / np.linalg.norm(item.forward)).astype(np.float32)
    along = ((x - width / 2) * dx + (y - height / 2) * dy) / np.float32(item.radius)
    return ink + (along * np.float32(26))[..., None]


def _mark_head(rng: np.random.Generator, canvas: NDArray[np.float32], item: _Item, base: NDArray[np.float32]) -> None:
    """A dot at the head keypoint, cut to the object; it is what tells head from tail."""
    angle = np.arange(0, 2 * np.pi, np.pi / 8)
    dot = np.stack([np.cos(angle), np.sin(angle)], axis=1) * max(0.15 * item.radius, 1.0) + item.keypoints[0]
    left, top, alpha = cover([dot])
    dark = float(base.mean()) > 110
    colour = np.full(3, rng.uniform(0, 40) if dark else rng.uniform(215, 255), np.float32)
    render.paint(canvas, left, top, alpha, colour)


def _instance(item: _Item, size: int) -> Instance:
    assert item.mask is not None
    keypoints = np.zeros((len(item.keypoints), 3))
    for row, (x, y) in zip(keypoints, np.round(item.keypoints, 2), strict=True):
        if 0 <= x < size and 0 <= y < size:
            row[:] = x, y, 2 if item.mask[int(y), int(x)] else 1
    return Instance(label=item.label, mask=item.mask, keypoints=keypoints)
