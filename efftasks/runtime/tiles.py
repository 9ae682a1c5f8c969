"""Predict on large images tile by tile. An object is its tile's whose core has its center: nothing is suppressed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from efftasks.imaging.label_maps import labels_on_image
from efftasks.imaging.prediction import Prediction
from efftasks.imaging.sources import LoadedImage, each_image
from efftasks.runtime.predictor import Predictor
from efftasks.runtime.sources import Item, OnError, Skip, error_handler, open_source
from efftasks.runtime.tile_grid import Grid, Tile, cut_window, make_grid
from efftasks.runtime.tile_settings import TileSettings
from efftasks.structures.errors import UserError

__all__ = ["OnTiles", "TileCounts", "TiledPredictor", "strongest_edge"]

_LOG = logging.getLogger("efftasks")
_SHRINK = 8  # edges are looked for in an image that is smaller by this factor: noise and specks are averaged

OnTiles = Callable[[int, int], object]


@dataclass
class TileCounts:
    """How many tiles of the finest scale were looked at so far, and how many were not."""

    done: int = 0
    skipped: int = 0


class TiledPredictor:
    """A predictor for large images with small objects.

    An image is cut into cores without overlap, and each is seen with a margin around it. A detection is kept if the
    center of its box lies in the core of its tile. Objects that are too large for the margins are those of a smaller
    scale: which scale has an object follows from the larger side of its box alone. So no detection is compared with
    another. Label maps are put together from the cores.

    Args:
        predictor: of one tile; its ``score_thr`` counts.
        settings: how images are cut.
        on_tiles: called after each tile with the number of tiles of the image that are done, and of all that are to be
            looked at as far as this is known.

    Attributes:
        counts: of all images so far.
        margin: around cores, in pixels of the network input.

    Raises:
        UserError: the model gives masks, or the settings do not fit its input.
    """

    def __init__(
        self, predictor: Predictor, settings: TileSettings | None = None, on_tiles: OnTiles | None = None
    ) -> None:
        self.settings = settings or TileSettings()
        self.spec, self.score_thr = predictor.spec, predictor.score_thr
        session, outputs = predictor.session, predictor.session.outputs
        if "masks" in outputs:
            raise UserError(
                f"{session.path}: tiles: got a model that gives masks, expected boxes, keypoints or label maps: each "
                "mask would take a byte for each pixel of the large image"
            )
        self.finds_objects, self.maps_labels = "scores" in outputs, bool(outputs & {"segmentation", "logits"})
        if self.settings.select and not self.finds_objects:
            raise UserError(
                f"{session.path}: tiles: select: got {self.settings.select}, expected 0 for a model without boxes; "
                "edges selects tiles without it"
            )
        scale = self.settings.scales
        if self.spec.input.resize == "letterbox" and scale[0] != scale[1]:
            raise UserError(
                f"{session.path}: tiles: scale: got {scale[0]} and {scale[1]}, expected one number for a model that "
                "keeps the aspect ratio"
            )
        side = self.settings.side
        self.size = predictor.size if side is None else (side, side)
        self.predictor = Predictor(session, score_thr=self.score_thr, size=self.size)
        lower = min(self.score_thr, self.settings.select) if self.settings.select else self.score_thr
        self.scout = Predictor(session, score_thr=lower, size=self.size)
        self.margin = self.settings.margin_of(self.size, self.spec.input.divisor)
        self.counts = TileCounts()
        self._warned = False
        self.on_tiles: OnTiles = on_tiles or (lambda done, total: None)

    def __call__(
        self, images: Any, batch_size: int = 1, on_error: OnError = "raise", readers: int | None = None
    ) -> list[Prediction]:
        """Predict.

        Args:
            images: as for :class:`efftasks.runtime.predictor.Predictor`.
            batch_size: tiles at a time, where the artifact has a dynamic batch.
            on_error: as for :class:`efftasks.runtime.predictor.Predictor`.
            readers: number of threads that cut and normalize tiles; None for one, on more than two processors two.

        Returns:
            One prediction an image, as those of :class:`efftasks.runtime.predictor.Predictor`: in pixels of the image,
            by descending score.

        Raises:
            UserError: an image cannot be read.
        """
        items = (Item(image, i) for i, image in enumerate(each_image(images)))
        skip = self._checked(batch_size, on_error, readers)
        return list(self._predict(items, skip, batch_size, readers, keep_pixels=False))

    def stream(
        self,
        source: Any,
        batch_size: int = 1,
        on_error: OnError = "raise",
        readers: int | None = None,
        keep_pixels: bool = False,
    ) -> Iterator[Prediction]:
        """Predict one after another, with one image and a few batches of tiles in memory.

        Args:
            source: images, a video or a camera, as for :meth:`efftasks.runtime.predictor.Predictor.stream`.
            batch_size: as for :meth:`__call__`.
            on_error: as for :meth:`__call__`.
            readers: as for :meth:`__call__`.
            keep_pixels: whether predictions have the image as it was read in ``pixels``.

        Returns:
            An iterator of the predictions of :meth:`__call__`.

        Raises:
            UserError: the source cannot be read, or an image of it, when its turn comes.
        """
        skip = self._checked(batch_size, on_error, readers)
        return self._stream(source, skip, batch_size, readers, keep_pixels)

    def grids(self, image_size: tuple[int, int]) -> list[Grid]:
        """The tiles of an image (height, width) at each scale that is looked at, the finest first."""
        scale, stride = self.settings.scales, self.spec.input.divisor
        full_factor = max(image_size[0] * scale[1] / self.size[0], image_size[1] * scale[0] / self.size[1])
        levels = self.settings.levels if self.finds_objects else 1
        # Candidates, and the labels of tiles that are skipped, are those of the next smaller scale.
        looks_coarsely = self.settings.select or (self.maps_labels and self.settings.edges)
        most = max(levels, 2 if looks_coarsely else 1)
        grids = [make_grid(image_size, scale, self.size, self.margin, stride)]
        while len(grids) < most and len(grids[-1].tiles) > 1:
            factor = min(grids[-1].factor * self.settings.step, full_factor)
            grids.append(make_grid(image_size, scale, self.size, self.margin, stride, factor))
        return grids

    def _warn_once(self, note: str) -> None:
        if not self._warned:
            self._warned = True
            _LOG.warning("%s", note)

    def _checked(self, batch_size: int, on_error: OnError, readers: int | None) -> Skip | None:
        """What is called with an error, or None to raise it."""
        self.predictor.stream([], batch_size, on_error, readers)  # raises where an argument is wrong, and runs nothing
        return error_handler(on_error)

    def _stream(
        self, source: Any, skip: Skip | None, batch_size: int, readers: int | None, keep_pixels: bool
    ) -> Iterator[Prediction]:
        with closing(open_source(source)) as opened:
            yield from self._predict(iter(opened), skip, batch_size, readers, keep_pixels)

    def _predict(
        self, items: Iterator[Item], skip: Skip | None, batch_size: int, readers: int | None, keep_pixels: bool
    ) -> Iterator[Prediction]:
        for item in items:
            try:
                loaded = item.load(self.spec.input.pixel_range, self._warn_once)
            except UserError as error:
                if skip is None:
                    raise
                skip(error)
                continue
            image = _Image(self, loaded, batch_size, readers)
            pixels = loaded.pixels if keep_pixels else None
            yield replace(image.predict(), frame=item.frame, pixels=pixels)


class _Image:
    """The tiles of one image, from the coarsest scale to the finest."""

    def __init__(self, tiled: TiledPredictor, loaded: LoadedImage, batch_size: int, readers: int | None) -> None:
        self._tiled, self._loaded, self._batch_size, self._readers = tiled, loaded, batch_size, readers
        self._size = (loaded.pixels.shape[0], loaded.pixels.shape[1])
        self._grids = tiled.grids(self._size)
        self._total, self._done = sum(len(grid.tiles) for grid in self._grids), 0
        self._kept: list[Prediction] = []
        self._candidates: list[NDArray[np.float32]] = []
        self._labels = np.zeros(self._size, np.uint8) if tiled.maps_labels else None

    def predict(self) -> Prediction:
        """All tiles, put together."""
        for level in reversed(range(len(self._grids))):
            tiles = self._grids[level].tiles
            if level == 0:
                tiles = self._selected(tiles)
                self._total = self._done + len(tiles)
                self._tiled.counts.done += len(tiles)
                self._tiled.counts.skipped += len(self._grids[0].tiles) - len(tiles)
            for tile, prediction in self._run(tiles, level):
                self._take(tile, prediction, level)
                self._done += 1
                self._tiled.on_tiles(self._done, self._total)
        return self._joined()

    def _run(self, tiles: Sequence[Tile], level: int) -> Iterator[tuple[Tile, Prediction]]:
        """Each tile with what it shows, in pixels of the image."""
        tiled, pad_value = self._tiled, self._tiled.spec.input.pad_value
        predictor = tiled.scout if level == 1 and tiled.settings.select else tiled.predictor
        size = tiled.size if level else None
        windows = (cut_window(self._loaded.pixels, tile, pad_value, size) for tile in tiles)
        with closing(predictor.stream(windows, self._batch_size, readers=self._readers)) as predictions:  # type: ignore[type-var]  # a generator
            for tile, prediction in zip(tiles, predictions):
                yield tile, _on_image(prediction, tile, self._size)

    def _take(self, tile: Tile, prediction: Prediction, level: int) -> None:
        """Keep what is the tile's."""
        settings = self._tiled.settings
        if self._labels is not None and prediction.segmentation is not None:
            self._labels[tile.core] = prediction.segmentation[tile.core_in_window]
        corners = prediction.boxes.astype(np.float64)
        keep = tile.owns((corners[:, :2] + corners[:, 2:]) / 2)
        if level == 1 and settings.select:
            self._candidates.append(prediction.boxes[keep & (prediction.scores >= settings.select)])
        low, high = self._limits(level)
        sides = ((corners[:, 2:] - corners[:, :2]) * settings.scales).max(1)
        keep &= (low <= sides) & (sides < high) & (prediction.scores >= self._tiled.score_thr)
        self._kept.append(_rows(prediction, keep))

    def _limits(self, level: int) -> tuple[float, float]:
        """The longer sides of the objects of a scale, in pixels of the network input at the finest one: [low, high)."""
        owning = min(self._tiled.settings.levels, len(self._grids))
        if level >= owning:
            return np.inf, np.inf
        visible_side = 2 * self._tiled.margin  # what a tile sees whole, wherever in its core the center is
        low = visible_side * self._grids[level - 1].factor if level else 0.0
        return low, visible_side * self._grids[level].factor if level < owning - 1 else np.inf

    def _selected(self, tiles: list[Tile]) -> list[Tile]:
        """Those in which there may be something."""
        settings = self._tiled.settings
        if len(tiles) > 1 and settings.select:
            boxes = np.concatenate(self._candidates)
            tiles = [tile for tile in tiles if tile.meets(boxes).any()]
        if len(tiles) > 1 and settings.edges:
            tiles = [tile for tile in tiles if strongest_edge(self._loaded.pixels[tile.core]) >= settings.edges]
        return tiles

    def _joined(self) -> Prediction:
        spec, kept = self._tiled.spec, self._kept
        boxes = np.concatenate([np.zeros((0, 4), np.float32), *(part.boxes for part in kept)])
        scores = np.concatenate([np.zeros(0, np.float32), *(part.scores for part in kept)])
        labels = np.concatenate([np.zeros(0, np.int64), *(part.labels for part in kept)])
        points = [part.keypoints for part in kept if part.keypoints is not None]
        order = np.argsort(-scores, kind="stable")
        return Prediction(
            self._loaded.source,
            boxes[order],
            scores[order],
            labels[order],
            classes=spec.classes,
            category_ids=spec.category_ids,
            keypoints=np.concatenate(points)[order] if points else self._no_keypoints(),
            keypoint_names=spec.keypoints,
            skeleton=spec.skeleton,
            segmentation=self._labels,
            semantic_classes=spec.semantic_classes,
            palette=spec.palette,
            name=self._loaded.name,
            pixel_range=spec.input.pixel_range,
            size=self._size,
        )

    def _no_keypoints(self) -> NDArray[np.float32] | None:
        """Of no object, where no tile was looked at."""
        return np.zeros((0, len(self._tiled.spec.keypoints), 3), np.float32) if self._tiled.spec.keypoints else None


def _on_image(prediction: Prediction, tile: Tile, image_size: tuple[int, int]) -> Prediction:
    """The prediction of a tile, in pixels of the image."""
    window = (tile.y.stop - tile.y.start, tile.x.stop - tile.x.start)
    seen = prediction.size or window
    scale = np.array([window[1] / seen[1], window[0] / seen[0]], np.float32)
    offset = np.array([tile.x.start, tile.y.start], np.float32)
    boxes = prediction.boxes * np.tile(scale, 2) + np.tile(offset, 2)
    boxes = np.clip(boxes, 0, np.tile(image_size[::-1], 2)).astype(np.float32)
    points, labels = prediction.keypoints, prediction.segmentation
    if points is not None:
        points = np.concatenate([points[..., :2] * scale + offset, points[..., 2:]], axis=-1)
    if labels is not None and seen != window:
        labels = labels_on_image(labels, seen, seen, window)
    return replace(prediction, boxes=boxes, keypoints=points, segmentation=labels)


def _rows(prediction: Prediction, keep: NDArray[np.bool_]) -> Prediction:
    """Some of the detections."""
    points = None if prediction.keypoints is None else prediction.keypoints[keep]
    return replace(
        prediction,
        image="",  # a tile's pixels are not needed any more
        boxes=prediction.boxes[keep],
        scores=prediction.scores[keep],
        labels=prediction.labels[keep],
        keypoints=points,
        segmentation=None,
    )


def strongest_edge(pixels: NDArray[np.uint8]) -> int:
    """The largest change of the gray level from a pixel to the next, of an image (H, W, 3) made smaller by 8."""
    gray = cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY)
    size = [max(1, n // _SHRINK) for n in gray.shape]
    small = cv2.resize(gray, size[::-1], interpolation=cv2.INTER_AREA)
    pairs = ((small[1:], small[:-1]), (small[:, 1:], small[:, :-1]))
    return max(int(cv2.absdiff(a, b).max()) if a.size else 0 for a, b in pairs)
