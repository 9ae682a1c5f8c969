"""The whole way, small: every step of it, and the page at its end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from efftasks.cli.main import main
from efftasks.cli.quickstart import TASKS


@pytest.mark.slow
@pytest.mark.parametrize("task", sorted(TASKS))
def test_from_nothing_to_a_page(task: str, tmp_path: Path) -> None:
    sizes = ["--epochs", "2", "--train", "48", "--val", "8"]
    assert main(["quickstart", "--task", task, "--out", str(tmp_path), *sizes]) == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    key = TASKS[task].metric
    assert metrics[key] == pytest.approx(metrics[f"pytorch/{key}"], abs=0.05 if task == "semseg" else 0.002)
    assert json.loads((tmp_path / "model.json").read_text())["verify"]["passed"]
    page = (tmp_path / "index.html").read_text()
    assert TASKS[task].name in page and page.count("<figure>") == 8
    assert all((tmp_path / name).is_file() for name in ("model.onnx", "curves.svg"))
