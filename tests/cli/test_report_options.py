"""``efftasks test --report``: what it writes, and what it refuses."""

from __future__ import annotations

import pytest

from efftasks.cli.main import main


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--report", "r", "--sizes", "64"], "--report: got it with --sizes, which tests several settings"),
        (["--write-thresholds", "--sizes", "64"], "--write-thresholds: got it with --sizes"),
        (["--report", "r", "--exit-thresholds", "0.5"], "--report: got it with --exit-thresholds"),
        (["--report-score-thr", "0.5"], "--report-score-thr: got it without --report, expected both"),
        (["--write-thresholds", "--report-score-thr", "0.5"], "--report-score-thr: got it without --report"),
        (["--report-iou-thr", "0.6"], "--report-iou-thr: got it without --report or --write-thresholds"),
        (["--report", "r", "--report-score-thr", "2"], "--report-score-thr: got 2, expected a number from 0 to 1"),
        (["--report", "r", "--report-iou-thr", "0.1"], "--report-iou-thr: got 0.1, expected more than 0.1"),
    ],
)
def test_what_does_not_fit_is_one_sentence(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["test", "any.py", "model.onnx", *options]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {message}") and error.count("\n") == 1


def test_thresholds_of_a_checkpoint_have_no_sidecar_to_be_in(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["test", "any.py", "best.pth", "--write-thresholds"]) == 2
    assert "--write-thresholds: got a checkpoint, best.pth, expected an exported file" in capsys.readouterr().err
