"""Raw outputs of networks that have not learned: what agrees passes, whatever ties; what does not agree fails."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest

from efftasks.export.verify import VerifyReport, objects_of, with_objects
from efftasks.export.verify_raw import RawComparison, RawReport, is_beyond_pictures

Outputs = dict[str, np.ndarray]
ROWS = 50


def outputs(spread: float = 1.0) -> Outputs:
    """Rows of a network whose values have grown out of all bounds, with saturated scores."""
    random = np.random.default_rng(0)
    return dict(
        images=random.normal(size=(3, 64, 96)).astype(np.float32),
        boxes=(spread * random.normal(size=(ROWS, 4)) * 20000).astype(np.float32),
        scores=np.ones(ROWS, np.float32),
        labels=random.integers(0, 6, ROWS),
        masks=(random.normal(size=(ROWS, 8, 12)) * 1e6).astype(np.float32),
        keypoints=np.concatenate(
            [random.normal(size=(ROWS, 3, 2)) * 9000, random.random((ROWS, 3, 1))], axis=-1, dtype=np.float32
        ),
    )


def compare(ours: Outputs, theirs: Outputs, wider: Callable[[], Outputs] | None = None) -> RawReport:
    comparison = RawComparison()
    comparison.add(ours, theirs, wider)
    return comparison.report()


def scaled(name: str, factor: float, rows: slice = slice(None)) -> Callable[[Outputs], Outputs]:
    def change(found: Outputs) -> Outputs:
        values = found[name].copy()
        values[rows] *= factor
        return {**found, name: values}

    return change


def in_order(found: Outputs, order: np.ndarray) -> Outputs:
    return {name: value if name == "images" else value[order] for name, value in found.items()}


@pytest.mark.parametrize(
    ("change", "agreeing"),
    [
        (lambda found: found, ROWS),
        (lambda found: in_order(found, np.random.default_rng(1).permutation(ROWS)), ROWS),
        (scaled("boxes", 1 + 1e-5), ROWS),
        (scaled("masks", 1 + 1e-5), ROWS),
        (scaled("keypoints", 1 + 1e-5), ROWS),
        (scaled("boxes", 1.001), 0),
        (scaled("masks", 1.001), 0),
        (scaled("keypoints", 1.001), 0),
        (scaled("scores", 1 - 2e-4), 0),
        (scaled("boxes", 1.001, slice(4)), ROWS - 4),
        (scaled("boxes", 1.001, slice(6)), ROWS - 6),
        (lambda found: {**found, "labels": (found["labels"] + 1) % 6}, 0),
        (lambda found: in_order(found, np.zeros(ROWS, int)), 1),  # one row over and over is one row
    ],
)
def test_rows_are_matched_as_sets(change, agreeing):
    report = compare(outputs(), change(outputs()))
    assert (report.rows, report.agreeing) == (ROWS, agreeing)
    assert report.passed is (agreeing >= 0.9 * ROWS)
    assert ("FAILED" in str(report)) is not report.passed and f"{agreeing} of {ROWS} rows" in str(report)
    assert json.loads(json.dumps(report.to_dict()))["passed"] is report.passed


def test_low_scores_are_compared_in_their_own_size():
    low = {**outputs(), "scores": np.linspace(2e-6, 1e-6, ROWS, dtype=np.float32)}
    assert compare(low, scaled("scores", 1 + 1e-5)(low)).passed
    assert not compare(low, scaled("scores", 1.05)(low)).passed


def test_where_all_tie_it_is_enough_that_the_model_has_such_rows():
    every = {**outputs(), "scores": np.full(ROWS, 0.01, np.float32)}
    ours, theirs = in_order(every, np.arange(10)), in_order(every, np.arange(30, 40))
    assert not compare(ours, theirs).passed
    assert compare(ours, theirs, lambda: every).passed
    assert not compare(ours, scaled("boxes", 1.001)(theirs), lambda: every).passed
    assert not compare(ours, scaled("masks", 1.001)(theirs), lambda: every).passed
    # saturated scores are equal, and their logits are not: the choice is none of chance
    sure = {**every, "scores": np.ones(ROWS, np.float32)}
    ours, theirs = in_order(sure, np.arange(10)), in_order(sure, np.arange(30, 40))
    assert not compare(ours, theirs, lambda: sure).passed


def test_inputs_of_another_preprocessing_fail():
    shifted = {**outputs(), "images": outputs()["images"] + np.float32(0.01)}
    report = compare(outputs(), shifted)
    assert report.max_input_error == pytest.approx(0.01, rel=1e-4) and not report.passed


def test_the_worst_image_decides_and_nothing_is_no_pass():
    comparison = RawComparison()
    for factor in (1.0, 1.0, 1.0, 1.001):
        comparison.add(outputs(), scaled("boxes", factor)(outputs()))
    assert comparison.report().agreeing == 3 * ROWS and not comparison.report().passed
    assert not RawComparison().report().passed and "nothing was compared" in str(RawComparison().report())


def test_what_only_an_untrained_network_gives():
    assert is_beyond_pictures(outputs())
    sane = {**outputs(spread=1e-3), "masks": np.zeros((ROWS, 8, 12), np.float32)}
    assert not is_beyond_pictures(sane)
    assert is_beyond_pictures({**sane, "masks": np.full((ROWS, 8, 12), -2000, np.float32)})


def test_the_report_of_objects_takes_the_place_of_the_other():
    from efftasks.export.verify import Verification

    joint = Verification(["boxes", "segmentation"]).report()
    assert isinstance(objects_of(joint), VerifyReport)
    raw = compare(outputs(), outputs())
    assert objects_of(with_objects(joint, raw)) is raw
    alone = Verification(["boxes"]).report()
    assert objects_of(alone) is alone and with_objects(alone, raw) is raw
    assert objects_of(Verification(["segmentation"]).report()) is None
