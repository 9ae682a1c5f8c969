"""Intervals and differences of metrics from resamples, and whether a difference means anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

__all__ = ["LEVEL", "Difference", "Interval", "adjust_by_holm", "difference_of", "interval_of", "least_p"]

LEVEL = 0.95
_POWER = 0.8


class Interval(NamedTuple):
    """A metric of all images and the interval of its resamples."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """How much higher a metric of one model is than of another on the same images.

    Attributes:
        value: of all images.
        low: lower end of the interval.
        high: upper end of it.
        detectable: the least difference that would be seen four times out of five with so many images.
        p: how likely it is to see one as large where there is none, two-sided.
        p_adjusted: the same, of the family of differences of a comparison, see :func:`adjust_by_holm`.
    """

    value: float
    low: float
    high: float
    detectable: float
    p: float
    p_adjusted: float

    @property
    def is_real(self) -> bool:
        """Whether the images show a difference."""
        return self.p_adjusted < 1 - LEVEL


def interval_of(value: float, resampled: np.ndarray) -> Interval:
    """The percentile interval of a metric.

    Args:
        value: of all images.
        resampled: (B,) of the resamples; NaN where it is not defined.
    """
    return Interval(value, *_percentiles(resampled))


def least_p(images: int) -> float:
    """The least p that so many images can give: that of all differing one way where each may go either way.

    Resamples of few images hardly differ, so that a bootstrap alone would call any difference real.
    """
    return 2.0 ** (1 - images)


def difference_of(value: float, first: np.ndarray, second: np.ndarray, lowest: float = 0.0) -> Difference:
    """The paired difference of two models, the second minus the first.

    The interval is that of percentiles. That of BCa would correct its bias and skewness with a run for each image left
    out; a difference on the same images has little of either.

    Args:
        value: difference on all images.
        first: (B,) of the resamples; NaN where it is not defined.
        second: (B,) of the same resamples.
        lowest: p is at least this, see :func:`least_p`.
    """
    resampled = second - first
    resampled = resampled[~np.isnan(resampled)]
    low, high = _percentiles(resampled)
    # The level at which the interval would touch 0; one is added, since no p is 0.
    beyond = min((resampled <= 0).sum(), (resampled >= 0).sum()) + 1
    p = max(lowest, min(1.0, 2 * float(beyond) / (len(resampled) + 1)))
    detectable = _standard_errors(1) * float(resampled.std()) if len(resampled) else float("nan")
    return Difference(value, low, high, detectable, p, p)


def _standard_errors(tests: int) -> float:
    """How many of them a difference must have, so that one of several tests finds it with the power."""
    normal = NormalDist()
    return normal.inv_cdf(1 - (1 - LEVEL) / 2 / tests) + normal.inv_cdf(_POWER)


def _percentiles(resampled: np.ndarray) -> tuple[float, float]:
    resampled = resampled[~np.isnan(resampled)]
    if not len(resampled):
        return float("nan"), float("nan")
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def adjust_by_holm(differences: Sequence[Difference]) -> list[Difference]:
    """The differences with p adjusted for their number (Holm 1979), and the detectable ones as of the first step of it.

    The chance that any of them is called a difference where there is none stays at 5 %.
    """
    if not differences:
        return []
    larger = _standard_errors(len(differences)) / _standard_errors(1)
    order = sorted(range(len(differences)), key=lambda i: differences[i].p)
    adjusted = list(differences)
    least = 0.0
    for rank, i in enumerate(order):
        least = max(least, min(1.0, (len(order) - rank) * differences[i].p))
        adjusted[i] = replace(differences[i], p_adjusted=least, detectable=larger * differences[i].detectable)
    return adjusted
