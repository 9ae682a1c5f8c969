"""Records of the models of a comparison: evaluated once, and kept beside the page."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

import efftasks
from efftasks.apis.compare_subjects import Subject
from efftasks.apis.entry_predictors import entry_predictor
from efftasks.apis.evaluating import Info, Predict, evaluate, test_classes, test_images
from efftasks.config import load_config
from efftasks.datasets.transforms.loading import LoadSegMap
from efftasks.evaluation.records import EvaluationRecord
from efftasks.imaging.prediction import Prediction
from efftasks.linking.linked import LinkedConfig
from efftasks.runtime.backends.table import find_backend
from efftasks.structures.errors import WorkError
from efftasks.structures.suffixes import is_checkpoint

__all__ = ["KeptRecords"]

_KEY = "key.json"
_LABEL_MAPS = "label_maps"


class KeptRecords:
    """Evaluates models on the test data of a config, or reads what an earlier comparison has kept.

    A record is used again if the files of model, images and annotations and the configs are the same.

    Args:
        config: of the data.
        options: overrides of all configs.
        folder: where records are kept, a folder for each model.
        check: check the data first.
    """

    def __init__(self, config: str, options: dict[str, Any], folder: Path, check: bool) -> None:
        self._options, self._folder, self._check = options, folder, check
        self.cfg: LinkedConfig = load_config(config, options)
        self._configs = {config: self.cfg}
        self._infos = test_images(self.cfg)
        self._data_key = _digest([_file_states(self._infos), self._infos, _evaluators(self.cfg)])

    def config_of(self, subject: Subject) -> LinkedConfig:
        """The config of a checkpoint; that of the data for others."""
        if subject.config is None:
            return self.cfg
        if subject.config not in self._configs:
            self._configs[subject.config] = load_config(subject.config, self._options)
        return self._configs[subject.config]

    def record(self, subject: Subject) -> EvaluationRecord:
        """The record of a model.

        Raises:
            UserError: the model cannot be evaluated on the data.
        """
        folder = self._folder_of(subject)
        cfg = self.config_of(subject)
        key = {
            "model": _file_digest(subject.path),
            "config": _digest(cfg.pretty_text) if is_checkpoint(subject.path) else "",
            "data": self._data_key,
            "efftasks": efftasks.__version__,
        }
        if (folder / _KEY).is_file() and json.loads((folder / _KEY).read_text(encoding="utf-8")) == key:
            return EvaluationRecord.load(folder)
        (folder / _KEY).unlink(missing_ok=True)
        predict, classes = entry_predictor(cfg, str(subject.path))
        keeping = _keeping_label_maps(predict, test_classes(self.cfg, classes), folder / _LABEL_MAPS)
        result = evaluate(self.cfg, keeping, classes, check=self._check, record=True, model=subject.given)
        self._check = False  # once is enough
        assert result.record is not None
        result.record.save(folder)
        (folder / _KEY).write_text(json.dumps(key, indent=1) + "\n", encoding="utf-8")
        return result.record

    def label_maps(self, subjects: Sequence[Subject], position: int) -> list[np.ndarray]:
        """Label maps of an image: that of the ground truth, and each model's; empty where they have none."""
        paths = [self._folder_of(subject) / _LABEL_MAPS / f"{position}.png" for subject in subjects]
        info = self._infos[position]
        if "seg_map_path" not in info or not all(path.is_file() for path in paths):
            return []
        truth = np.asarray(LoadSegMap()(dict(info))["gt_seg_map"]).astype(np.uint8)
        return [truth, *(np.asarray(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)) for path in paths)]

    def _folder_of(self, subject: Subject) -> Path:
        digest = hashlib.sha256(f"{subject.config}:{subject.path.resolve()}".encode()).hexdigest()[:8]
        return self._folder / f"{subject.path.stem}-{digest}"


def _keeping_label_maps(predict: Predict, classes: Sequence[str], folder: Path) -> Predict:
    """The same predictions; label maps are written as ``<number>.png``, with the data set's numbers of classes."""
    count = 0

    def predict_and_keep(entries: Sequence[Info]) -> Sequence[Prediction]:
        nonlocal count
        predictions = predict(entries)
        for number, prediction in enumerate(predictions, count):
            if prediction.segmentation is not None:
                labels = prediction.segmentation
                if not prediction.semantic_classes:
                    labels = np.array([classes.index(name) for name in prediction.classes], np.uint8)[labels]
                folder.mkdir(parents=True, exist_ok=True)
                if not cv2.imwrite(str(folder / f"{number}.png"), labels):
                    raise WorkError(f"{folder / f'{number}.png'}: the label map could not be written")
        count += len(predictions)
        return predictions

    return predict_and_keep


def _file_digest(path: Path) -> str:
    """SHA-256 of all files of a model."""
    parts = [path] if is_checkpoint(path) else find_backend(path).parts(path)
    digest = hashlib.sha256()
    for part in [*parts, path.with_suffix(".json")]:
        if part.is_file():
            digest.update(part.read_bytes())
    return digest.hexdigest()


def _file_states(infos: Sequence[Info]) -> list[tuple[int, int]]:
    """Size and time of the files of the data."""
    paths = {info[key] for info in infos for key in ("img_path", "seg_map_path") if key in info}
    states = (Path(path).stat() for path in sorted(paths) if Path(path).is_file())
    return [(state.st_size, state.st_mtime_ns) for state in states]


def _evaluators(cfg: LinkedConfig) -> list[Any]:
    """The metrics of a config, and the content of their annotation files."""
    evaluators = cfg.test_evaluator if isinstance(cfg.test_evaluator, (list, tuple)) else [cfg.test_evaluator]
    files = [Path(one["ann_file"]) for one in evaluators if one.get("ann_file")]
    return [str(cfg.test_evaluator), *(hashlib.sha256(file.read_bytes()).hexdigest() for file in files)]


def _digest(value: Any) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()
