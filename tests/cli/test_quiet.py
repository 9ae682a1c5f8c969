"""What libraries say is left out of the terminal, and nothing else is."""

from __future__ import annotations

import io
import logging
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from efftasks.cli.quiet import quiet
from efftasks.datasets.shapes import write_shapes

ROOT = Path(__file__).resolve().parents[2]
CONFIG = "o2o-n_mobilenetv4-conv-s_1xb16-18e_shapes-128"
NOISE = (
    "OneDL",
    "System environment",
    "Build settings",
    "FileClient",
    "HardDiskBackend",
    "Hooks will be executed",
    "Config:",
    "train_pipeline",
    "SyncBatchNorm",
    "Exp name",
    "Warning",
)
STAMP = "11/29 10:10:05 - mmengine - "


def shown(monkeypatch: pytest.MonkeyPatch, *texts: str, active: bool = True) -> str:
    """What comes through of texts that are printed."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    with quiet(active):
        for text in texts:
            print(text)
            sys.stdout.write(f"{text}\n")
    assert sys.stdout is stream
    return stream.getvalue()


@pytest.mark.parametrize(
    "text",
    [
        "Could not import OneDL. Skipping OneDL datasets.",
        "Could not import OneDL",
        f"{STAMP}INFO - \n{'-' * 60}\nSystem environment:\n    sys.platform: linux",
        f"{STAMP}INFO - Config:\nmodel = dict()",
        f"{STAMP}INFO - Hooks will be executed in the following order:\nbefore_run:",
        f'{STAMP}\x1b[4m\x1b[33mWARNING\x1b[0m - "FileClient" will be deprecated in future.',
    ],
)
def test_records_of_libraries_are_left_out(text, monkeypatch):
    assert shown(monkeypatch, text) == ""
    assert shown(monkeypatch, "a", text, "b") == "a\na\nb\nb\n"
    assert shown(monkeypatch, text, active=False).count(text) == 2


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a table",
        "it says: Could not import OneDL",
        f"{STAMP}INFO - Epoch(train) [1][2/2]  lr: 8.0800e-02  loss: 8.8208",
        f"{STAMP}WARNING - a.jpg: the image is missing or cannot be decoded, skipped",
        f"{STAMP}ERROR - Config:\n",
    ],
)
def test_everything_else_comes_through(text, monkeypatch):
    assert shown(monkeypatch, text) == f"{text}\n" * 2


def test_warnings_by_their_words():
    with warnings.catch_warnings(record=True) as caught, quiet():
        warnings.simplefilter("always", RuntimeWarning)
        warnings.warn("For binary segmentation, we suggest using`out_channels = 1`", UserWarning, stacklevel=1)
        warnings.warn("a mean of nothing", RuntimeWarning, stacklevel=1)
    assert [str(entry.message) for entry in caught] == ["a mean of nothing"]


def test_the_stream_is_otherwise_itself(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    with quiet():
        assert not sys.stdout.isatty() and sys.stdout.writable()


def command(*words: str) -> tuple[str, int]:
    """Output and errors of a command in a process of its own, and its exit code."""
    run = subprocess.run(
        [sys.executable, "-m", "efftasks", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return run.stdout + run.stderr, run.returncode


@pytest.mark.slow
def test_the_terminal_of_training(tmp_path):
    data = write_shapes(tmp_path / "shapes", train=8, val=2, size=64, seed=0)

    broken = sorted((data / "images" / "train").iterdir())[0]
    broken.write_bytes(b"no image")
    words = ["train", CONFIG, "--work-dir", str(tmp_path / "run"), "--cfg-options", f"data_root={data}/"]
    words += ["train_cfg.max_epochs=1", "train_dataloader.batch_size=4", "train_cfg.val_interval=1"]
    said, code = command(*words)
    assert code == 0, said
    assert not [word for word in NOISE if word in said], said
    assert f"{broken}: the image is missing or cannot be decoded, skipped" in said  # a warning that tells something
    epoch = next(line for line in said.splitlines() if "Epoch(train)" in line)
    assert {"lr:", "eta:", "loss:", "time:"} <= set(epoch.split())
    assert len(said.splitlines()) < 12, said
    (log,) = (tmp_path / "run").glob("*/*.log")
    assert str(log) in said
    kept = log.read_text()
    assert "System environment" in kept and "Config:" in kept and "Hooks will be executed" in kept
    said, code = command("test", CONFIG, str(tmp_path / "run" / "best.pth"), "--cfg-options", f"data_root={data}/")
    assert code == 0 and not [word for word in NOISE if word in said], said


@pytest.mark.slow
def test_debug_shows_them_and_processes_of_a_benchmark_do_not():
    words = ["benchmark", CONFIG, "--size", "64", "64", "--runs", "1", "--warmup", "0"]
    said, code = command(*words)
    assert code == 0 and "OneDL" not in said and "params M" in said
    said, code = command(*words, "--debug")
    assert code == 0 and "Could not import OneDL" in said and "params M" in said


def test_warnings_of_imports_are_dropped_and_errors_are_shown(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("torchao.ops")
    with quiet():
        logger.warning("failed to load a kernel")
        logger.error("it is broken")
    logger.warning("afterwards")
    assert [record.message for record in caplog.records] == ["it is broken", "afterwards"]
    with quiet(active=False):
        logger.warning("with --debug")
    assert caplog.records[-1].message == "with --debug"
