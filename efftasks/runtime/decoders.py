"""Decoders in numpy, for files that end before theirs: runtimes without top-k, or quantized ones that it would break.

A decoder takes the outputs of the file and gives what a file with its decoder inside gives, by the same names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from efftasks.structures.spec import DecoderSpec

__all__ = ["DECODERS", "Decoder", "top_pairs"]

Outputs = Mapping[str, np.ndarray]
_OF_CANDIDATES = ("boxes", "masks", "keypoints")  # outputs with a row for each candidate


class Decoder(NamedTuple):
    """What a file's outputs are decoded with."""

    takes: frozenset[str]  # outputs that the file must have
    adds: frozenset[str]  # what it gives beside the file's outputs
    decode: Callable[[Outputs, DecoderSpec], dict[str, np.ndarray]]


def top_pairs(outputs: Outputs, spec: DecoderSpec) -> dict[str, np.ndarray]:
    """The best (candidate, class) pairs of each image, best first; of pairs that tie, the one that comes first.

    Args:
        outputs: ``boxes`` (N, A, 4) xyxy in pixels of the network input, and ``scores`` (N, A, C) of every candidate
            and class; ``masks`` and ``keypoints`` have A rows, too. Others (a label map) stay as they are.
        spec: ``max_detections`` is K.

    Returns:
        ``boxes`` (N, K, 4), ``scores`` (N, K), ``labels`` int64 (N, K), masks and keypoints of K rows, and the others.
        Fewer than K where there are no more pairs.
    """
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
    return {**outputs, **chosen_rows, "scores": flat[rows, pairs], "labels": labels}


# Name in a description -> decoder.
DECODERS: dict[str, Decoder] = {
    "top-pairs": Decoder(frozenset({"boxes", "scores"}), frozenset({"labels"}), top_pairs),
}
