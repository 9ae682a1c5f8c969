"""What flows inside a query detector.

Legend: B images, Q queries, C classes, R + 1 bins of a side's distribution, M objects (padded to the fullest image).
Boxes are cxcywh as fractions of the network input's width and height.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

__all__ = ["Bins", "DenoisingQueries", "LayerOutput", "QueryRaw", "QueryTargets", "TrainingOutputs"]


class Bins(NamedTuple):
    """What distributions of box sides are over."""

    values: Tensor  # (R + 1,)
    reg_scale: float  # as ``ops.distribution`` has it


class LayerOutput(NamedTuple):
    """What one decoder layer says; the last two are None where boxes are not distributions."""

    logits: Tensor  # (B, Q, C)
    boxes: Tensor  # (B, Q, 4)
    corners: Tensor | None = None  # (B, Q, 4, R + 1): logits of the bins of left, top, right, bottom
    initial: Tensor | None = None  # (B, Q, 4): the boxes that the distributions move, without gradient


class DenoisingQueries(NamedTuple):
    """Queries made from noised objects, D of them, before the Q others."""

    content: Tensor  # (B, D, channels)
    boxes: Tensor  # (B, D, 4)
    blocked: Tensor  # bool (D + Q, D + Q): True where the query of the row must not see that of the column
    groups: int  # D = groups * 2 * M; in each group M positives, then M negatives


class TrainingOutputs(NamedTuple):
    """What training needs beside the answer."""

    layers: tuple[LayerOutput, ...]  # of every decoder layer, denoising queries first
    first: LayerOutput | None  # the plain boxes that a distribution decoder starts from, denoising queries first
    proposals: LayerOutput  # what the queries were selected by, (B, Q, ...)
    denoising: DenoisingQueries | None


class QueryRaw(NamedTuple):
    """What the head says: the answer of its last layer in use."""

    logits: Tensor  # (B, Q, C)
    boxes: Tensor  # (B, Q, 4)
    scale: Tensor  # (4,): width, height, width, height of the network input in pixels
    training: TrainingOutputs | None


class QueryTargets(NamedTuple):
    """The objects of a batch, padded to one number M an image."""

    labels: Tensor  # int64 (B, M), 0 where padded
    boxes: Tensor  # float (B, M, 4), 0 where padded
    valid: Tensor  # bool (B, M)
