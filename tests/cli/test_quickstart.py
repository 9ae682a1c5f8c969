"""The whole way, small: every step of it, and the page at its end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from efftasks.cli.main import main
from efftasks.cli.quickstart import TASKS, check_learned
from efftasks.structures.errors import WorkError


@pytest.mark.slow
@pytest.mark.parametrize("task", sorted(TASKS))
def test_from_nothing_to_a_page(task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["--epochs", "2", "--train", "48", "--val", "8"]
    # So little teaches nothing, which is a failure; but the whole way was gone.
    assert main(["quickstart", "--task", task, "--out", str(tmp_path), *sizes]) == 1
    assert "nothing was learned; 2 epochs may be too few" in capsys.readouterr().err
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    key = TASKS[task].metric
    assert metrics[key] == pytest.approx(metrics[f"pytorch/{key}"], abs=0.05 if task == "semseg" else 0.002)
    assert json.loads((tmp_path / "model.json").read_text())["verify"]["passed"]
    page = (tmp_path / "index.html").read_text()
    assert "trained in" in page
    assert TASKS[task].name in page and page.count("<figure>") == 8
    assert all((tmp_path / name).is_file() for name in ("model.onnx", "curves.svg"))


@pytest.mark.parametrize("task", sorted(TASKS))
def test_a_metric_near_nothing_is_a_failure(task: str) -> None:
    most = 100.0 if task == "semseg" else 1.0
    check_learned(TASKS[task], 0.6 * most, None)
    for value in (0.0, -1.0, float("nan"), 0.02 * most):
        with pytest.raises(WorkError, match=r"expected .* at least: nothing was learned$"):
            check_learned(TASKS[task], value, None)
