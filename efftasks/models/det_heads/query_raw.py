"""Types of the predictions and targets inside a query detector.

Legend: B images, Q queries, C classes, R + 1 bins of a side's distribution, M objects (padded to the fullest image);
(h, w) the cells of a mask. Boxes are cxcywh as fractions of the network input's width and height.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

__all__ = ["Bins", "DenoisingQueries", "LayerOutput", "MaskFactors", "QueryRaw", "QueryTargets", "TrainingOutputs"]


class Bins(NamedTuple):
    """The bins of the distributions of box sides."""

    values: Tensor  # (R + 1,)
    reg_scale: float  # as ``ops.distribution`` has it


class MaskFactors(NamedTuple):
    """Masks before they are multiplied: the logits of query q are ``kernels[q] . pixels + bias``."""

    kernels: Tensor  # (B, Q, D)
    pixels: Tensor  # (B, D, h, w)
    bias: Tensor  # (1,)

    def queries(self, part: slice) -> MaskFactors:
        """The masks of some of the queries."""
        return self._replace(kernels=self.kernels[:, part])


class LayerOutput(NamedTuple):
    """The prediction of one decoder layer; corners and initial are None where boxes are not distributions."""

    logits: Tensor  # (B, Q, C)
    boxes: Tensor  # (B, Q, 4)
    corners: Tensor | None = None  # (B, Q, 4, R + 1): logits of the bins of left, top, right, bottom
    initial: Tensor | None = None  # (B, Q, 4): the boxes that the distributions refine, without gradient
    content: Tensor | None = None  # (B, Q, channels): the queries after the layer
    masks: MaskFactors | None = None

    def queries(self, part: slice) -> LayerOutput:
        """The prediction of some of the queries."""
        return LayerOutput(
            self.logits[:, part],
            self.boxes[:, part],
            None if self.corners is None else self.corners[:, part],
            None if self.initial is None else self.initial[:, part],
            None if self.content is None else self.content[:, part],
            None if self.masks is None else self.masks.queries(part),
        )


class DenoisingQueries(NamedTuple):
    """D queries made from noised objects, which stand before the Q others."""

    content: Tensor  # (B, D, channels)
    boxes: Tensor  # (B, D, 4)
    blocked: Tensor  # bool (D + Q, D + Q): True where the query of the row must not attend to that of the column
    groups: int  # D = groups * 2 * M; in each group M positives, then M negatives


class TrainingOutputs(NamedTuple):
    """The outputs that only losses need."""

    layers: tuple[LayerOutput, ...]  # of every decoder layer, denoising queries first
    first: LayerOutput | None  # the regressed boxes that a distribution decoder refines, denoising queries first
    proposals: LayerOutput  # the scores and boxes of the query selection, (B, Q, ...)
    denoising: DenoisingQueries | None


class QueryRaw(NamedTuple):
    """The raw prediction of the head: that of the last layer in use."""

    logits: Tensor  # (B, Q, C)
    boxes: Tensor  # (B, Q, 4)
    scale: Tensor  # (4,): width, height, width, height of the network input in pixels
    training: TrainingOutputs | None
    masks: MaskFactors | None = None


class QueryTargets(NamedTuple):
    """The objects of a batch, padded to one number M an image."""

    labels: Tensor  # int64 (B, M), 0 where padded
    boxes: Tensor  # float (B, M, 4), 0 where padded
    valid: Tensor  # bool (B, M)
    masks: Tensor | None = None  # uint8 (B, M, h, w): share of the cell that the object covers, 255 for all of it

    def masked(self) -> Tensor:
        """Bool (B, M): which objects have an annotated mask; a mask that is 0 everywhere is not annotated."""
        assert self.masks is not None
        return self.valid & (self.masks.flatten(2).amax(-1) > 0)
