"""One scene of the built-in data set: its objects, their places and occlusions, and its picture.

Objects are placed from front to back, so the visible part of an object is known when it is placed. An object with too
little of it visible is not placed at all, so no part of an object is visible without its annotation.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from efftasks.datasets import shapes_render as render
from efftasks.datasets.shapes_geometry import CLASSES, cover, keypoints_of, outlines_of

__all__ = ["Instance", "Scene", "make_scene"]

EMPTY_SHARE = 0.03  # share of the scenes without objects
MIN_VISIBLE = 0.35  # share of the area of an object, including parts outside the picture, that must be visible
MIN_PIXELS = 24  # visible pixels of an object
_OCCLUDED_SHARE = 0.25  # share of the objects that are placed partly behind another one


@dataclass(frozen=True)
class Instance:
    """One object: ``label`` indexes ``CLASSES``; ``mask`` (S, S) bool is its visible part.

    ``keypoints`` (4, 3) are x, y in pixels (pixel i covers [i, i + 1)) and COCO's visibility: 2 visible, 1 hidden
    inside the picture, 0 (at 0, 0) outside the picture.
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
    """An object (label >= 0) or clutter (label -1) to paint."""

    label: int
    left: int
    top: int
    alpha: NDArray[np.float32]
    radius: float
    keypoints: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 2)))
    forward: NDArray[np.float64] = field(default_factory=lambda: np.array([1.0, 0.0]))
    mask: NDArray[np.bool_] | None = None  # the visible part of an object


def make_scene(seed: int, split: int, index: int, size: int) -> Scene:
    """Make one scene; it depends only on the four arguments.

    Args:
        seed: seed of the set.
        split: 0 for training, 1 for validation; each has its own random streams.
        index: index of the scene in its split.
        size: side of the square picture in pixels.
    """
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(split, index)))
    occupied = np.zeros((size, size), bool)
    front = [_clutter(rng, size) for _ in range(rng.integers(0, 3))]
    for item in front:
        occupied |= _covered(item, size)
    objects: list[_Item] = []
    if rng.random() >= EMPTY_SHARE:
        for _ in range(1 + min(rng.poisson(2.5), 10)):
            placed = _place(rng, size, occupied, bool(objects))
            if placed is not None:
                objects.append(placed)
                occupied |= _covered(placed, size)
    back = [_clutter(rng, size) for _ in range(rng.integers(0, 4))]
    image = _photograph(rng, size, [*front, *objects, *back])
    instances = tuple(_instance(item, size) for item in objects)
    semantic = np.zeros((size, size), np.uint8)
    for instance in instances:
        semantic[instance.mask] = instance.label + 1
    return Scene(image=image, instances=instances, semantic=semantic)


def _covered(item: _Item, size: int) -> NDArray[np.bool_]:
    """Bool (S, S): the pixels of which the item covers at least half."""
    covered = np.zeros((size, size), bool)
    height, width = item.alpha.shape
    y0, y1, x0, x1 = max(item.top, 0), min(item.top + height, size), max(item.left, 0), min(item.left + width, size)
    if y1 > y0 and x1 > x0:
        covered[y0:y1, x0:x1] = item.alpha[y0 - item.top : y1 - item.top, x0 - item.left : x1 - item.left] >= 0.5
    return covered


def _place(rng: np.random.Generator, size: int, occupied: NDArray[np.bool_], behind_others: bool) -> _Item | None:
    """Place an object so that enough of it is visible, some of them partly occluded; None if no place was found."""
    label = int(rng.integers(len(CLASSES)))
    radius = size * float(np.exp(rng.uniform(np.log(0.09), np.log(0.32))))
    hide = behind_others and rng.random() < _OCCLUDED_SHARE
    spin, squash = rng.uniform(0, 2 * np.pi, 2), rng.uniform(0.75, 1.0)
    matrix = radius * _rotation(spin[0]) @ _rotation(spin[1]) @ np.diag([1.0, squash]) @ _rotation(-spin[1])
    for _ in range(14):
        center = rng.uniform(0, size, 2)
        lines = [line @ matrix.T + center for line in outlines_of(CLASSES[label])]
        left, top, alpha = cover(lines)
        points = keypoints_of(CLASSES[label]) @ matrix.T + center
        item = _Item(label, left, top, alpha, radius, points, matrix[:, 0] / radius)
        covered = _covered(item, size)
        item.mask = covered & ~occupied
        visible = int(item.mask.sum())
        uncovered = visible / max(int(covered.sum()), 1)
        if visible < max(MIN_PIXELS, MIN_VISIBLE * float(alpha.sum())):
            continue
        if (0.4 <= uncovered <= 0.9) if hide else uncovered >= 0.97:
            return item
    return None


def _rotation(angle: float) -> NDArray[np.float64]:
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos, -sin], [sin, cos]])


def _clutter(rng: np.random.Generator, size: int) -> _Item:
    """An object of no class: a bent wire or a straight bar."""
    center = rng.uniform(0, size, 2)
    radius = size * rng.uniform(0.05, 0.16)
    straight = rng.integers(2)
    t = np.linspace(-1, 1, 16)
    bend = 0.0 if straight else rng.uniform(-0.6, 0.6)
    spine = np.stack([t * rng.uniform(1.5, 4.5), bend * np.sin(t * np.pi * rng.uniform(0.4, 1.2))], axis=1)
    half = np.array([0.0, size * rng.uniform(0.004, 0.013) / radius])
    line = np.concatenate([spine + half, (spine - half)[::-1]])
    left, top, alpha = cover([line @ (radius * _rotation(rng.uniform(0, 2 * np.pi))).T + center])
    return _Item(-1, left, top, alpha, float(radius))


def _photograph(rng: np.random.Generator, size: int, front_to_back: list[_Item]) -> NDArray[np.uint8]:
    canvas = render.background(rng, size)
    for item in front_to_back[::-1]:
        height, width = item.alpha.shape
        y, x = max(item.top, 0), max(item.left, 0)
        under = canvas[y : max(item.top + height, y + 1), x : max(item.left + width, x + 1)]
        surroundings = under.mean((0, 1)) if under.size else canvas.mean((0, 1))
        tones = render.VIVID if item.label >= 0 else render.MUTED
        base = render.color_unlike(rng, surroundings, rng.uniform(60, 120), tones)
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
    """Brighten the object towards its head, so that every part of it shows the direction."""
    height, width = item.alpha.shape
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    dx, dy = (item.forward / np.linalg.norm(item.forward)).astype(np.float32)
    along = ((x - width / 2) * dx + (y - height / 2) * dy) / np.float32(item.radius)
    return ink + (along * np.float32(26))[..., None]


def _mark_head(rng: np.random.Generator, canvas: NDArray[np.float32], item: _Item, base: NDArray[np.float32]) -> None:
    """Paint a dot at the head keypoint, inside the object; it distinguishes head from tail."""
    angle = np.arange(0, 2 * np.pi, np.pi / 8)
    dot = np.stack([np.cos(angle), np.sin(angle)], axis=1) * max(0.15 * item.radius, 1.0) + item.keypoints[0]
    left, top, alpha = cover([dot])
    dark = float(base.mean()) > 110
    color = np.full(3, rng.uniform(0, 40) if dark else rng.uniform(215, 255), np.float32)
    render.paint(canvas, left, top, alpha, color)


def _instance(item: _Item, size: int) -> Instance:
    assert item.mask is not None
    keypoints = np.zeros((len(item.keypoints), 3))
    for row, (x, y) in zip(keypoints, np.round(item.keypoints, 2), strict=True):
        if 0 <= x < size and 0 <= y < size:
            row[:] = x, y, 2 if item.mask[int(y), int(x)] else 1
    return Instance(label=item.label, mask=item.mask, keypoints=keypoints)
