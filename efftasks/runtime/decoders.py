"""Decoders in numpy, for files that end before theirs: runtimes without top-k, or quantized ones that it would break.

A decoder takes the outputs of the file and gives what a file with its decoder inside gives, by the same names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from typing import NamedTuple

import numpy as np

from efftasks.structures.spec import DecoderSpec

__all__ = ["DECODERS", "Decoder", "argmax_labels", "top_pairs"]

Outputs = Mapping[str, np.ndarray]
_OF_CANDIDATES = ("boxes", "masks", "keypoints", "coefficients")  # outputs with a row for each candidate
_OF_PROTOTYPES = frozenset({"coefficients", "prototypes"})
_OF_LABELS = frozenset({"class_scores"})
_OF_OBJECTS = frozenset({"boxes", "scores"})


class Decoder(NamedTuple):
    """What a file's outputs are decoded with."""

    takes: frozenset[str]  # outputs that the file must have
    makes: Mapping[str, frozenset[str]]  # what it gives beside the file's outputs -> outputs that it is made of
    decode: Callable[[Outputs, DecoderSpec], dict[str, np.ndarray]]

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
            and class; ``masks`` and ``keypoints`` have A rows, too. Instead of masks there may be ``coefficients``
            (N, A, R) of ``prototypes`` (N, R, h, w). ``class_scores`` are as in :func:`argmax_labels`. Others (a label
            map) stay as they are.
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
    scores = outputs["class_scores"]
    best = scores[:, 0].copy()
    labels = np.zeros(best.shape, np.uint8)
    # Class by class: argmax over an axis that is not the last one reads memory in steps.
    for label in range(1, scores.shape[1]):
        better = scores[:, label] > best
        labels[better] = label
        np.maximum(best, scores[:, label], out=best)
    return {**outputs, "segmentation": labels}


# Name in a description -> decoder.
DECODERS: dict[str, Decoder] = {
    "top-pairs": Decoder(
        _OF_OBJECTS, {"labels": _OF_OBJECTS, "masks": _OF_PROTOTYPES, "segmentation": _OF_LABELS}, top_pairs
    ),
    "argmax": Decoder(_OF_LABELS, {"segmentation": _OF_LABELS}, argmax_labels),
}
