"""Large scenes of real blood cells on real background, and what finds them: whole images, tiles, selected tiles.

Cells that touch no other are cut out of photographs and put in clusters on background that is sewn together from empty
places of the same photographs, all at the scale at which the network sees them. So every box is exact. See tiles.md.

    python docs/dynamic/tiles.py out/model.onnx --data-root data/bccd/ --sides 2048 4096 --out work_dirs/tiles
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Callable
from dataclasses import replace
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
from efftasks.runtime.tiles import TiledPredictor, strongest_edge

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
    """Tiles as those of a ``TiledPredictor``, all of whose detections are taken: NMS removes duplicates."""

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


def methods(artifact: Artifact, side: int, full_up_to: int) -> dict[str, Run]:
    """What is compared on scenes of ``side`` pixels: name -> function of an image."""
    one = Predictor(artifact, score_thr=0.01)

    def tiled(**settings: Any) -> Run:
        return First(TiledPredictor(one, TileSettings(**settings)))

    runs: dict[str, Run] = {f"whole image at {SIDE}": First(one)}
    for shrink in (8, 4, 2, 1):
        if SIDE < side // shrink <= full_up_to:
            runs[f"whole image at {side // shrink}"] = First(
                Predictor(artifact, score_thr=0.01, size=(side // shrink,) * 2)
            )
    runs["tiles, margin 64"] = every = tiled()
    runs["tiles, margin 96"] = tiled(margin=96)
    runs["tiles of 640, margin 64"] = tiled(side=640)
    runs["tiles of 640, margin 96"] = tiled(side=640, margin=96)
    runs["tiles, 2 levels"] = tiled(levels=2)
    runs["tiles of 640, margin 96, 2 levels"] = tiled(side=640, margin=96, levels=2)
    for score in (0.02, 0.1):
        runs[f"select {score}, step 4"] = tiled(select=score)
    for score in (0.02, 0.05, 0.1, 0.3):
        runs[f"select {score}, step 2"] = tiled(select=score, step=2)
    for edge in (8, 12, 16, 24):
        runs[f"edges {edge}"] = tiled(edges=edge)
    runs["edges 12, tiles of 640, margin 96"] = tiled(edges=12, side=640, margin=96)
    runs["tiles without margin"] = tiled(margin=0)
    assert isinstance(every, First) and isinstance(every.predictor, TiledPredictor)
    for iou in (0.5, 0.7):
        runs[f"tiles, NMS at {iou}"] = Naive(every.predictor, iou)
    return runs


class First:
    """A predictor of one image."""

    def __init__(self, predictor: Predictor | TiledPredictor) -> None:
        self.predictor = predictor

    def __call__(self, pixels: np.ndarray) -> Prediction:
        """Predict on one image."""
        return self.predictor(pixels, batch_size=4)[0]

    @property
    def share(self) -> float:
        """Of the tiles that were looked at."""
        if not isinstance(self.predictor, TiledPredictor):
            return 1.0
        counts = self.predictor.counts
        return counts.done / max(1, counts.done + counts.skipped)


def compare(artifact: Artifact, scenes: list[Scene], only: str, full_up_to: int) -> list[dict[str, Any]]:
    """A row for each method whose name has ``only`` in it; all run in turn on each scene."""
    runs = methods(artifact, scenes[0].pixels.shape[0], full_up_to)
    runs = {name: run for name, run in runs.items() if re.search(only, name)}
    predictions: dict[str, list[Prediction]] = {name: [] for name in runs}
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for number, scene in enumerate(scenes):
        for name, run in runs.items():
            start = time.process_time(), time.perf_counter()
            predictions[name].append(run(scene.pixels))
            seconds[name].append((time.process_time() - start[0], time.perf_counter() - start[1]))
            print(f"scene {number}, {name}: {seconds[name][-1][0]:.2f} s of processor time", flush=True)
    rows = []
    for name, run in runs.items():
        scores = average_precision(scenes, predictions[name], predictions[name][0].classes)
        counts = Counts()
        for scene, prediction in zip(scenes, predictions[name]):
            counts = counts.add(hits_of(scene, prediction))
        processor, wall = np.median(seconds[name], axis=0)
        rows.append(
            {
                "method": name,
                "AP": f"{100 * scores['bbox_mAP']:.1f}",
                "AP50": f"{100 * scores['bbox_mAP_50']:.1f}",
                "lost %": f"{100 * counts.lost / counts.cells:.1f}",
                "doubled %": f"{100 * counts.doubled / counts.cells:.1f}",
                "tiles %": f"{100 * run.share:.0f}" if isinstance(run, First) else "100",
                "processor s": f"{processor:.2f}",
                "wall s": f"{wall:.2f}",
            }
        )
    return rows


def at_borders(
    artifact: Artifact, cells: list[Cell], patches: list[np.ndarray], margin: int, shift: int, repeats: int
) -> dict[str, Any]:
    """Each cell on a border between two cores, seen by both tiles: how their centers differ, and what is lost.

    Args:
        artifact: the detector.
        cells: of :func:`read_parts`.
        patches: of :func:`read_parts`.
        margin: of tiles of ``SIDE`` pixels.
        shift: added to the distance of the tiles: other than 0 they do not have the same cells of the network.
        repeats: times that each cell is pasted, up to 4 pixels from the border.
    """
    random = np.random.default_rng(0)
    background = sew(patches, 1024, random)
    one = Predictor(artifact, score_thr=SCORE)
    second, border = SIDE - 2 * margin + shift, SIDE - margin
    kept = Counts()
    alone = Counts()
    differences = []
    for cell in [cell for cell in cells for _ in range(repeats)]:
        height, width = cell.pixels.shape[:2]
        top = int(random.integers(0, 1024 - SIDE))
        canvas = background[top : top + SIDE, : second + SIDE].copy()
        x, y = border + int(random.integers(-4, 5)) - width // 2, int(random.integers(100, 220)) - height // 2
        paste(canvas, cell, x, y)
        pixels = np.clip(canvas, 0, 255).round().astype(np.uint8)
        inner = np.array([[x, y, x + width, y + height]]) + [RING, RING, -RING, -RING]
        scene = Scene(pixels, inner, np.array([cell.category]))
        found = one([pixels[:, :SIDE], pixels[:, second:]], batch_size=2)
        centers = []
        for prediction, offset in zip(found, (0, second)):
            boxes = prediction.boxes + np.array([offset, 0, offset, 0], np.float32)
            hits = [
                hits_of(
                    scene, replace(prediction, boxes=boxes[i : i + 1], scores=np.ones(1), labels=np.array([label]))
                )[0]
                for i, label in enumerate(prediction.labels)
            ]
            middle = (boxes[:, 0] + boxes[:, 2]) / 2
            centers.append(middle[np.array(hits, bool)])
            alone = alone.add(np.array([sum(hits)]))
        kept = kept.add(np.array([(centers[0] < border).sum() + (centers[1] >= border).sum()]))
        if len(centers[0]) == len(centers[1]) == 1:
            differences.append(abs(float(centers[1][0] - centers[0][0])))
    mean = float(np.mean(differences))
    step = SIDE - 2 * margin
    return {
        "margin": margin,
        "shift": shift,
        "cells": kept.cells,
        "lost %": f"{100 * kept.lost / kept.cells:.1f}",
        "of one tile": f"{100 * alone.lost / alone.cells:.1f}",
        "doubled %": f"{100 * kept.doubled / kept.cells:.1f}",
        "of one tile ": f"{100 * alone.doubled / alone.cells:.1f}",
        "centers differ px": f"{mean:.2f}",
        "95 % px": f"{np.quantile(differences, 0.95):.2f}",
        # A border separates two estimates of a center as often as their distance is of the distance of borders.
        "expected in an image %": f"{100 * 2 * mean / step:.2f}",
    }


def draw(artifact: Artifact, scene: Scene, path: Path) -> None:
    """A picture of a scene: what is found, the cores, and in gray those that are not looked at."""
    settings = TileSettings(edges=16)
    tiled = TiledPredictor(Predictor(artifact, score_thr=SCORE), settings)
    shown = scene.pixels.copy()
    for box in tiled(scene.pixels)[0].boxes.astype(int):
        cv2.rectangle(shown, box[:2], box[2:], (200, 60, 0), 4)
    for tile in tiled.grids(scene.pixels.shape[:2])[0].tiles:
        if strongest_edge(scene.pixels[tile.core]) < settings.edges:
            shown[tile.core] = shown[tile.core] // 2 + 40
        corners = (tile.x.core_start, tile.y.core_start), (tile.x.core_stop, tile.y.core_stop)
        cv2.rectangle(shown, *corners, (255, 255, 255), 3)
    small = cv2.resize(shown, None, fx=0.4, fy=0.4, interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(path), small, [cv2.IMWRITE_JPEG_QUALITY, 85])


def main() -> None:
    """Compose the scenes, run everything, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="an exported o2o detector of blood cells, with a dynamic size")
    parser.add_argument("--data-root", type=Path, default=Path("data/bccd"))
    parser.add_argument("--sides", type=int, nargs="*", default=[2048, 4096])
    parser.add_argument("--scenes", type=int, default=4, help="of each side")
    parser.add_argument("--only", default="", help="methods whose name this regular expression finds")
    parser.add_argument("--full-up-to", type=int, default=2048, help="largest input of a whole image")
    parser.add_argument("--borders", type=int, default=2, help="times each cell is put on a border; 0 for none")
    parser.add_argument("--out", type=Path, help="folder for the scenes, and a picture of the first")
    args = parser.parse_args()
    artifact = Artifact(args.model, threads=1)
    cells, patches = read_parts(args.data_root, ("val", "test"))
    print(f"{len(cells)} cells, {len(patches)} patches; {describe_environment()}")
    for side in args.sides:
        clusters = round(12 * side / 2048)
        scenes = [compose(cells, patches, side, clusters, np.random.default_rng(seed)) for seed in range(args.scenes)]
        if args.out:
            args.out.mkdir(parents=True, exist_ok=True)
            for number, scene in enumerate(scenes):
                cv2.imwrite(str(args.out / f"{side}_{number}.png"), scene.pixels)
            draw(artifact, scenes[0], args.out / f"{side}.jpg")
        rows = compare(artifact, scenes, args.only, args.full_up_to)
        print(f"\n{args.scenes} scenes of {side} pixels, {sum(len(scene.boxes) for scene in scenes)} cells\n")
        print(to_markdown(rows, tuple(rows[0])), flush=True)
    if args.borders:
        pairs = ((32, 0), (64, 0), (96, 0), (128, 0), (64, 16))
        rows = [at_borders(artifact, cells, patches, margin, shift, args.borders) for margin, shift in pairs]
        print(to_markdown(rows, tuple(rows[0])))


if __name__ == "__main__":
    main()
