"""Intervals and differences of resamples, compared with closed forms."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from efftasks.evaluation.bootstrap import resample
from efftasks.evaluation.differences import adjust_by_holm, difference_of, interval_of


def test_interval_of_a_mean_is_that_of_the_normal_distribution() -> None:
    values = np.random.default_rng(0).normal(5, 2, 400)
    interval = interval_of(values.mean(), resample(400, 4000) @ values / 400)
    half = 1.96 * values.std() / 20
    assert interval.value == values.mean()
    assert interval[1:] == pytest.approx((values.mean() - half, values.mean() + half), abs=0.02)


def test_difference_is_paired_and_signed() -> None:
    random = np.random.default_rng(1)
    first = random.normal(0, 10, 300)
    second = first - 0.5 + random.normal(0, 0.5, 300)  # a small loss in large noise that both share
    weights = resample(300, 2000) / 300
    difference = difference_of((second - first).mean(), weights @ first, weights @ second)
    assert difference.is_real
    assert difference.low < -0.5 < difference.high < 0
    assert difference.detectable == pytest.approx(2.8 * 0.5 / np.sqrt(300), rel=0.15)
    unpaired = difference_of(-0.5, weights @ first, weights[::-1] @ second)
    assert not unpaired.is_real


def test_of_itself_is_none() -> None:
    values = np.random.default_rng(2).random(500)
    difference = difference_of(0.0, values, values)
    assert (difference.low, difference.high, difference.p, difference.detectable) == (0, 0, 1, 0)
    assert not difference.is_real


def test_false_alarms_are_as_rare_as_the_level_says() -> None:
    random = np.random.default_rng(3)
    weights = resample(100, 500) / 100
    alarms = 0
    for _ in range(400):
        noise = random.exponential(1, 100) - 1  # skewed
        alarms += difference_of(noise.mean(), np.zeros(500), weights @ noise).is_real
    assert 8 <= alarms <= 36  # 5 % of 400 are 20


def test_resamples_without_a_value_are_left_out() -> None:
    values = np.array([np.nan, 1.0, 2.0, 3.0])
    assert interval_of(2.0, values) == interval_of(2.0, values[1:])
    assert difference_of(0.0, values, values + 1) == difference_of(0.0, values[1:], values[1:] + 1)
    assert np.isnan(interval_of(np.nan, values[:1]).low)


def test_holm_by_hand() -> None:
    base = difference_of(0.0, np.zeros(9), np.zeros(9))
    adjusted = adjust_by_holm([replace(base, p=p) for p in (0.04, 0.01, 0.03)])
    assert [x.p_adjusted for x in adjusted] == pytest.approx([0.06, 0.03, 0.06])
    assert [x.is_real for x in adjusted] == [False, True, False]


def test_more_comparisons_need_larger_differences() -> None:
    random = np.random.default_rng(4)
    one = difference_of(0.0, np.zeros(20000), random.normal(0, 1, 20000))
    assert one.detectable == pytest.approx(1.960 + 0.842, rel=0.02)
    assert adjust_by_holm([one])[0] == one
    assert adjust_by_holm([one] * 5)[0].detectable == pytest.approx(2.576 + 0.842, rel=0.02)  # 1 % two-sided
