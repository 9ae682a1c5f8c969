"""Which batch size fits the memory: from the peaks of a few measured steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from efftasks.structures.errors import UserError

__all__ = ["BatchFit", "fit_batch"]

_SHARE = 0.7  # of the free memory: the rest is for data workers, larger images and other programs
_SECOND = 1.34
_GAIN = 1.1  # a larger batch must be faster by this factor, an image
_LEAST_STEPS = 20  # an epoch, with a larger batch than the config's


@dataclass(frozen=True)
class BatchFit:
    """The chosen batch size.

    Attributes:
        size: images of a batch.
        steps: batches of an update, so that it has at least as many images as in the config.
        reason: what was measured, in a sentence.
    """

    size: int
    steps: int
    reason: str


def fit_batch(
    step: Callable[[int], float],
    peak: Callable[[], int],
    batch: int,
    free: int,
    images: int,
    may_grow: bool,
) -> BatchFit:
    """Measure growing batches, and choose one.

    The config's batch size is chosen if it fits. Otherwise it is a part of it that does, with several batches in an
    update. Where a larger one may be faster (a GPU), sizes are doubled while an image takes less time, memory is left,
    and an epoch has enough steps.

    Args:
        step: trains on so many images, and gives the seconds of a step; MemoryError where they do not fit.
        peak: the largest memory in use until now, in bytes.
        batch: the config's.
        free: bytes that are free.
        images: of the training set.
        may_grow: try larger ones.

    Raises:
        UserError: not even one image fits.
    """
    start, limit = peak(), _SHARE * free
    measured: dict[int, tuple[float, float]] = {}  # size -> bytes, seconds an image

    def measure(size: int) -> None:
        try:
            seconds = step(size)
        except MemoryError:
            measured[size] = (math.inf, math.inf)
        else:
            measured[size] = (float(peak() - start), seconds / size)

    def expected(size: int) -> float:
        """By the line through the last two sizes, or in proportion."""
        (small, (low, _)), (large, (high, _)) = (list(measured.items())[-2:] * 2)[:2]
        slope = (high - low) / (large - small) if large > small else high / large
        return high + max(0.0, slope) * (size - large)

    for size in (s for s in (1, 2, 4, 8, 16, 32, 64, 128, 256) if s < batch):
        # One size alone says nothing of what the model needs without images: in proportion is too much.
        if measured and expected(size) > (limit if len(measured) > 1 else _SECOND * limit):
            break
        measure(size)
    if not measured or expected(batch) <= limit:
        measure(batch)
    fitting = [size for size, (used, _) in measured.items() if used <= limit]
    if not fitting:
        raise UserError(
            f"--batch-size auto: one image needs {measured[1][0] / 2**30:.2f} GiB, {free / 2**30:.2f} GiB are free; "
            "expected a smaller image_size or model"
        )
    chosen = max(fitting)
    while may_grow and chosen >= batch and images // (2 * chosen) >= _LEAST_STEPS and expected(2 * chosen) <= limit:
        measure(2 * chosen)
        if measured[2 * chosen][1] * _GAIN > measured[chosen][1]:
            break
        chosen *= 2
    reason = f"{measured[chosen][0] / 2**30:.2f} GiB for {chosen} images, {free / 2**30:.2f} GiB were free"
    return BatchFit(chosen, max(1, -(-batch // chosen)), reason)
