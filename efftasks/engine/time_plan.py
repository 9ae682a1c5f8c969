"""How many epochs fit into a time. Pure arithmetic."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Costs", "Position", "epochs_in", "seconds_left"]


@dataclass(frozen=True)
class Costs:
    """Measured times in seconds."""

    step: float
    epoch: float  # of an epoch beside its steps: starting the workers, writing a checkpoint
    validation: float


@dataclass(frozen=True)
class Position:
    """Where a training is, and how its epochs are.

    Attributes:
        epochs: number of complete ones.
        steps: of the current epoch that are done; 0 between epochs.
        steps_per_epoch: number.
        val_interval: epochs between validations; the last epoch is always validated. 0 for none.
        val_begin: the first epoch that is validated, counted from 1.
        validated: whether the validation after the complete epochs has run.
    """

    epochs: int
    steps: int
    steps_per_epoch: int
    val_interval: int
    val_begin: int = 1
    validated: bool = True


def seconds_left(total: int, at: Position, costs: Costs) -> float:
    """The time that a training of ``total`` epochs, at least those that have begun, still takes."""
    first = at.epochs + 1 if at.validated else at.epochs
    due = [n for n in range(max(first, 1), total + 1) if _is_validated(n, total, at)]
    steps = (total - at.epochs) * at.steps_per_epoch - at.steps
    return steps * costs.step + (total - at.epochs) * costs.epoch + len(due) * costs.validation


def epochs_in(seconds: float, at: Position, costs: Costs, most: int | None = None) -> int:
    """The largest number of epochs that ends in this time; the number of complete ones where no further one does.

    Args:
        seconds: left.
        at: where the training is.
        costs: of its parts.
        most: the largest answer; None for no limit.
    """
    total = at.epochs
    limit = most if most is not None else total + 1 + int(seconds / max(1e-9, at.steps_per_epoch * costs.step))
    low, high = total, max(total, limit)
    while low < high:  # the time grows with the number, but for validations that are due or not by a few seconds
        middle = (low + high + 1) // 2
        if seconds_left(middle, at, costs) <= seconds:
            low = middle
        else:
            high = middle - 1
    return low


def _is_validated(epoch: int, total: int, at: Position) -> bool:
    if not at.val_interval or epoch < at.val_begin:
        return False
    return epoch % at.val_interval == 0 or epoch == total
