"""Decoders in numpy, for files that end before theirs: runtimes without top-k, or quantized ones that it would break.

A decoder takes the outputs of the file and gives what a file with its decoder inside gives, by the same names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from typing import NamedTuple

import numpy as np

from efftasks.structures.instances import MASK_STRIDE
from efftasks.structures.spec import DecoderSpec

__all__ = ["DECODERS", "Decoder", "argmax_labels", "best_bins", "best_instances", "top_pairs"]

Outputs = Mapping[str, np.ndarray]
_OF_CANDIDATES = ("boxes", "masks", "keypoints", "coefficients")  # outputs with a row for each candidate
_OF_PROTOTYPES = frozenset({"coefficients", "prototypes"})
_OF_LABELS = frozenset({"class_scores"})
_OF_OBJECTS = frozenset({"boxes", "scores"})
_OF_INSTANCES = frozenset({"logits", "objectness", "mask_logits"})
_OF_BINS = frozenset({"x_bins", "y_bins"})


class Decoder(NamedTuple):
    """What a file's outputs are decoded with."""

    takes: frozenset[str]  # outputs that the file must have
    makes: Mapping[str, frozenset[str]]  # what it gives beside the file's outputs -> outputs that it is made of
    decode: Callable[[Outputs, DecoderSpec], dict[str, np.ndarray]]
    needs: tuple[str, ...] = ()  # fields that its description must have

    def reads(self, outputs: Set[str]) -> frozenset[str]:
        """Those of a file's outputs that something is made of."""
        made_of = [parts for parts in self.makes.values() if parts <= outputs]
        return self.takes.union(*made_of)

    def adds(self, outputs: Set[str]) -> frozenset[str]:
        """What it gives beside the outputs of a file."""
        return frozenset(name for name, parts in self.makes.items() if parts <= outputs)


def top_pairs(outputs: Outputs, spec: DecoderSpec) -> dict[str, np.ndarray]:
    """The best (candidate, class) pairs of each image, best first; of pairs that tie, the one that comes first.

    Args:
        outputs: ``boxes`` (N, A, 4) xyxy in pixels of the network input, and ``scores`` (N, A, C) of every candidate
            and class; ``masks`` and ``keypoints`` have A rows, too. Keypoints (N, A, P, 2) have the score of their
            pair. Instead of masks there may be ``coefficients`` (N, A, R) of ``prototypes`` (N, R, h, w).
            ``class_scores`` are as in :func:`argmax_labels`. Others (a label map) stay as they are.
        spec: ``max_detections`` is K.

    Returns:
        ``boxes`` (N, K, 4), ``scores`` (N, K), ``labels`` int64 (N, K), masks and keypoints of K rows, and the others.
        Fewer than K where there are no more pairs.
    """
    assert spec.max_detections is not None, "an artifact is checked when it is loaded"
    scores = outputs["scores"]
    images, _, classes = scores.shape
    flat = scores.reshape(images, -1)
    count = min(spec.max_detections, flat.shape[1])
    if count < flat.shape[1]:
        # All that score as the last one or better, in the order of the candidates: sorting them is stable.
        least = np.partition(flat, flat.shape[1] - count, axis=1)[:, -count]
        chosen = [np.flatnonzero(row >= limit) for row, limit in zip(flat, least)]
    else:
        chosen = [np.arange(flat.shape[1])] * images
    pairs = np.stack([x[np.argsort(-row[x], kind="stable")[:count]] for row, x in zip(flat, chosen)])
    candidates, labels = np.divmod(pairs.astype(np.int64), classes)
    rows = np.arange(images)[:, None]
    chosen_rows = {name: value[rows, candidates] for name, value in outputs.items() if name in _OF_CANDIDATES}
    decoded = {**outputs, **chosen_rows, "scores": flat[rows, pairs], "labels": labels}
    if "keypoints" in decoded and decoded["keypoints"].shape[-1] == 2:
        points = decoded["keypoints"]
        scored = np.broadcast_to(decoded["scores"][..., None, None], (*points.shape[:-1], 1))
        decoded["keypoints"] = np.concatenate([points, scored], -1)
    if outputs.keys() >= _OF_PROTOTYPES:
        prototypes = outputs["prototypes"]
        masks = decoded["coefficients"] @ prototypes.reshape(*prototypes.shape[:2], -1)
        decoded["masks"] = masks.reshape(*masks.shape[:2], *prototypes.shape[2:])
    return argmax_labels(decoded, spec) if outputs.keys() >= _OF_LABELS else decoded


def argmax_labels(outputs: Outputs, spec: DecoderSpec) -> dict[str, np.ndarray]:
    """The best class of each pixel; of classes that tie, the first.

    Args:
        outputs: ``class_scores`` (N, C, H, W) with C up to 255. Others stay as they are.
        spec: of no consequence.

    Returns:
        ``segmentation`` uint8 (N, H, W), and the others.
    """
    return {**outputs, "segmentation": outputs["class_scores"].argmax(1).astype(np.uint8)}


def best_instances(outputs: Outputs, spec: DecoderSpec) -> dict[str, np.ndarray]:
    """The best instances of a network that predicts masks without boxes, best first.

    Args:
        outputs: of I instances ``logits`` (N, I, C), ``objectness`` (N, I, 1) as logits, and ``mask_logits``
            (N, I, h, w) of cells of ``MASK_STRIDE`` pixels, above 0 for foreground.
        spec: ``max_detections`` is K.

    Returns:
        ``scores`` (N, K), ``labels`` int64 (N, K), ``masks`` (N, K, h, w), and ``boxes`` (N, K, 4) xyxy in pixels of
        the network input, which enclose the masks.
    """
    masks = outputs["mask_logits"]
    inside = masks > 0
    foreground = np.where(inside, _sigmoid(masks), 0).sum((2, 3)) / np.maximum(inside.sum((2, 3)), 1)
    best = outputs["logits"].max(2)
    scores = np.sqrt(_sigmoid(best) * _sigmoid(outputs["objectness"][..., 0])) * foreground
    order = np.argsort(-scores, axis=1, kind="stable")[:, : spec.max_detections]
    rows = np.arange(len(order))[:, None]
    chosen = masks[rows, order]
    return {
        "boxes": _enclosing_boxes(chosen),
        "scores": scores[rows, order].astype(np.float32),
        "labels": outputs["logits"].argmax(2)[rows, order].astype(np.int64),
        "masks": chosen,
    }


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(logits, -88, None)))  # below, the exponential overflows


def _enclosing_boxes(masks: np.ndarray) -> np.ndarray:
    """The boxes (..., 4) of masks (..., h, w), as ``masks_to_boxes`` in ``efftasks/ops/masks.py`` has them."""
    (left, right), (top, bottom) = _extent(masks.max(-2)), _extent(masks.max(-1))
    boxes = np.stack([left, top, right, bottom], -1) * np.float32(MASK_STRIDE)
    return np.where((right > left)[..., None], boxes, np.float32(0))


def _extent(profile: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First and last position, in cells, where values (..., n), interpolated between centers, are above 0."""
    count = profile.shape[-1]
    center = np.arange(count, dtype=np.float32) + np.float32(0.5)
    before = np.concatenate([profile[..., :1], profile[..., :-1]], -1)
    after = np.concatenate([profile[..., 1:], profile[..., -1:]], -1)
    reach = [np.clip(profile / np.maximum(profile - beside, 1e-6), 0, 1) for beside in (before, after)]
    first = np.where(profile > 0, center - reach[0], np.float32(count)).min(-1)
    last = np.where(profile > 0, center + reach[1], np.float32(0)).max(-1)
    return np.maximum(first, 0), np.minimum(last, count)


def best_bins(outputs: Outputs, spec: DecoderSpec) -> dict[str, np.ndarray]:
    """The best bin of each keypoint over x and over y.

    Args:
        outputs: ``x_bins`` (N, P, Wx) and ``y_bins`` (N, P, Wy): scores, 1 for the maximum of a perfect prediction.
        spec: ``bins_per_pixel``.

    Returns:
        ``keypoints`` (N, P, 3): x, y in pixels of the network input, and the lower of both scores, at most 1.
    """
    assert spec.bins_per_pixel is not None, "an artifact is checked when it is loaded"
    axes = [outputs[name] for name in ("x_bins", "y_bins")]
    positions = [(bins.argmax(-1) + np.float32(0.5)) / np.float32(spec.bins_per_pixel) for bins in axes]
    score = np.minimum(*(bins.max(-1) for bins in axes))
    return {"keypoints": np.stack([*positions, np.minimum(score, 1)], -1).astype(np.float32)}


# Name in a description -> decoder.
DECODERS: dict[str, Decoder] = {
    "top-pairs": Decoder(
        _OF_OBJECTS,
        {"labels": _OF_OBJECTS, "masks": _OF_PROTOTYPES, "segmentation": _OF_LABELS},
        top_pairs,
        needs=("max_detections",),
    ),
    "argmax": Decoder(_OF_LABELS, {"segmentation": _OF_LABELS}, argmax_labels),
    "instances": Decoder(
        _OF_INSTANCES,
        dict.fromkeys(("boxes", "scores", "labels", "masks"), _OF_INSTANCES),
        best_instances,
        needs=("max_detections",),
    ),
    "bins": Decoder(_OF_BINS, {"keypoints": _OF_BINS}, best_bins, needs=("bins_per_pixel",)),
}
