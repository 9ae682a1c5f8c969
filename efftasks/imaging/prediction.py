"""The predictions of one image, as numpy arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from efftasks.imaging.rle import encode_rle
from efftasks.structures.errors import UserError, WorkError
from efftasks.structures.pixel_range import PixelRange

__all__ = ["Prediction", "class_metadata"]


@dataclass(frozen=True, eq=False)
class Prediction:
    """The detections of one image, by descending score and without NMS, its label map, or both.

    Attributes:
        image: path, or the image itself: uint8 (H, W, 3) BGR.
        boxes: float32 (K, 4) xyxy in pixels of the image.
        scores: float32 (K,) in [0, 1].
        labels: int64 (K,), indices into ``classes``.
        classes: name of each label.
        category_ids: category id of each label in the data set.
        masks: bool (K, H, W), false outside the box; or None.
        keypoints: float32 (K, P, 3): x, y in pixels of the image (may lie outside), and score; or None.
        keypoint_names: of the P keypoints.
        skeleton: pairs of keypoints that are connected in pictures, indices from 0.
        segmentation: uint8 (H, W), label map with indices into ``semantic_classes``; or None.
        semantic_classes: name of each value of ``segmentation``; empty for ``classes``.
        palette: RGB of each value of ``segmentation`` in pictures; empty for a default palette.
        name: file name of its picture, without suffix; empty for the stem of the path, or ``image``.
        pixel_range: values of black and white in an image of more than 8 bits, or None.
        size: (height, width) of the image in pixels, where it is known without reading it; or None.
        frame: number of the frame in its video, from 0; or None.
        pixels: the image as it was read, uint8 (H, W, 3) BGR, where it was kept for drawing; or None.
        exit_score: how good the answer at an early exit was, in [0, 1]; None of networks without one.
        exited: whether that answer was taken; None of networks without one.
        input_size: (height, width) of the network input whose answer it is, where a rule chose it; or None.
        carried_from: number of the key frame whose detections these are, moved; None where the network has run.
        track_ids: int64 (K,), number of the track that each detection continues, from 0; -1 of one without a track; or
            None where nothing was tracked.
    """

    image: str | np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    masks: np.ndarray | None = None
    keypoints: np.ndarray | None = None
    keypoint_names: tuple[str, ...] = ()
    skeleton: tuple[tuple[int, int], ...] = ()
    segmentation: np.ndarray | None = None
    semantic_classes: tuple[str, ...] = ()
    palette: tuple[tuple[int, int, int], ...] = ()
    name: str = ""
    pixel_range: PixelRange | None = None
    size: tuple[int, int] | None = None
    frame: int | None = None
    pixels: np.ndarray | None = None
    exit_score: float | None = None
    exited: bool | None = None
    input_size: tuple[int, int] | None = None
    carried_from: int | None = None
    track_ids: np.ndarray | None = None

    @classmethod
    def of_labels(cls, image: str | np.ndarray, segmentation: np.ndarray, **fields: Any) -> Prediction:
        """The prediction of a semantic segmenter: a label map, and no detections.

        Args:
            image: see the attribute.
            segmentation: see the attribute.
            fields: other attributes, such as ``classes`` and ``category_ids``.
        """
        none = np.zeros(0, np.float32)
        return cls(image, none.reshape(0, 4), none, none.astype(np.int64), segmentation=segmentation, **fields)

    @classmethod
    def from_supervision(
        cls, detections: Any, image: str | np.ndarray, classes: Sequence[str], key_points: Any = None, **fields: Any
    ) -> Prediction:
        """The prediction that ``supervision.Detections`` stand for: what :meth:`to_supervision` gives, and back.

        Detections are sorted by descending score; without ``confidence`` every score is 1.

        Args:
            detections: with ``class_id``, indices into ``classes``; ``mask`` and ``tracker_id`` are taken along.
            image: see the attribute.
            classes: see the attribute.
            key_points: ``supervision.KeyPoints`` of the same objects in the same order; or None.
            fields: other attributes, such as ``keypoint_names``; ``category_ids`` are 0, 1, ... unless stated.

        Raises:
            UserError: the objects have no classes, or others, or ``key_points`` are those of other objects.
        """
        from efftasks.imaging.supervision import detection_fields

        read = detection_fields(detections, image, len(classes), key_points)
        ids = tuple(range(len(classes)))
        return cls(image, classes=tuple(classes), **{"category_ids": ids, **read, **fields})

    @property
    def stem(self) -> str:
        """File name of its picture, without suffix."""
        return self.name or (Path(self.image).stem if isinstance(self.image, str) else "image")

    @property
    def segmentation_names(self) -> tuple[str, ...]:
        """Name of each value of ``segmentation``."""
        return self.semantic_classes or self.classes

    def __len__(self) -> int:
        return len(self.scores)

    def __repr__(self) -> str:
        name = self.image if isinstance(self.image, str) else f"array {self.image.shape}"
        parts = []
        if self.segmentation is None or self.semantic_classes or len(self):
            best = ", ".join(f"{self.classes[i]} {s:.2f}" for i, s in zip(self.labels[:3], self.scores[:3]))
            parts.append(f"{len(self)} detections{': ' + best if best else ''}")
        if self.masks is not None:
            parts.append("masks")
        if self.keypoints is not None:
            parts.append(f"{self.keypoints.shape[1]} keypoints each")
        if self.segmentation is not None:
            parts.append(self._shares(self.segmentation))
        return f"Prediction({name}: {'; '.join(parts)})"

    def _shares(self, segmentation: np.ndarray) -> str:
        """The three classes with the most pixels, and their shares."""
        ids, pixels = np.unique(segmentation, return_counts=True)
        order = np.argsort(-pixels, kind="stable")[:3]
        return ", ".join(f"{self.segmentation_names[ids[i]]} {pixels[i] / pixels.sum():.0%}" for i in order)

    def filter(self, score_thr: float | np.ndarray) -> Prediction:
        """The detections with a score of at least ``score_thr``, a number, or one for each detection: float (K,)."""
        keep = self.scores >= score_thr
        return replace(
            self,
            boxes=self.boxes[keep],
            scores=self.scores[keep],
            labels=self.labels[keep],
            masks=None if self.masks is None else self.masks[keep],
            keypoints=None if self.keypoints is None else self.keypoints[keep],
            track_ids=None if self.track_ids is None else self.track_ids[keep],
        )

    def read_pixels(self) -> np.ndarray:
        """The image, uint8 (H, W, 3) BGR: as it was kept, or read again.

        Raises:
            UserError: it cannot be read.
        """
        from efftasks.imaging.images import read_image, to_eight_bits

        if self.pixels is not None:
            return self.pixels
        if isinstance(self.image, str):
            return read_image(self.image, self.pixel_range)
        return to_eight_bits(self.image, self.pixel_range)

    def draw(self, out: str | Path | None = None, score_thr: float = 0.3) -> np.ndarray:
        """Draw the label map, and the masks, boxes and keypoints with a sufficient score, on the image.

        Args:
            out: folder for ``<stem>.jpg``; None writes no file.
            score_thr: minimum score, of objects and of each of their keypoints.

        Returns:
            uint8 (H, W, 3) BGR.

        Raises:
            UserError: the image cannot be read, or ``<stem>.jpg`` is the image itself.
            WorkError: the picture cannot be written.
        """
        from efftasks.imaging.drawing import draw_instances
        from efftasks.imaging.semantic_drawing import draw_semantic

        image = self.read_pixels()
        if self.segmentation is not None:
            image = draw_semantic(image, self.segmentation, self._colors())
        shown = self.filter(score_thr)
        picture = draw_instances(
            image,
            shown.boxes,
            shown.labels,
            list(self.classes),
            scores=shown.scores,
            masks=shown.masks,
            keypoints=shown._keypoints_from(score_thr),
            skeleton=self.skeleton,
            track_ids=shown.track_ids,
        )
        if out is not None:
            self._write(picture, Path(out, f"{self.stem}.jpg"))
        return picture

    def save_labels(self, out: str | Path) -> Path:
        """Write the label map as ``<stem>.png``: 8 bits, the class index of each pixel, with a color palette.

        Args:
            out: folder.

        Raises:
            ValueError: the prediction has no label map.
            UserError: ``<stem>.png`` is the image itself.
            WorkError: the file cannot be written.
        """
        from efftasks.imaging.semantic_drawing import write_indexed_png

        if self.segmentation is None:
            raise ValueError("segmentation: got None, expected a label map")
        path = Path(out, f"{self.stem}.png")
        self._prepare(path)
        try:
            write_indexed_png(path, self.segmentation, self._colors())
        except OSError as error:
            raise WorkError(f"{path}: the label map could not be written ({error.strerror})") from error
        return path

    def _colors(self) -> list[tuple[int, int, int]]:
        """(b, g, r) of each value of ``segmentation``."""
        from efftasks.imaging.semantic_drawing import semantic_palette

        return [(b, g, r) for r, g, b in self.palette] or semantic_palette(len(self.segmentation_names))

    def _keypoints_from(self, score_thr: float) -> np.ndarray | None:
        """The keypoints, with a score of 0 for those below ``score_thr``."""
        if self.keypoints is None:
            return None
        keep = self.keypoints[..., 2:] >= score_thr
        return np.concatenate([self.keypoints[..., :2], self.keypoints[..., 2:] * keep], axis=-1)

    def _write(self, picture: np.ndarray, path: Path) -> None:
        from efftasks.imaging.drawing import jpeg_of

        self._prepare(path)
        try:
            path.write_bytes(jpeg_of(picture))
        except OSError as error:
            raise WorkError(f"{path}: the picture could not be written ({error.strerror})") from error

    def _prepare(self, path: Path) -> None:
        """Create the folder of a file to write, which must not be the image itself."""
        if isinstance(self.image, str) and path.resolve() == Path(self.image).resolve():
            raise UserError(f"{path}: got the folder of the image itself, expected another one to draw into")
        path.parent.mkdir(parents=True, exist_ok=True)

    def to_coco(self, image_id: int = 0) -> list[dict[str, Any]]:
        """COCO results: one dict per detection.

        ``bbox`` is xywh in pixels of the image. Predictions with masks have ``segmentation``, compressed run lengths,
        and those with keypoints have ``keypoints``, the flat list of x, y and score. Detections of a track have
        ``track_id``.
        """
        sides = np.concatenate([self.boxes[:, :2], self.boxes[:, 2:] - self.boxes[:, :2]], axis=1)
        rows: list[dict[str, Any]] = [
            {
                "image_id": image_id,
                "category_id": int(self.category_ids[label]),
                "bbox": [round(float(v), 3) for v in box],
                "score": round(float(score), 6),
            }
            for box, score, label in zip(sides, self.scores, self.labels)
        ]
        if self.masks is not None:
            for row, mask in zip(rows, self.masks):
                row["segmentation"] = encode_rle(mask)
        if self.keypoints is not None:
            for row, points in zip(rows, self.keypoints.astype(np.float64)):
                row["keypoints"] = points.round(3).ravel().tolist()
        if self.track_ids is not None:
            for row, track in zip(rows, self.track_ids.tolist()):
                if track >= 0:
                    row["track_id"] = track
        return rows

    def to_supervision(self) -> Any:
        """``supervision.Detections``, for the annotators, trackers and zones of that package.

        Returns:
            ``xyxy`` float32 (K, 4), ``confidence`` (K,), ``class_id`` (K,), ``mask`` bool (K, H, W) or None,
            ``tracker_id`` (K,) or None, and ``data["class_name"]``. A label map is not in it.

        Raises:
            UserError: the package ``supervision`` is not installed.
        """
        from efftasks.imaging.supervision import to_detections

        return to_detections(self)

    def to_supervision_keypoints(self) -> Any:
        """``supervision.KeyPoints``: ``xy`` float32 (K, P, 2), ``confidence`` of each keypoint, classes as above.

        Raises:
            UserError: there are no keypoints, or the package ``supervision`` is not installed.
        """
        from efftasks.imaging.supervision import to_key_points

        return to_key_points(self)

    def to_fiftyone(self) -> dict[str, Any]:
        """Labels of FiftyOne, by the names of fields for them: ``sample.update_fields(prediction.to_fiftyone())``.

        Returns:
            ``detections`` (``fiftyone.Detections`` with masks), ``keypoints`` (``fiftyone.Keypoints``) and
            ``segmentation`` (``fiftyone.Segmentation``), those that the prediction has. Coordinates are shares of the
            image, masks the part inside the box, ``index`` the number of the track.

        Raises:
            UserError: the package ``fiftyone`` is not installed, or the size of the image is not known.
        """
        from efftasks.imaging.fiftyone import to_labels

        return to_labels(self)


def class_metadata(meta: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of predictions and artifacts on classes and keypoints, from the metadata of a data set."""
    classes = tuple(meta["classes"])
    keypoints = meta.get("keypoints") or {}
    return dict(
        classes=classes,
        category_ids=tuple(meta.get("category_ids") or range(len(classes))),  # label maps have class indices
        palette=_rgb(meta.get("semantic_palette") or meta.get("palette")),
        semantic_classes=tuple(meta.get("semantic_classes") or ()),
        keypoint_names=tuple(keypoints.get("names") or ()),
        skeleton=tuple((int(a), int(b)) for a, b in keypoints.get("skeleton") or ()),
    )


def _rgb(palette: Any) -> tuple[tuple[int, int, int], ...]:
    return tuple((int(r), int(g), int(b)) for r, g, b in palette or ())
