"""Differences in words."""

from __future__ import annotations

from efftasks.evaluation.comparison import MetricRow
from efftasks.evaluation.differences import LEVEL, least_p

__all__ = ["verdict"]


def verdict(row: MetricRow, number: int, first: str, other: str, images: int, family: int) -> str:
    """One sentence: whether the images show a difference from the first model, a colon, and the figures.

    Args:
        row: of the group ``main``.
        number: of the model, from 1 for the one after the first.
        first: name of the first model.
        other: name of the model.
        images: number of images.
        family: number of differences that p was adjusted for.
    """
    difference = row.differences[number - 1]
    metric = f"{row.name} of {row.part}"
    if difference.low == difference.high == difference.value == 0:
        return f"No difference: {metric} of {other} is that of {first} in every resample"
    side = "higher" if difference.value > 0 else "lower"
    interval = f"{100 * LEVEL:.0f} % interval {difference.low:+.2f} to {difference.high:+.2f}"
    adjusted = f", adjusted for {family} comparisons" if family > 1 else ""
    figures = (
        f"{metric} of {other} is {abs(difference.value):.2f} {side} than of {first}, {interval} "
        f"(p = {difference.p_adjusted:.3f}{adjusted})"
    )
    if difference.is_real:
        return f"A difference: {figures}"
    if family * least_p(images) >= 1 - LEVEL:
        return f"Too few images for a verdict, {images}: {figures}"
    return (
        f"No difference that these {images} images can show: {figures}; "
        f"one of less than {difference.detectable:.2f} would often not be seen"
    )
