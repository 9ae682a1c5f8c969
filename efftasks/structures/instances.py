"""Objects on their way through a network: the annotated ones of a batch, and the decoded ones.

Legend: B images, M annotated objects (padded to the fullest image of the batch), K detections, P keypoints; H, W sides
of the network input in pixels, its frame is that of all coordinates. Masks have cells of ``MASK_STRIDE`` pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "CLASS_SCORES_MEANING",
    "EXIT_SCORE_MEANING",
    "KEYPOINTS_MEANING",
    "MASKS_MEANING",
    "MASK_STRIDE",
    "DetectionTensors",
    "EarlyAnswer",
    "PaddedTargets",
]

MASK_STRIDE = 4  # pixels of the network input in a cell's side

# What artifacts say of outputs that several heads have.
MASKS_MEANING = "logit of each cell of 4 x 4 pixels of the network input: object above 0, inside the box"
KEYPOINTS_MEANING = "x, y in pixels of the network input, and score in [0, 1]"
CLASS_SCORES_MEANING = "score of each class of the label map"
EXIT_SCORE_MEANING = "quality of the early answer: the share of training images whose early answer is worse"


class PaddedTargets(NamedTuple):
    """The annotated objects of a batch.

    Masks and keypoints are None where no image of the batch can have any. An object whose mask is 0 everywhere, or
    whose keypoints all have visibility 0, is one without such an annotation: nothing is learned from it there.
    """

    labels: Tensor  # int64 (B, M), 0 where padded
    boxes: Tensor  # float (B, M, 4) xyxy, 0 where padded
    valid: Tensor  # bool (B, M), False where padded
    ignored: Tensor  # bool (B, M): a crowd region, neither object nor background
    masks: Tensor | None = None  # uint8 (B, M, H / 4, W / 4): share of the cell that is object, 255 for all of it
    keypoints: Tensor | None = None  # float (B, M, P, 3): x, y, and COCO's visibility 0, 1, 2
    areas: Tensor | None = None  # float (B, M): area of the object as annotated, in pixels; with keypoints


class DetectionTensors(NamedTuple):
    """Decoded detections, best first. What a model does not predict is None."""

    boxes: Tensor  # (B, K, 4) xyxy
    scores: Tensor  # (B, K) in [0, 1]
    labels: Tensor  # int64 (B, K)
    masks: Tensor | None = None  # (B, K, H / 4, W / 4): logit of each cell
    keypoints: Tensor | None = None  # (B, K, P, 3): x, y, and score in [0, 1]
    segmentation: Tensor | None = None  # uint8 (B, H, W): a semantic map of the image beside its objects
    exit_score: Tensor | None = None  # (B,) in [0, 1]: how good the answer at an early exit is


class EarlyAnswer(NamedTuple):
    """What a network gives at an early exit."""

    detections: DetectionTensors  # without ``exit_score``
    score: Tensor  # (B,) in [0, 1]: the answer is taken if it is at least the threshold
    carried: tuple[Tensor, ...]  # what the rest of the network needs, batch first
