"""The record of an evaluation: what was predicted, what it was scored against, and the metrics; as files, too.

Figures of a report and comparisons of models are computed from it, without the model. It needs no PyTorch.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from efftasks.structures.errors import UserError, WorkError

__all__ = ["RECORD_FILE", "EvaluationRecord", "digest_of", "task_of"]

RECORD_FILE = "record.json"
_GROUND_TRUTH, _DETECTIONS, _CONFUSION = "ground_truth.json", "predictions.json", "confusion.npz"
_SCHEMA = 1
_FIELDS = ("model", "task", "kinds", "images", "sigmas", "semantic_classes", "metrics", "seconds", "data_digest")


@dataclass(frozen=True, eq=False)
class EvaluationRecord:
    """An evaluation.

    Attributes:
        model: what was evaluated, as it was given.
        task: ``detection``, ``instance segmentation``, ``pose``, ``semantic segmentation``, or several joined by ``+``.
        kinds: those of CocoMetric: ``bbox``, ``segm``, ``keypoints``; empty for label maps alone.
        images: COCO images (``id``, ``file_name``, ``height``, ``width``) with ``path``, from which each was read; in
            the order of the data set.
        ground_truth: the COCO dict that was scored against, with the classes of the data set; None for label maps
            alone.
        detections: COCO results: ``image_id``, ``category_id``, ``score``, ``bbox``, and ``segmentation`` (compressed
            RLE) and ``keypoints`` where ``kinds`` has them; numbers as they were scored.
        sigmas: OKS sigmas of the keypoints; None without ``keypoints``.
        semantic_classes: of label maps; else empty.
        confusion: int64 (N, C, C), pixels of each image by true class (rows) and predicted class; None without label
            maps.
        metrics: as :func:`efftasks.apis.evaluate` returned them.
        seconds: mean time of the predictions of an image, with reading it; without that of the first batch.
        data_digest: of images and ground truth, see :func:`digest_of`: records are comparable where it is equal.
    """

    model: str
    task: str
    kinds: tuple[str, ...]
    images: list[dict[str, Any]]
    ground_truth: dict[str, Any] | None
    detections: list[dict[str, Any]]
    sigmas: tuple[float, ...] | None
    semantic_classes: tuple[str, ...]
    confusion: np.ndarray | None
    metrics: dict[str, float]
    seconds: float
    data_digest: str

    def save(self, folder: str | Path) -> None:
        """Write it as files into a folder, which is created; those of an older record there are replaced or removed.

        Raises:
            WorkError: a file cannot be written.
        """
        folder = Path(folder)
        about = {"schema": _SCHEMA, **{name: getattr(self, name) for name in _FIELDS}}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name in (_GROUND_TRUTH, _DETECTIONS, _CONFUSION):
                (folder / name).unlink(missing_ok=True)
            _write_json(folder / RECORD_FILE, about, indent=1)
            if self.ground_truth is not None:
                _write_json(folder / _GROUND_TRUTH, self.ground_truth)
                _write_json(folder / _DETECTIONS, self.detections)
            if self.confusion is not None:
                np.savez_compressed(folder / _CONFUSION, confusion=self.confusion)
        except OSError as error:
            raise WorkError(
                f"{folder}: the record of the evaluation could not be written ({error.strerror})"
            ) from error

    @classmethod
    def load(cls, folder: str | Path) -> EvaluationRecord:
        """Read what :meth:`save` has written.

        Raises:
            UserError: there is no record, or it is incomplete or broken.
        """
        folder = Path(folder)
        about = _read_json(folder / RECORD_FILE)
        missing = [name for name in (*_FIELDS, "schema") if not isinstance(about, dict) or name not in about]
        if missing:
            raise UserError(f"{folder / RECORD_FILE}: has no {missing[0]!r}, expected the record of an evaluation")
        if about["schema"] != _SCHEMA:
            raise UserError(f"{folder / RECORD_FILE}: schema: got {about['schema']!r}, expected {_SCHEMA}")
        has_objects = bool(about["kinds"])
        return cls(
            model=about["model"],
            task=about["task"],
            kinds=tuple(about["kinds"]),
            images=about["images"],
            ground_truth=_read_json(folder / _GROUND_TRUTH) if has_objects else None,
            detections=_read_json(folder / _DETECTIONS) if has_objects else [],
            sigmas=None if about["sigmas"] is None else tuple(about["sigmas"]),
            semantic_classes=tuple(about["semantic_classes"]),
            confusion=_read_confusion(folder / _CONFUSION) if about["semantic_classes"] else None,
            metrics=about["metrics"],
            seconds=about["seconds"],
            data_digest=about["data_digest"],
        )


def task_of(kinds: Sequence[str], semantic_classes: Sequence[str]) -> str:
    """The task of a record, from what was scored."""
    tasks = ["instance segmentation"] if "segm" in kinds else []
    tasks += ["pose"] if "keypoints" in kinds else []
    tasks = tasks or (["detection"] if kinds else [])
    return "+".join(tasks + (["semantic segmentation"] if semantic_classes else []))


def digest_of(
    images: Sequence[Mapping[str, Any]], ground_truth: Mapping[str, Any] | None, confusion: np.ndarray | None
) -> str:
    """SHA-256 of the ids and file names of the images, the ground truth, and the annotated pixels by class of each.

    The order of images and annotations does not matter; that of classes of label maps does.
    """
    pixels = None if confusion is None else confusion.sum(axis=2).tolist()  # of each image and true class
    rows = [
        [str(image["id"]), image["file_name"], None if pixels is None else pixels[i]] for i, image in enumerate(images)
    ]
    parts: dict[str, Any] = {"images": sorted(rows, key=lambda row: row[0])}
    for name in ("categories", "annotations"):
        parts[name] = sorted(json.dumps(row, sort_keys=True) for row in (ground_truth or {}).get(name, ()))
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _write_json(path: Path, data: Any, indent: int | None = None) -> None:
    path.write_text(json.dumps(data, indent=indent) + "\n", encoding="utf-8")


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such file, expected the record of an evaluation: efftasks test --report writes it"
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}), expected JSON of the record of an evaluation") from error


def _read_confusion(path: Path) -> np.ndarray:
    try:
        with np.load(path) as arrays:
            return np.asarray(arrays["confusion"])
    except FileNotFoundError:
        raise UserError(f"{path}: no such file, expected the confusion matrices of a record") from None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: cannot be read ({error}), expected the confusion matrices of a record") from error
