"""The whole way, small: every step of it, and the page at its end."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from efftasks.checkpoints.files import read_checkpoint
from efftasks.cli import quickstart
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
    precision = read_checkpoint(tmp_path / "train" / "best.pth")["meta"]["precision"]
    assert f"trained in<b>{precision}</b>" in page
    assert TASKS[task].name in page and page.count("<figure>") == 8
    assert all((tmp_path / name).is_file() for name in ("model.onnx", "curves.svg"))


@pytest.mark.parametrize("task", sorted(TASKS))
def test_a_metric_near_nothing_is_a_failure(task: str) -> None:
    most = 100.0 if task == "semseg" else 1.0
    check_learned(TASKS[task], 0.6 * most, None)
    for value in (0.0, -1.0, float("nan"), 0.02 * most):
        with pytest.raises(WorkError, match=r"expected .* at least: nothing was learned$"):
            check_learned(TASKS[task], value, None)


class Steps:
    """In place of the commands: notes what would run."""

    def __init__(self) -> None:
        self.words: list[list[str]] = []

    def parse_args(self, words: list[str]) -> argparse.Namespace:
        self.words.append(words)
        return argparse.Namespace(run=lambda args: 0)


@pytest.mark.parametrize("task", sorted(TASKS))
@pytest.mark.parametrize("share", [0.0, 0.9, 1.1])
def test_the_command_fails_where_the_file_has_learned_nothing(
    task: str, share: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = Steps()
    least, key = TASKS[task].minimum, TASKS[task].metric

    def report(*given: Any) -> Path:
        # The PyTorch model may be as good as it likes: what counts is the file.
        (tmp_path / "metrics.json").write_text(json.dumps({key: share * least, f"pytorch/{key}": 10 * least}))
        return tmp_path / "index.html"

    monkeypatch.setattr(quickstart, "parser_of", lambda modules: steps)
    monkeypatch.setattr(quickstart, "_report", report)
    code = main(["quickstart", "--task", task, "--out", str(tmp_path)])
    assert code == (0 if share > 1 else 1)
    assert ("nothing was learned" in capsys.readouterr().err) == (share < 1)
    assert [words[0] for words in steps.words] == ["dataset", "train", "test", "export", "test", "benchmark"]
    trained, tested = steps.words[1], steps.words[4]
    assert trained[1] == tested[1] == TASKS[task].config and tested[2] == str(tmp_path / "model.onnx")
