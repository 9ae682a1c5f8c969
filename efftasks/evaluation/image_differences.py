"""Images on which models differ most, from their records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from efftasks.evaluation.matches import Matches
from efftasks.evaluation.records import EvaluationRecord

__all__ = ["ImageDifference", "most_different", "shown_kind"]


class ImageDifference(NamedTuple):
    """An image on which models differ.

    Attributes:
        position: in the images of the records.
        amount: how much: objects and false detections that one model alone has, or points of right pixels.
        texts: of each model, what is wrong with its prediction.
    """

    position: int
    amount: float
    texts: tuple[str, ...]


def most_different(
    records: Sequence[EvaluationRecord], matches: Sequence[Mapping[str, Matches]], count: int, score_thr: float = 0.3
) -> list[ImageDifference]:
    """The images on which a model differs most from the first, the most different first; those without are left out.

    Detections count from ``score_thr`` on, at an IoU (OKS) of 0.5, of masks or keypoints where there are any. Without
    objects it is the share of right pixels.

    Args:
        records: of the same data.
        matches: of each record, by kind.
        count: number of images.
        score_thr: least score of detections.
    """
    images = _by_objects(records, matches, score_thr) if matches[0] else _by_pixels(records)
    images = sorted((image for image in images if image.amount > 0), key=lambda image: -image.amount)
    return images[:count]


def shown_kind(matches: Mapping[str, Matches]) -> str:
    """The kind by which images are compared: keypoints or masks, where there are any, else boxes."""
    return next(kind for kind in ("keypoints", "segm", "bbox") if kind in matches)


class _Errors(NamedTuple):
    detected: list[set[int]]  # numbers of objects, of each image
    missed: np.ndarray  # (N,)
    false: np.ndarray  # (N,)


def _by_objects(
    records: Sequence[EvaluationRecord], matches: Sequence[Mapping[str, Matches]], score_thr: float
) -> list[ImageDifference]:
    kind = shown_kind(matches[0])
    errors = [_errors(one[kind], score_thr) for one in matches]
    truth = records[0].ground_truth
    assert truth is not None
    index = {image["id"]: i for i, image in enumerate(records[0].images)}
    images = []
    for i, image in enumerate(truth["images"]):
        if image["id"] in index:
            amounts = [
                len(errors[0].detected[i] ^ one.detected[i]) + abs(int(errors[0].false[i]) - int(one.false[i]))
                for one in errors[1:]
            ]
            texts = tuple(f"{one.missed[i]} missed, {one.false[i]} false" for one in errors)
            images.append(ImageDifference(index[image["id"]], max(amounts), texts))
    return images


def _errors(matches: Matches, score_thr: float) -> _Errors:
    detected: list[set[int]] = [set() for _ in range(matches.images)]
    missed, false = np.zeros(matches.images, np.int64), np.zeros(matches.images, np.int64)
    for one in matches.areas["all"]:
        shown = one.scores >= score_thr
        hits = shown & one.hits[0]
        for image, number in zip(one.images[hits].tolist(), one.object_numbers[hits].tolist()):
            detected[image].add(number)
        missed += one.objects - np.bincount(one.images[hits], minlength=matches.images)
        false += np.bincount(one.images[shown & ~one.hits[0] & ~one.ignored[0]], minlength=matches.images)
    return _Errors(detected, missed, false)


def _by_pixels(records: Sequence[EvaluationRecord]) -> list[ImageDifference]:
    shares = []
    for record in records:
        assert record.confusion is not None
        right = np.trace(record.confusion, axis1=1, axis2=2)
        shares.append(100 * right / np.maximum(record.confusion.sum((1, 2)), 1))
    return [
        ImageDifference(
            i,
            max(abs(float(share[i] - shares[0][i])) for share in shares[1:]),
            tuple(f"{share[i]:.1f} % of the pixels right" for share in shares),
        )
        for i in range(len(records[0].images))
    ]
