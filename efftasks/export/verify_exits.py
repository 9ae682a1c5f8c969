"""Whether an exported file leaves at its early exit for the images for which the model does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from efftasks.structures.comparison import Policy, Tolerance

__all__ = ["Decision", "ExitReport", "compare_decisions"]

LEAST_SHARE = 0.999  # of the images whose score is not within the tolerance of the threshold


@dataclass(frozen=True)
class Decision:
    """What a model and its file say of the early answer for one image."""

    ours: float  # score, of the model
    theirs: float
    exited: bool  # whether the file took the early answer


@dataclass(frozen=True)
class ExitReport:
    """How often model and file decide alike, at one threshold.

    Attributes:
        images: all of them.
        exited: those that left early in the file.
        near: those whose score, of the model, is within the tolerance of the threshold: rounding may decide.
        near_alike: of these, those decided alike.
        alike: of the others, those decided alike.
        max_score_error: the largest difference of exit scores.
        score: the tolerance of exit scores.
        limits_score: whether larger differences fail.
    """

    threshold: float
    images: int
    exited: int
    near: int
    near_alike: int
    alike: int
    max_score_error: float
    score: float
    limits_score: bool
    least_share: float = LEAST_SHARE

    @property
    def share(self) -> float:
        """Share of the images that are not near the threshold which are decided alike; 1 where all are near."""
        return self.alike / (self.images - self.near) if self.images > self.near else 1.0

    @property
    def passed(self) -> bool:
        """Whether enough images are decided alike."""
        within = not self.limits_score or self.max_score_error <= self.score
        return self.images > 0 and self.share >= self.least_share and within

    def to_dict(self) -> dict[str, Any]:
        """For the sidecar."""
        return {**asdict(self), "share": self.share, "passed": self.passed}

    def __str__(self) -> str:
        allowed = f" (allowed {self.score:g})" if self.limits_score else ""
        near = f", of {self.near} nearer to the threshold than {self.score:g} {self.near_alike}" if self.near else ""
        return (
            f"exits {'passed' if self.passed else 'FAILED'}: at {self.threshold:g} {self.exited} of {self.images} "
            f"images leave early, model and file decide {self.alike} of {self.images - self.near} alike "
            f"(expected {100 * self.least_share:g} %){near}, scores within {self.max_score_error:.2g}{allowed}"
        )


def compare_decisions(decisions: Sequence[Decision], threshold: float, policy: Policy) -> ExitReport:
    """Compare the decisions of a model with those of its file.

    Args:
        decisions: of each image.
        threshold: of both.
        policy: what the file is held against; its tolerance of scores is that of exit scores.
    """
    alike = [(decision.ours >= threshold) == decision.exited for decision in decisions]
    near = [abs(decision.ours - threshold) <= policy.score for decision in decisions]
    return ExitReport(
        threshold=threshold,
        images=len(decisions),
        exited=sum(decision.exited for decision in decisions),
        near=sum(near),
        near_alike=sum(a and n for a, n in zip(alike, near)),
        alike=sum(a and not n for a, n in zip(alike, near)),
        max_score_error=max((abs(decision.ours - decision.theirs) for decision in decisions), default=0.0),
        score=policy.score,
        limits_score=isinstance(policy, Tolerance),
    )
