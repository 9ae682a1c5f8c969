"""The command itself: what it prints and which code it ends with."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import efftasks
from efftasks.cli import main as cli
from efftasks.structures.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
NAMES = [command.__name__.rpartition(".")[2] for command in cli.COMMANDS]


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A command ``boom`` that raises (or returns) the first of the list."""
    outcome: list[Any] = []

    def run(args: Any) -> int:
        if isinstance(outcome[0], BaseException):
            raise outcome[0]
        return outcome[0]

    def add_parser(subparsers: Any) -> None:
        subparsers.add_parser("boom").set_defaults(run=run)

    monkeypatch.setattr(cli, "COMMANDS", (SimpleNamespace(__name__="boom", add_parser=add_parser),))
    return outcome


def test_every_command_module_is_in_the_parser() -> None:
    modules = {path.stem for path in (ROOT / "efftasks" / "cli").glob("*.py")} - {
        "__init__",
        "main",
        "dataset_convert",
        "errors",
        "key_frame_options",
        "label_options",
        "logger_options",
        "options",
        "parser",
        "quiet",
        "report_options",
        "score_options",
        "size_options",
        "tile_options",
        "zoo_hub",
        "track_options",
        "train_options",
    }
    assert set(NAMES) == modules


@pytest.mark.parametrize("name", NAMES)
def test_help_of_every_command(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main([name, "--help"])
    assert end.value.code == 0
    assert f"usage: efftasks {name}" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out.strip() == f"efftasks {efftasks.__version__}"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["trian", "x.py"], "unknown command 'trian'; did you mean 'train'?"),
        (["zzz"], "unknown command 'zzz'; there are "),
        ([], "COMMAND"),
        (["train"], "CONFIG"),
    ],
)
def test_line_that_does_not_parse(line: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(line)
    assert end.value.code == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("outcome", "code", "printed"),
    [
        (0, 0, ""),
        (1, 1, ""),
        (UserError("x.json: no images"), 2, "error: x.json: no images\n"),
        (RuntimeError("it broke"), 1, "error: it broke\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
    ids=repr,
)
def test_outcome(failing: list[Any], outcome: Any, code: int, printed: str, capsys: pytest.CaptureFixture[str]) -> None:
    failing.append(outcome)
    assert cli.main(["boom"]) == code
    assert capsys.readouterr().err == printed


@pytest.mark.parametrize("line", [["--debug", "boom"], ["boom", "--debug"]])
def test_debug_raises_wherever_it_stands(failing: list[Any], line: list[str]) -> None:
    failing.append(UserError("x"))
    with pytest.raises(UserError):
        cli.main(line)


def test_missing_config_suggests_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    name = next((ROOT / "configs" / "det").rglob("*.py")).stem
    assert cli.main(["train", name[:-1]]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"did you mean {name!r}?" in error


def call(*line: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run([sys.executable, *line], cwd=cwd, capture_output=True, text=True, env=environment)


def test_module_runs() -> None:
    result = call("-m", "efftasks", "--version", cwd=ROOT)
    assert result.returncode == 0
    assert result.stdout.strip() == f"efftasks {efftasks.__version__}"


@pytest.mark.parametrize("shim", sorted((ROOT / "tools").glob("*.py")), ids=lambda path: path.name)
def test_shims_work_from_anywhere_without_installation(shim: Path, tmp_path: Path) -> None:
    result = call(str(shim), "--help", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert f"usage: efftasks {shim.stem}" in result.stdout


def test_reader_that_leaves_early_is_no_error(failing: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    failing.append(BrokenPipeError())
    with Path(os.devnull).open("w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        assert cli.main(["boom"]) == 1
