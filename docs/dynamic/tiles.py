"""Large scenes of real blood cells on real background, and what finds them: whole images, tiles, selected tiles.

Cells that touch no other are cut out of photographs and put in clusters on background that is sewn together from empty
places of the same photographs, all at the scale at which the network sees them. So every box is exact. See tiles.md.

    python docs/dynamic/tiles.py out/model.onnx --data-root data/bccd/ --sides 2048 4096 --out work_dirs/tiles
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from efftasks.bench.environment import describe_environment
from efftasks.bench.table import to_markdown
from efftasks.evaluation.coco_metric import coco_scores
from efftasks.imaging.prediction import Prediction
from efftasks.runtime.artifact import Artifact
from efftasks.runtime.predictor import Predictor
from efftasks.runtime.tile_grid import cut_window
from efftasks.runtime.tile_settings import TileSettings
from efftasks.runtime.tiles import TiledPredictor

SIDE = 320  # the network was trained on photographs of this size
PATCH, SEAM = 64, 16  # of the background, pixels
CLUSTER, SPREAD = 8, 110.0  # cells, and the standard deviation of their positions in pixels
RING = 5  # pixels of a photograph around a cell that are pasted with it
SCORE = 0.3  # of what counts as found, for rates of lost and doubled cells
Run = Callable[[np.ndarray], Prediction]


class Cell(NamedTuple):
    """A cell with a ring around it."""

    pixels: np.ndarray  # uint8 (h, w, 3)
    category: int


class Scene(NamedTuple):
    """A large image with exact boxes."""

    pixels: np.ndarray  # uint8 (H, W, 3)
    boxes: np.ndarray  # (K, 4) xyxy
    categories: np.ndarray  # (K,)


def read_parts(root: Path, splits: tuple[str, ...]) -> tuple[list[Cell], list[np.ndarray]]:
    """Cells that touch no other, and empty patches of the background, at the scale of the network."""
    cells: list[Cell] = []
    patches: list[np.ndarray] = []
    for split in splits:
        data = json.loads((root / "annotations" / f"{split}.json").read_text())
        for image in data["images"]:
            rows = [row for row in data["annotations"] if row["image_id"] == image["id"]]
            pixels = cv2.imread(str(root / "images" / image["file_name"]))
            scale = np.array([SIDE / pixels.shape[1], SIDE / pixels.shape[0]] * 2)
            pixels = cv2.resize(pixels, (SIDE, SIDE))
            boxes = np.array([row["bbox"] for row in rows], float).reshape(-1, 4)
            boxes[:, 2:] += boxes[:, :2]
            boxes *= scale
            cells += cut_cells(pixels, boxes, [row["category_id"] for row in rows])
            patches += cut_patches(pixels, boxes)
    return cells, patches


def touching(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Which boxes a box overlaps: bool (K,)."""
    return ((boxes[:, :2] < box[2:]) & (boxes[:, 2:] > box[:2])).all(1)


def cut_cells(pixels: np.ndarray, boxes: np.ndarray, categories: list[int]) -> list[Cell]:
    """The cells whose box with its ring overlaps no other, and lies in the image."""
    cells = []
    for box, category in zip(boxes, categories):
        around = np.round(box + [-RING, -RING, RING, RING]).astype(int)
        inside = around.min() >= 0 and around.max() <= SIDE
        if inside and touching(around, boxes).sum() == 1:
            x1, y1, x2, y2 = around
            cells.append(Cell(pixels[y1:y2, x1:x2], category))
    return cells


def cut_patches(pixels: np.ndarray, boxes: np.ndarray) -> list[np.ndarray]:
    """Patches without an annotated cell and without edges, as unlabeled cells have them."""
    patches = []
    for y in range(0, SIDE - PATCH + 1, PATCH // 2):
        for x in range(0, SIDE - PATCH + 1, PATCH // 2):
            patch = pixels[y : y + PATCH, x : x + PATCH]
            near = touching(np.array([x - 4, y - 4, x + PATCH + 4, y + PATCH + 4]), boxes).any()
            if not near and cv2.blur(patch, (5, 5)).reshape(-1, 3).std(0).max() < 5:
                patches.append(patch)
    return patches


def sew(patches: list[np.ndarray], side: int, random: np.random.Generator) -> np.ndarray:
    """Background (side, side, 3): patches in random order and orientation, with one mean, blended at their seams."""
    mean = np.mean([patch.mean((0, 1)) for patch in patches], axis=0)
    step = PATCH - SEAM
    count = -(-side // step) + 1
    canvas = np.zeros((count * step + SEAM, count * step + SEAM, 3), np.float32)
    ramp = np.clip((np.arange(PATCH) + 0.5) / SEAM, 0, 1)
    weight = np.minimum(ramp, ramp[::-1]).astype(np.float32)
    weights = (weight[:, None] * weight)[..., None]
    for y in range(0, count * step, step):
        for x in range(0, count * step, step):
            patch = patches[random.integers(len(patches))]
            patch = np.rot90(patch[:, :: random.choice([-1, 1])], random.integers(4)).astype(np.float32)
            canvas[y : y + PATCH, x : x + PATCH] += weights * (patch - patch.mean((0, 1)) + mean)
    return canvas[SEAM : SEAM + side, SEAM : SEAM + side]


def paste(canvas: np.ndarray, cell: Cell, x: int, y: int) -> None:
    """Put a cell onto the background, brought to its color, with a soft elliptical border."""
    height, width = cell.pixels.shape[:2]
    rows, columns = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    inner = min(height, width) / 2
    # 1 inside of the box, 0 where the ring ends.
    alpha = np.clip((1 + RING / inner - np.hypot(rows, columns)) * inner / (2 * RING), 0, 1)[..., None]
    edge = alpha[..., 0] < 0.5
    below = canvas[y : y + height, x : x + width]
    shift = below.reshape(-1, 3).mean(0) - np.median(cell.pixels[edge], axis=0)
    below += alpha * (cell.pixels + shift - below)


def compose(
    cells: list[Cell], patches: list[np.ndarray], side: int, clusters: int, random: np.random.Generator
) -> Scene:
    """A scene of ``side`` pixels with clusters of cells that do not overlap."""
    canvas = sew(patches, side, random)
    by_category = [[cell for cell in cells if cell.category == c] for c in sorted({cell.category for cell in cells})]
    boxes: list[np.ndarray] = []
    categories: list[int] = []
    for _ in range(clusters):
        middle = random.uniform(0, side, 2)
        for _ in range(CLUSTER):
            of_one = by_category[random.integers(len(by_category))]
            pixels, category = of_one[random.integers(len(of_one))]
            cell = Cell(pixels[:: random.choice([-1, 1]), :: random.choice([-1, 1])], category)
            height, width = cell.pixels.shape[:2]
            x, y = np.round(random.normal(middle, SPREAD) - [width / 2, height / 2]).astype(int)
            around = np.array([x, y, x + width, y + height])
            if around.min() < 0 or around.max() > side or (boxes and touching(around, np.array(boxes)).any()):
                continue
            paste(canvas, cell, x, y)
            boxes.append(around)
            categories.append(cell.category)
    inner = np.array(boxes, np.float32) + [RING, RING, -RING, -RING]
    return Scene(np.clip(canvas, 0, 255).round().astype(np.uint8), inner, np.array(categories))


class Naive:
    """Tiles as a ``TiledPredictor`` has them, whose detections are all taken; NMS removes duplicates by their overlap."""

    def __init__(self, tiled: TiledPredictor, iou: float) -> None:
        self.tiled, self.iou = tiled, iou

    def __call__(self, pixels: np.ndarray) -> Prediction:
        """Predict on one image."""
        grid = self.tiled.grids(pixels.shape[:2])[0]
        windows = [cut_window(pixels, tile, self.tiled.spec.input.pad_value) for tile in grid.tiles]
        found = self.tiled.predictor(windows)
        offsets = [np.array([tile.x.start, tile.y.start] * 2, np.float32) for tile in grid.tiles]
        boxes = np.concatenate([part.boxes + offset for part, offset in zip(found, offsets)])
        scores = np.concatenate([part.scores for part in found])
        labels = np.concatenate([part.labels for part in found])
        keep = suppress(boxes, scores, labels, self.iou)
        return replace(found[0], boxes=boxes[keep], scores=scores[keep], labels=labels[keep])


def suppress(boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, iou: float) -> np.ndarray:
    """NMS of each class: indices that are left, best first."""
    order = np.argsort(-scores, kind="stable")
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    kept: list[int] = []
    while order.size:
        best, order = order[0], order[1:]
        kept.append(int(best))
        sides = np.minimum(boxes[best, 2:], boxes[order, 2:]) - np.maximum(boxes[best, :2], boxes[order, :2])
        common = sides.clip(0).prod(1)
        same = labels[order] == labels[best]
        order = order[~(same & (common > iou * (area[best] + area[order] - common)))]
    return np.array(kept, int)


def average_precision(scenes: list[Scene], predictions: list[Prediction], names: tuple[str, ...]) -> dict[str, float]:
    """COCO's. Scenes have fewer than 100 cells of a class, so that its limit of 100 detections cuts off no hit."""
    boxes = [(i, box, c) for i, scene in enumerate(scenes) for box, c in zip(scene.boxes, scene.categories)]
    truth = dict(
        images=[
            dict(id=i, width=scene.pixels.shape[1], height=scene.pixels.shape[0]) for i, scene in enumerate(scenes)
        ],
        categories=[dict(id=i, name=name) for i, name in enumerate(names, 1)],
        annotations=[
            dict(id=n, image_id=i, category_id=int(c), bbox=[*map(float, box[:2]), *map(float, box[2:] - box[:2])])
            for n, (i, box, c) in enumerate(boxes, 1)
        ],
    )
    rows = [row for i, prediction in enumerate(predictions) for row in prediction.to_coco(i)]
    return coco_scores(truth, rows)[0]


class Counts(NamedTuple):
    """Of cells: how many there are, are not found, and are found more than once."""

    cells: int = 0
    lost: int = 0
    doubled: int = 0

    def add(self, hits: np.ndarray) -> Counts:
        """With cells that were hit so many times."""
        return Counts(self.cells + len(hits), self.lost + int((hits == 0).sum()), self.doubled + int((hits > 1).sum()))

    def __str__(self) -> str:
        cells = max(1, self.cells)
        return f"{self.cells} cells, lost {self.lost / cells:.2%}, doubled {self.doubled / cells:.2%}"


def hits_of(scene: Scene, prediction: Prediction, iou: float = 0.5) -> np.ndarray:
    """How many detections of its class lie on each cell: int (K,)."""
    found = prediction.filter(SCORE)
    ids = np.array(prediction.category_ids)[found.labels]
    low = np.maximum(scene.boxes[:, None, :2], found.boxes[None, :, :2])
    high = np.minimum(scene.boxes[:, None, 2:], found.boxes[None, :, 2:])
    common = (high - low).clip(0).prod(2)
    areas = [(b[:, 2:] - b[:, :2]).prod(1) for b in (scene.boxes, found.boxes)]
    overlap = common / (areas[0][:, None] + areas[1] - common)
    return ((overlap >= iou) & (scene.categories[:, None] == ids)).sum(1)


def border_distance(scene: Scene, tiled: TiledPredictor) -> np.ndarray:
    """Distance of the centers of cells to the next border between two cores, in pixels: (K,)."""
    tiles = tiled.grids(scene.pixels.shape[:2])[0].tiles
    centers = (scene.boxes[:, :2] + scene.boxes[:, 2:]) / 2
    distances = np.full(len(centers), np.inf)
    for axis, spans in enumerate(({tile.x for tile in tiles}, {tile.y for tile in tiles})):
        for border in {span.core_start for span in spans} - {0}:
            distances = np.minimum(distances, np.abs(centers[:, axis] - border))
    return distances
