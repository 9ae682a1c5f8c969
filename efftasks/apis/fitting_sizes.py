"""Fitting a rule for input sizes to a user's data: ridge regression of what each size loses, in numpy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from efftasks.apis.size_rows import SizeRuns
from efftasks.evaluation.image_ap import image_ap
from efftasks.imaging.prediction import Prediction
from efftasks.runtime.size_features import answer_features
from efftasks.runtime.size_rules import LOOKS_AT, LearnedRule, Size
from efftasks.runtime.sizes import SizedPredictor
from efftasks.structures.errors import UserError
from efftasks.structures.spec_parts import ArtifactFile

__all__ = ["fit_rule", "fit_size_rule", "losses_of"]

_PENALTIES = (0.1, 1.0, 10.0, 100.0, 1000.0)  # of the ridge regression, on standardized features
_LEAST_IMAGES = 20


def fit_size_rule(predictor: SizedPredictor, runs: SizeRuns, looks_at: str) -> LearnedRule:
    """Fit a rule to the answers of each size on annotated images.

    Args:
        predictor: whose sizes and files they are.
        runs: from :func:`efftasks.apis.size_rows.run_sizes`.
        looks_at: ``answer`` of the smallest size, or ``picture``.

    Raises:
        UserError: there are too few images.
    """
    if len(runs.infos) < _LEAST_IMAGES:
        raise UserError(
            f"--fit-sizes: the test data has {len(runs.infos)} images, expected at least {_LEAST_IMAGES}; give a "
            "larger set with --cfg-options test_dataloader.dataset.ann_file=... test_evaluator.ann_file=..."
        )
    features = runs.pictures
    if looks_at == "answer":
        features = np.array([answer_features(answers[0], predictor.sizes[0]) for answers in runs.answers])
    files = tuple(ArtifactFile.of(path) for path in predictor.paths)
    return fit_rule(features, losses_of(runs), looks_at, predictor.sizes, files)


def losses_of(runs: SizeRuns) -> np.ndarray:
    """What the answer of each size loses against that of the best size, in AP of the image: (N, S) in [0, 1]."""
    images = zip(runs.infos, runs.answers)
    quality = np.array([[_quality(info, answer, runs.classes) for answer in answers] for info, answers in images])
    return quality.max(1, keepdims=True) - quality


def fit_rule(
    features: np.ndarray, losses: np.ndarray, looks_at: str, sizes: Sequence[Size], files: Sequence[ArtifactFile] = ()
) -> LearnedRule:
    """Ridge regression of losses (N, S) on features (N, F).

    The penalty is that of the least error on images that were left out, one at a time.
    """
    count = len(LOOKS_AT[looks_at])
    if features.shape[1] != count:
        raise ValueError(f"features: got {features.shape[1]}, expected the {count} of {looks_at!r}")
    mean, std = features.mean(0), features.std(0)
    std = np.where(std > 1e-9, std, 1.0)  # a feature that never changes says nothing
    scaled = (features - mean) / std
    constant = losses.mean(0)
    weights = _ridge(scaled, losses - constant)
    rows = tuple((*map(float, column), float(base)) for column, base in zip(weights.T, constant))
    return LearnedRule(looks_at, tuple(sizes), tuple(mean.tolist()), tuple(std.tolist()), rows, tuple(files))


def _ridge(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Weights (F, S) for centered x (N, F) and y (N, S), with the penalty that predicts left-out rows best."""
    left, values, right = np.linalg.svd(x, full_matrices=False)
    projected = left.T @ y
    errors = []
    for penalty in _PENALTIES:
        shrink = values**2 / (values**2 + penalty)
        residual = y - left @ (shrink[:, None] * projected)
        leverage = (left**2 @ shrink) + 1 / len(x)  # the constant is fitted, too
        errors.append(float(((residual / np.maximum(1 - leverage, 1e-6)[:, None]) ** 2).mean()))
    penalty = _PENALTIES[int(np.argmin(errors))]
    return right.T @ ((values / (values**2 + penalty))[:, None] * projected)


def _quality(info: dict[str, Any], answer: Prediction, classes: Sequence[str]) -> float:
    objects = [x for x in info["instances"] if not x.get("ignore_flag")]
    boxes = np.array([x["bbox"] for x in objects], np.float64).reshape(-1, 4)
    labels = np.array([answer.classes.index(classes[x["bbox_label"]]) for x in objects], np.int64)
    return image_ap(answer.boxes, answer.scores, answer.labels, boxes, labels)
