"""Gates: how good is the answer at an early exit, as a number that one threshold can be set on.

Sources: DynamicDet (arXiv 2304.05552, section 3.3) for a gate that learns from the difference of the losses of both
answers, relative to its median, so that neither answer is preferred; BranchyNet (arXiv 1709.01686) for a gate that
reads the confidence of the early answer.

Legend: B images, K detections.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efftasks.models.exits.agreement import agreement
from efftasks.models.layers.transformer import MLP
from efftasks.registry import MODELS
from efftasks.structures.instances import DetectionTensors

__all__ = [
    "AgreementGate",
    "BothAnswers",
    "ConfidenceGate",
    "ExitGate",
    "LearnedGate",
    "LossGate",
    "score_statistics",
]

_LEVELS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)  # scores above which detections are counted
_STATISTICS = len(_LEVELS) + 3
_EPS = 1e-4


class BothAnswers(NamedTuple):
    """What a gate may learn from."""

    early: DetectionTensors
    late: DetectionTensors
    losses: Callable[[], tuple[Tensor, Tensor]]  # of the early and the late answer, (B,) each; costs time


class ExitGate(nn.Module, ABC):
    """The quality of early answers, and their rank among those of the training images.

    The rank is the score of the exit: the share of training images whose early answer has a lower quality. So a
    threshold t on it is readable whatever the gate: of images like those of training, about a share t runs the whole
    network, and 1 - t leaves early. The qualities of the latest training images are kept as a histogram, which the
    averages of weights and of processes keep right, since both are linear.

    Args:
        bins: of the histogram.
        memory: about as many training images count.
    """

    compares = False  # whether it learns from both answers
    histogram: Tensor
    counted: Tensor

    def __init__(self, bins: int = 1024, memory: int = 1024) -> None:
        super().__init__()
        if bins < 1 or memory < 1:
            raise ValueError(f"{type(self).__name__}: got bins {bins}, memory {memory}, expected integers from 1")
        self.memory = memory
        self.register_buffer("histogram", torch.full((bins,), 1 / bins))  # shares of images, by quality
        self.register_buffer("counted", torch.zeros(()))  # images so far

    @abstractmethod
    def logits(self, maps: Sequence[Tensor], detections: DetectionTensors) -> Tensor:
        """Logits (B,) of the quality of early answers.

        Args:
            maps: what the exit saw, (B, C_i, ...), without gradient.
            detections: its answer, without gradient.
        """

    def loss(self, logits: Tensor, answers: BothAnswers) -> Tensor | None:
        """The loss of logits (B,), a scalar; None for a gate that does not learn."""
        return None

    def forward(self, maps: Sequence[Tensor], detections: DetectionTensors) -> tuple[Tensor, Tensor]:
        """Scores (B,) in [0, 1] and the logits (B,) behind them; in training the images are counted."""
        inputs = DetectionTensors._make(None if part is None else part.detach() for part in detections)
        logits = self.logits([level.detach() for level in maps], inputs).float()
        quality = logits.sigmoid()
        if self.training:
            self._count(quality.detach())
        return self._rank(quality), logits

    def calibrate(self, qualities: Tensor) -> None:
        """Rank by these qualities (N,) in [0, 1] alone from now on, instead of those of the training images."""
        self.histogram.copy_(self._shares(qualities))

    def _rank(self, quality: Tensor) -> Tensor:
        """The share of counted images of lower quality, linear inside a bin."""
        bins = self.histogram.shape[0]
        left = torch.arange(bins, dtype=torch.float32, device=quality.device)
        below = (quality[:, None] * bins - left).clamp(0, 1)
        return (below @ self.histogram / self.histogram.sum()).clamp(0, 1)

    def _shares(self, quality: Tensor) -> Tensor:
        bins = self.histogram.shape[0]
        index = (quality * bins).long().clamp(0, bins - 1)
        return F.one_hot(index, bins).to(self.histogram.dtype).mean(0)

    @torch.no_grad()
    def _count(self, quality: Tensor) -> None:
        # The mean over all images up to ``memory`` of them, so that nothing is left of the initial values.
        self.counted += len(quality)
        self.histogram.lerp_(self._shares(quality), (len(quality) / self.counted.clamp(max=self.memory)).clamp(max=1))


@MODELS.register_module()
class ConfidenceGate(ExitGate):
    """The certainty of the early answer: the mean score of its detections, weighted by the scores. Without weights.

    Args:
        channels: of the maps of the exit; given by it, and not read.
        bins, memory: see :class:`ExitGate`.
    """

    def __init__(self, channels: Sequence[int], bins: int = 1024, memory: int = 1024) -> None:
        super().__init__(bins, memory)

    def logits(self, maps: Sequence[Tensor], detections: DetectionTensors) -> Tensor:
        """Logits (B,) of the certainty."""
        certainty = _certainty(detections.scores).clamp(_EPS, 1 - _EPS)
        return torch.log(certainty / (1 - certainty))


class LearnedGate(ExitGate):
    """A small network on pooled maps of the exit and statistics of its scores.

    Args:
        channels: of the maps of the exit; given by it.
        hidden: width of the network.
        bins, memory: see :class:`ExitGate`.
    """

    compares = True

    def __init__(self, channels: Sequence[int], hidden: int = 64, bins: int = 1024, memory: int = 1024) -> None:
        super().__init__(bins, memory)
        inputs = 2 * sum(channels) + _STATISTICS
        self.norm = nn.LayerNorm(inputs)
        self.network = MLP((inputs, hidden, 1))

    def logits(self, maps: Sequence[Tensor], detections: DetectionTensors) -> Tensor:
        """Logits (B,) of the quality."""
        flat = [level.flatten(2).float() for level in maps]
        pooled = [part for level in flat for part in (level.mean(-1), level.amax(-1))]
        return self.network(self.norm(torch.cat([*pooled, score_statistics(detections.scores)], 1)))[:, 0]

    def loss(self, logits: Tensor, answers: BothAnswers) -> Tensor:
        """Binary cross-entropy against the quality of the early answers, see :meth:`target`."""
        with torch.no_grad():
            target = self.target(answers)
        return F.binary_cross_entropy_with_logits(logits, target)

    @abstractmethod
    def target(self, answers: BothAnswers) -> Tensor:
        """The quality (B,) in [0, 1] to learn."""


@MODELS.register_module()
class LossGate(LearnedGate):
    """Learns for which images the loss of the early answer is small beside that of the late one.

    The differences of the losses are compared with their median in training, in units of their spread: what counts is
    which images gain most by the rest of the network, not whether all gain a little.

    Args:
        channels, hidden, bins, memory: see :class:`LearnedGate`.
    """

    median: Tensor
    spread: Tensor

    def __init__(self, channels: Sequence[int], hidden: int = 64, bins: int = 1024, memory: int = 1024) -> None:
        super().__init__(channels, hidden, bins, memory)
        self.register_buffer("median", torch.zeros(()))
        self.register_buffer("spread", torch.ones(()))

    def target(self, answers: BothAnswers) -> Tensor:
        """Above one half if the early answer loses less than the median does."""
        early, late = answers.losses()
        difference = early - late
        step = min(1.0, 4 * len(difference) / self.memory)
        self.median.lerp_(difference.median(), step)
        self.spread.lerp_((difference - self.median).abs().mean(), step)
        return ((self.median - difference) / self.spread.clamp(min=_EPS)).sigmoid()


@MODELS.register_module()
class AgreementGate(LearnedGate):
    """Learns how well the detections of the early answer agree with those of the late one; needs no annotations.

    Args:
        channels, hidden, bins, memory: see :class:`LearnedGate`.
    """

    def target(self, answers: BothAnswers) -> Tensor:
        """The agreement of both answers."""
        return agreement(answers.early, answers.late)


def _certainty(scores: Tensor) -> Tensor:
    return scores.square().sum(1) / scores.sum(1).clamp(min=_EPS)


def score_statistics(scores: Tensor) -> Tensor:
    """Scores (B, K) in [0, 1] -> statistics (B, 13): counts above levels, their sum, certainty, indecision."""
    counts = [torch.log1p((scores > level).float().sum(1)) for level in _LEVELS]
    undecided = (scores * (1 - scores)).sum(1)
    return torch.stack([*counts, torch.log1p(scores.sum(1)), _certainty(scores), torch.log1p(undecided)], 1)
