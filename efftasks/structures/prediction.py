"""What every way of predicting gives for one image: numpy only."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from efftasks.structures.errors import UserError, WorkError

__all__ = ["Prediction"]


@dataclass(frozen=True, eq=False)
class Prediction:
    """The detections of one image, best first; nothing was suppressed.

    Attributes:
        image: path, or the array uint8 (H, W, 3) BGR itself.
        boxes: float32 (K, 4) xyxy in pixels of the image.
        scores: float32 (K,) in [0, 1].
        labels: int64 (K,), indices into ``classes``.
        classes: name of each label.
        category_ids: the data set's category id of each label.
        masks: bool (K, H, W), or None.
        keypoints: float32 (K, P, 3): x, y in pixels of the image, and score; or None.
        skeleton: pairs of keypoints to join in a picture.
        name: what a picture of it is called, without suffix; empty takes the stem of the path, or ``image``.
    """

    image: str | np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    masks: np.ndarray | None = None
    keypoints: np.ndarray | None = None
    skeleton: tuple[tuple[int, int], ...] = ()
    name: str = ""

    @property
    def stem(self) -> str:
        """Name of its picture, without suffix."""
        return self.name or (Path(self.image).stem if isinstance(self.image, str) else "image")

    def __len__(self) -> int:
        return len(self.scores)

    def __repr__(self) -> str:
        name = self.image if isinstance(self.image, str) else f"array {self.image.shape}"
        best = ", ".join(f"{self.classes[i]} {s:.2f}" for i, s in zip(self.labels[:3], self.scores[:3]))
        return f"Prediction({name}: {len(self)} detections{': ' + best if best else ''})"

    def filter(self, score_thr: float) -> Prediction:
        """Only what scores at least ``score_thr``."""
        keep = self.scores >= score_thr
        return replace(
            self,
            boxes=self.boxes[keep],
            scores=self.scores[keep],
            labels=self.labels[keep],
            masks=None if self.masks is None else self.masks[keep],
            keypoints=None if self.keypoints is None else self.keypoints[keep],
        )

    def draw(self, out: str | Path | None = None, score_thr: float = 0.3) -> np.ndarray:
        """The image with what scores at least ``score_thr`` drawn on it.

        Args:
            out: folder to write ``<stem>.jpg`` into; None writes nothing.
            score_thr: least score drawn.

        Returns:
            uint8 (H, W, 3) BGR.

        Raises:
            UserError: the image cannot be read, or ``<stem>.jpg`` is the image itself.
            WorkError: the picture cannot be written.
        """

        from efftasks.structures.drawing import draw_instances
        from efftasks.structures.images import read_image

        image = read_image(self.image) if isinstance(self.image, str) else self.image
        shown = self.filter(score_thr)
        picture = draw_instances(
            image,
            shown.boxes,
            shown.labels,
            list(self.classes),
            scores=shown.scores,
            masks=shown.masks,
            keypoints=shown.keypoints,
            skeleton=self.skeleton,
        )
        if out is not None:
            self._write(picture, Path(out, f"{self.stem}.jpg"))
        return picture

    def _write(self, picture: np.ndarray, path: Path) -> None:
        import cv2

        if isinstance(self.image, str) and path.resolve() == Path(self.image).resolve():
            raise UserError(f"{path}: got the folder of the image itself, expected another one to draw into")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            path.write_bytes(cv2.imencode(".jpg", picture)[1].tobytes())
        except OSError as error:
            raise WorkError(f"{path}: the picture could not be written ({error.strerror})") from error

    def to_coco(self, image_id: int = 0) -> list[dict[str, Any]]:
        """COCO results: one dict a detection, ``bbox`` xywh in pixels of the image."""
        sides = np.concatenate([self.boxes[:, :2], self.boxes[:, 2:] - self.boxes[:, :2]], axis=1)
        return [
            {
                "image_id": image_id,
                "category_id": int(self.category_ids[label]),
                "bbox": [round(float(v), 3) for v in box],
                "score": round(float(score), 6),
            }
            for box, score, label in zip(sides, self.scores, self.labels)
        ]
