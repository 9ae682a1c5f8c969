"""Distillation losses between class logits of a student and of a teacher, both (B, C, ...), each with one ``weight``.

LogitKLLoss, DKDLoss and DISTLoss are for classes that exclude each other, as those of label maps; LogitBCELoss for
detectors, whose classes are independent. Legend: C classes; N rows, the pixels or points of all images; T temperature.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from efftasks.registry import MODELS

__all__ = ["DISTLoss", "DKDLoss", "LogitBCELoss", "LogitKLLoss", "bernoulli_divergence", "quality_divergence"]

_EPS = 1e-8


def _rows(logits: Tensor) -> Tensor:
    """(B, C, ...) -> (N, C)."""
    return logits.movedim(1, -1).flatten(0, -2)


def bernoulli_divergence(logits: Tensor, probabilities: Tensor) -> Tensor:
    """KL divergence of ``sigmoid(logits)`` from probabilities, elementwise; 0 where they are equal.

    It is the binary cross-entropy less the entropy of the probabilities, and has the same gradient.
    """
    entropy = torch.special.entr(probabilities) + torch.special.entr(1 - probabilities)
    return functional.binary_cross_entropy_with_logits(logits, probabilities, reduction="none") - entropy


def quality_divergence(logits: Tensor, probabilities: Tensor) -> Tensor:
    """:func:`bernoulli_divergence`, each weighted by the distance of the two probabilities, elementwise.

    Of the many points that are background for both, little remains.

    Source: the quality focal loss (arXiv 2006.04388, section 3) with an exponent of 1, as CrossKD (arXiv 2306.11369)
    uses it for distillation.
    """
    return (logits.sigmoid() - probabilities).abs() * bernoulli_divergence(logits, probabilities)


@MODELS.register_module()
class LogitKLLoss(nn.Module):
    """``weight * T^2 * mean_n KL(softmax(t_n / T) || softmax(s_n / T))``.

    Source: Hinton et al. (arXiv 1503.02531), section 2.

    Args:
        weight: of the loss.
        temperature: T.
    """

    def __init__(self, weight: float = 1.0, temperature: float = 1.0) -> None:
        super().__init__()
        self.weight, self.temperature = weight, temperature

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Logits (B, C, ...) -> a scalar."""
        s, t = (functional.log_softmax(_rows(x) / self.temperature, -1) for x in (student, teacher))
        divergence = functional.kl_div(s, t, reduction="batchmean", log_target=True)
        return self.weight * self.temperature**2 * divergence


@MODELS.register_module()
class LogitBCELoss(nn.Module):
    """``weight * mean_n sum_c KL(sigmoid(t_nc) || sigmoid(s_nc))``: the binary cross-entropy, less its least value.

    Args:
        weight: of the loss.
    """

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Logits (B, C, ...) -> a scalar."""
        return self.weight * bernoulli_divergence(_rows(student), _rows(teacher).sigmoid()).sum(-1).mean()


@MODELS.register_module()
class DKDLoss(nn.Module):
    """Decoupled divergences: of the target class against the rest, and among the other classes.

    ``weight * T^2 * mean_n (alpha * KL(b_t || b_s) + beta * KL(o_t || o_s))``: b are the probabilities of the target
    class and of the rest, o the probabilities of the other classes, which sum to 1. The target is the best class of the
    teacher, since a guide has no annotations.

    Source: DKD (arXiv 2203.08679), section 3.

    Args:
        weight: of the loss.
        alpha: of the target class.
        beta: of the others.
        temperature: T.
    """

    def __init__(self, weight: float = 1.0, alpha: float = 1.0, beta: float = 8.0, temperature: float = 4.0) -> None:
        super().__init__()
        self.weight, self.alpha, self.beta, self.temperature = weight, alpha, beta, temperature

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Logits (B, C, ...), at least two classes -> a scalar."""
        s, t = _rows(student) / self.temperature, _rows(teacher) / self.temperature
        is_target = functional.one_hot(t.argmax(-1), t.shape[-1]).bool()
        (s_target, s_others), (t_target, t_others) = _decoupled(s, is_target), _decoupled(t, is_target)
        target = functional.kl_div(s_target, t_target, reduction="batchmean", log_target=True)
        others = functional.kl_div(s_others, t_others, reduction="batchmean", log_target=True)
        return self.weight * self.temperature**2 * (self.alpha * target + self.beta * others)


def _decoupled(logits: Tensor, is_target: Tensor) -> tuple[Tensor, Tensor]:
    """Log probabilities (N, 2) of the target class and of the rest, and (N, C - 1) of the others among themselves."""
    log_prob = functional.log_softmax(logits, -1)
    others = log_prob[~is_target].view(len(logits), -1)
    rest = others.logsumexp(-1)
    return torch.stack([log_prob[is_target], rest], -1), others - rest[:, None]


@MODELS.register_module()
class DISTLoss(nn.Module):
    """Correlations of class probabilities: in each row over the classes, and of each class over the rows.

    ``weight * T^2 * (beta * mean_n (1 - r_n) + gamma * mean_c (1 - r_c))``, r the Pearson correlation of
    ``softmax(s / T)`` and ``softmax(t / T)``.

    Source: DIST (arXiv 2205.10536), section 4.

    Args:
        weight: of the loss.
        beta: of the relation between classes.
        gamma: of the relation inside of classes.
        temperature: T.
    """

    def __init__(self, weight: float = 1.0, beta: float = 1.0, gamma: float = 1.0, temperature: float = 1.0) -> None:
        super().__init__()
        self.weight, self.beta, self.gamma, self.temperature = weight, beta, gamma, temperature

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Logits (B, C, ...) -> a scalar."""
        s, t = (functional.softmax(_rows(x) / self.temperature, -1) for x in (student, teacher))
        between, within = (1 - _correlation(s, t)).mean(), (1 - _correlation(s.T, t.T)).mean()
        return self.weight * self.temperature**2 * (self.beta * between + self.gamma * within)


def _correlation(a: Tensor, b: Tensor) -> Tensor:
    """Pearson correlation of the rows of (N, M) -> (N,)."""
    a, b = a - a.mean(-1, keepdim=True), b - b.mean(-1, keepdim=True)
    return (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1) + _EPS)
