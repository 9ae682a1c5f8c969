"""Files of predictions, written while they are made: COCO results and CSV. Memory does not grow with their number."""

from __future__ import annotations

import csv
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Protocol

from efftasks.imaging.prediction import Prediction

__all__ = ["CocoWriter", "CsvWriter", "LabelWriter", "Writer"]

_BOX = ("x1", "y1", "x2", "y2")
_PIXEL_DIGITS, _SCORE_DIGITS = 3, 6


class Writer(Protocol):
    """What writes predictions of images, one after another."""

    def add(self, name: str, prediction: Prediction) -> None:
        """Write the prediction of an image or frame, which is called ``name`` in lists."""
        ...

    def close(self) -> None:
        """Complete the file; also after an error or an interrupt, with what there is. Without any there is no file."""
        ...


class CocoWriter:
    """``predictions.json``: COCO results, with the lists of images and categories.

    Rows go to two temporary files beside it, which are joined at the end.

    Args:
        path: of the file, whose folder exists.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._images, self._annotations = (_Rows(self._path.parent) for _ in range(2))
        self._categories: dict[int, dict[str, Any]] = {}
        self._semantic_classes: tuple[str, ...] = ()

    def add(self, name: str, prediction: Prediction) -> None:
        """Add the predictions of an image of known size."""
        assert prediction.size is not None, "predictors state the size of what they have read"
        image_id, (height, width) = self._images.count + 1, prediction.size
        image: dict[str, Any] = {"id": image_id, "file_name": name, "height": height, "width": width}
        if prediction.frame is not None:
            image["frame"] = prediction.frame
        if prediction.carried_from is not None:
            image["carried_from"] = prediction.carried_from
        if prediction.segmentation is not None:
            image["segmentation"] = f"{LabelWriter.FOLDER}/{prediction.stem}.png"
        self._annotations.extend(self.rows(prediction, image_id))
        self._images.extend([image])
        self._categories.update((category["id"], category) for category in _categories(prediction))
        self._semantic_classes = prediction.semantic_classes

    def rows(self, prediction: Prediction, image_id: int) -> list[dict[str, Any]]:
        """What stands in the file for the objects of an image."""
        return prediction.to_coco(image_id)

    def close(self) -> None:
        """Join the parts, and replace the file."""
        with self._images, self._annotations:
            if self._images.count:
                self._write()

    def _write(self) -> None:
        with tempfile.TemporaryDirectory(dir=self._path.parent) as folder:
            draft = Path(folder, self._path.name)
            with draft.open("w", encoding="utf-8") as file:
                file.write('{"images": ')
                self._images.copy_to(file)
                file.write(f', "categories": {json.dumps(list(self._categories.values()))}, "annotations": ')
                self._annotations.copy_to(file)
                if self._semantic_classes:
                    file.write(f', "semantic_classes": {json.dumps(self._semantic_classes)}')
                file.write("}\n")
            os.replace(draft, self._path)


class CsvWriter:
    """One row an object: file, frame, class, score, box xyxy in pixels of the image, and x, y, score of each keypoint.

    Predictions with tracks have ``track_id``, empty for an object without one.

    Args:
        path: of the file, whose folder exists.
        video: what stands for the file in rows of frames; None for the names of the frames.
        has_carried: whether the last column is the number of the key frame of what was carried; empty for the others.
    """

    def __init__(self, path: str | Path, video: str | None = None, has_carried: bool = False) -> None:
        self._path, self._video, self._has_carried = Path(path), video, has_carried
        self._file: IO[str] | None = None

    def add(self, name: str, prediction: Prediction) -> None:
        """Add the objects of an image; the first one makes the header."""
        if self._file is None:
            self._file = self._path.open("w", newline="", encoding="utf-8")
            self._writer = csv.writer(self._file)
            header = ["file", "frame", "class", "score", *_BOX, *_point_columns(prediction)]
            header += [] if prediction.track_ids is None else ["track_id"]
            self._writer.writerow([*header, "carried_from"] if self._has_carried else header)
        frame: str | int = ""
        if prediction.frame is not None:
            name, frame = self._video or name, prediction.frame
        for i, label in enumerate(prediction.labels):
            box = (round(float(value), _PIXEL_DIGITS) for value in prediction.boxes[i])
            score = round(float(prediction.scores[i]), _SCORE_DIGITS)
            points = [] if prediction.keypoints is None else prediction.keypoints[i].ravel().tolist()
            more = (
                round(value, _SCORE_DIGITS if place % 3 == 2 else _PIXEL_DIGITS) for place, value in enumerate(points)
            )
            row = [name, frame, prediction.classes[label], score, *box, *more]
            if prediction.track_ids is not None:
                row.append("" if prediction.track_ids[i] < 0 else int(prediction.track_ids[i]))
            self._writer.writerow([*row, prediction.carried_from] if self._has_carried else row)  # None is empty

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


class LabelWriter:
    """Label maps as ``labels/<stem>.png``, where predictions have them.

    Args:
        out: folder of ``labels/``.
    """

    FOLDER = "labels"

    def __init__(self, out: str | Path) -> None:
        self._folder = Path(out) / self.FOLDER

    def add(self, name: str, prediction: Prediction) -> None:
        """Write the label map of an image."""
        if prediction.segmentation is not None:
            prediction.save_labels(self._folder)

    def close(self) -> None:
        """Nothing to complete."""


class _Rows:
    """A list of JSON on disk."""

    def __init__(self, folder: Path) -> None:
        self._file: IO[str] = tempfile.TemporaryFile("w+", dir=folder, encoding="utf-8")  # noqa: SIM115
        self.count = 0

    def extend(self, rows: Iterable[dict[str, Any]]) -> None:
        for row in rows:
            self._file.write(f"{', ' if self.count else ''}{json.dumps(row)}")
            self.count += 1

    def copy_to(self, file: IO[str]) -> None:
        self._file.seek(0)
        file.write("[")
        shutil.copyfileobj(self._file, file)
        file.write("]")

    def __enter__(self) -> _Rows:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def _categories(prediction: Prediction) -> Iterator[dict[str, Any]]:
    """The categories as in COCO files, where skeletons count from 1."""
    points: dict[str, Any] = {}
    if prediction.keypoints is not None:
        points["keypoints"] = list(prediction.keypoint_names)
        points["skeleton"] = [[a + 1, b + 1] for a, b in prediction.skeleton]
    for key, name in zip(prediction.category_ids, prediction.classes):
        yield {"id": key, "name": name, **points}


def _point_columns(prediction: Prediction) -> list[str]:
    """``nose_x``, ``nose_y``, ``nose_score``, ... of predictions with keypoints."""
    if prediction.keypoints is None:
        return []
    count = prediction.keypoints.shape[1]
    names = prediction.keypoint_names or tuple(f"keypoint_{i}" for i in range(count))
    return [f"{name}_{part}" for name in names for part in ("x", "y", "score")]
