"""Evaluation of a network at several input sizes: each alone, and as a rule chooses among them, with their times."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import efftasks.compat  # noqa: F401

# isort: split
import numpy as np
from mmengine.logging import MMLogger
from tqdm import tqdm

from efftasks.apis.evaluating import evaluate, test_classes, test_images
from efftasks.apis.precheck import precheck_together
from efftasks.bench.latency import summarise
from efftasks.imaging.images import read_image
from efftasks.imaging.prediction import Prediction
from efftasks.linking.linked import LinkedConfig
from efftasks.runtime.size_features import picture_features
from efftasks.runtime.size_rules import CascadeRule, LearnedRule
from efftasks.runtime.sizes import SizedPredictor
from efftasks.structures.errors import UserError

__all__ = ["SizeRuns", "run_sizes", "size_columns", "size_rows"]

Rule = CascadeRule | LearnedRule
_WARMUP = 3  # runs of each size that do not count


@dataclass
class SizeRuns:
    """The answers of each size for the images of a data set.

    Attributes:
        infos: of the images, as the data set has them.
        classes: name of each label in them.
        answers: of each image, of each size; without masks, which would take gigabytes.
        milliseconds: (N, S), of preprocessing, network and decoding of a single image.
        pictures: features of each image for rules that look at pictures (N, F), and their milliseconds (N,).
        picture_milliseconds: see there.
    """

    infos: list[dict[str, Any]]
    classes: tuple[str, ...]
    answers: list[list[Prediction]]
    milliseconds: np.ndarray
    pictures: np.ndarray
    picture_milliseconds: np.ndarray


def run_sizes(cfg: LinkedConfig, predictor: SizedPredictor, check: bool = True) -> SizeRuns:
    """Run each size on each image of the test data of a config, one image at a time, the sizes in turn.

    Args:
        cfg: from :func:`efftasks.config.load_config`.
        predictor: the sizes.
        check: check the data first, see :func:`efftasks.apis.precheck.precheck`.

    Raises:
        UserError: the data cannot be evaluated, or the classes are not those of the data set.
    """
    if check:
        precheck_together(cfg, ("test",), MMLogger.get_current_instance())
    classes = test_classes(cfg, predictor.spec.classes)
    infos = test_images(cfg)
    count = len(predictor.sizes)
    answers, times, pictures, picture_times = [], [], [], []
    for position, info in enumerate(tqdm(infos, desc="sizes", unit="image", disable=None)):
        pixels = read_image(info["img_path"], predictor.spec.input.pixel_range)
        if position == 0:
            for index in list(range(count)) * _WARMUP:
                predictor.predict_pixels(index, [pixels])
        start = time.perf_counter()
        pictures.append(picture_features(pixels))
        marks = [time.perf_counter()]
        picture_times.append((marks[0] - start) * 1e3)
        of_image = []
        for index in range(count):
            answer = predictor.predict_pixels(index, [pixels])[0]
            marks.append(time.perf_counter())
            of_image.append(replace(answer, image=info["img_path"], masks=None))
        answers.append(of_image)
        times.append(np.diff(marks) * 1e3)
    return SizeRuns(infos, classes, answers, np.array(times), np.array(pictures), np.array(picture_times))


def chosen_sizes(runs: SizeRuns, rule: Rule, sizes: Sequence[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """What a rule takes for each image: indices of sizes (N,), and milliseconds (N,) with all sizes that it ran."""
    chosen, milliseconds = [], []
    for i, answers in enumerate(runs.answers):
        spent = 0.0
        if isinstance(rule, LearnedRule) and rule.looks_at == "picture":
            index, spent = rule.choose(runs.pictures[i]), float(runs.picture_milliseconds[i])
        else:
            index = 0
        while True:
            spent += runs.milliseconds[i, index]
            start = time.perf_counter()
            following = rule.next(index, answers[index], sizes)
            spent += (time.perf_counter() - start) * 1e3
            if following == index:
                break
            index = following
        chosen.append(index)
        milliseconds.append(spent)
    return np.array(chosen), np.array(milliseconds)


def size_rows(
    cfg: LinkedConfig, predictor: SizedPredictor, runs: SizeRuns, rule: Rule, thresholds: Sequence[float]
) -> list[dict[str, Any]]:
    """Metrics and times of each size alone, and of the rule at each threshold.

    Returns:
        Rows with ``size`` or ``threshold``, the metrics of the config, the share of images of each size (``192x192 %``)
        and ``mean ms``, ``p50 ms``, ``p99 ms`` of an image.
    """
    names = predictor.names
    count = len(runs.infos)
    rows = []
    for index, name in enumerate(names):
        fixed = np.full(count, index)
        rows.append(dict(size=name) | _row(cfg, predictor, runs, fixed, runs.milliseconds[:, index]))
    for threshold in thresholds:
        chosen, milliseconds = chosen_sizes(runs, replace(rule, threshold=threshold), predictor.sizes)
        shares = {f"{name} %": 100 * float((chosen == index).mean()) for index, name in enumerate(names)}
        row = _row(cfg, predictor, runs, chosen, milliseconds)
        rows.append(dict(size="by rule", threshold=threshold) | row | shares)
    return rows


def size_columns(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The columns of a printed table: the first metric alone, and all that is about sizes and times."""
    first = next(key for key in rows[0] if key != "size")
    shares = [key for key in rows[-1] if key.endswith(" %")]
    return ["size", "threshold", first, *shares, "mean ms", "p50 ms", "p99 ms"]


def _row(
    cfg: LinkedConfig, predictor: SizedPredictor, runs: SizeRuns, chosen: np.ndarray, milliseconds: np.ndarray
) -> dict[str, Any]:
    # A data set may have an image several times only for crops of it, and those are not detected in.
    by_path = {info["img_path"]: answers[i] for info, answers, i in zip(runs.infos, runs.answers, chosen)}
    if len(by_path) != len(runs.infos):
        raise UserError("--sizes: the test data has several entries of one image, expected one each")
    again = {info["img_path"]: int(i) for info, i in zip(runs.infos, chosen)}

    def predict(entries: Sequence[dict[str, Any]]) -> list[Prediction]:
        paths = [entry["img_path"] for entry in entries]
        if "masks" not in predictor.predictors[0].session.outputs:
            return [by_path[path] for path in paths]
        pixel_range = predictor.spec.input.pixel_range
        return [predictor.predict_pixels(again[path], [read_image(path, pixel_range)])[0] for path in paths]

    result = evaluate(cfg, predict, predictor.spec.classes, check=False)
    stats = summarise(milliseconds)
    return {**result.metrics, "mean ms": stats.mean, "p50 ms": stats.p50, "p99 ms": stats.p99}
