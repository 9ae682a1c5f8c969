"""How many epochs fit into a time, against adding up every step, epoch and validation."""

import random

import pytest

from efftasks.engine.time_plan import Costs, Position, epochs_in, seconds_left


def added_up(total: int, at: Position, costs: Costs) -> float:
    seconds = 0.0
    if not at.validated and at.val_interval and at.epochs >= at.val_begin:
        seconds += costs.validation * (at.epochs % at.val_interval == 0 or at.epochs == total)
    for epoch in range(at.epochs + 1, total + 1):
        seconds += costs.epoch + costs.step * (at.steps_per_epoch - (at.steps if epoch == at.epochs + 1 else 0))
        is_due = at.val_interval and epoch >= at.val_begin and (epoch % at.val_interval == 0 or epoch == total)
        seconds += costs.validation * bool(is_due)
    return seconds


@pytest.mark.parametrize("seed", range(40))
def test_the_answer_is_the_largest_that_ends_in_time(seed):
    draw = random.Random(seed)
    at = Position(
        epochs=draw.randrange(4),
        steps=draw.choice([0, 3]),
        steps_per_epoch=10,
        val_interval=draw.choice([0, 1, 3, 10]),
        val_begin=draw.choice([1, 4]),
        validated=draw.choice([True, False]),
    )
    costs = Costs(step=draw.uniform(0.1, 1), epoch=draw.uniform(0, 3), validation=draw.uniform(0, 5))
    for total in range(at.epochs + bool(at.steps), 30):
        assert seconds_left(total, at, costs) == pytest.approx(added_up(total, at, costs))
    seconds = draw.uniform(20, 150)
    total = epochs_in(seconds, at, costs)
    # One more epoch moves the last validation, so that the time may be a validation's above or below a straight line.
    assert added_up(total, at, costs) <= seconds or total == at.epochs
    assert added_up(total + 1, at, costs) > seconds - costs.validation


def test_a_limit_and_no_time_at_all():
    at, costs = Position(2, 0, 10, 1), Costs(1, 1, 1)
    assert epochs_in(1000, at, costs, most=5) == 5
    assert epochs_in(5, at, costs) == 2  # none more
    assert epochs_in(12, at, costs) == 3
