"""The real packages, offline and against a local server; each is skipped where it is not installed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from efftasks.engine.loggers import guard

CFG = dict(model=dict(type="Network", sizes=[1, (2, 3)]), data_root="/home/someone/data/mine/", api_key="k-123")


@pytest.fixture
def warned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    messages: list[str] = []
    monkeypatch.setattr(guard, "print_log", lambda message, logger, level: messages.append(message))
    return messages


def runner_with(toy: ModuleType, folder: Path, tracker: str, epochs: int = 2, **options: Any) -> Any:
    visualizer = dict(type="Visualizer", vis_backends=[dict(type="LocalVisBackend"), dict(type=tracker)])
    logging = dict(logger=dict(type="LoggerHook", interval=2))
    checkpoint = dict(type="SafeCheckpointHook", max_keep_ckpts=9, save_best="toy/score")
    return toy.make_runner(
        folder,
        epochs,
        scores=[0.3, 0.2],
        cfg=CFG,
        visualizer=visualizer,
        default_hooks=dict(checkpoint=checkpoint, **logging),
        **options,
    )


def train(runner: Any) -> None:
    """Train, with a picture as apis.train makes them."""
    runner.visualizer.add_image("validation_1", np.full((8, 8, 3), 99, np.uint8), step=1)
    runner.train()


def wandb_records(folder: Path) -> dict[str, list[Any]]:
    """The records of an offline run by kind: the messages of wandb, in a log file of LevelDB."""
    import wandb
    from wandb.proto import wandb_internal_pb2

    wandb.teardown()  # its process has the rest of the file
    (file,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    data, block = file.read_bytes(), 32768
    assert data[:4] == b":W&B"
    position, message = 7, b""
    records: dict[str, list[Any]] = {}
    while position + 7 <= len(data):
        if block - position % block < 7:  # the rest of a block is padding
            position += block - position % block
            continue
        size, part = int.from_bytes(data[position + 4 : position + 6], "little"), data[position + 6]
        message += data[position + 7 : position + 7 + size]
        position += 7 + size
        if part in (1, 4):  # complete, or the last part
            record = wandb_internal_pb2.Record.FromString(message)
            kind, message = record.WhichOneof("record_type"), b""
            records.setdefault(kind, []).append(getattr(record, kind))
    return records


def history(records: dict[str, list[Any]]) -> list[dict[str, Any]]:
    return [
        {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in row.item}
        for row in records["history"]
    ]


@pytest.mark.slow
def test_wandb_offline(tmp_path: Path, toy: ModuleType, monkeypatch: pytest.MonkeyPatch, warned: list[str]) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    train(runner_with(toy, tmp_path / "mine", "WandbTracker"))
    assert warned == []
    records = wandb_records(tmp_path / "mine")
    rows = history(records)
    losses = [row for row in rows if "train/loss" in row]
    assert [row["iter"] for row in losses] == [2, 4, 6, 8]
    scores = [row for row in rows if "val/toy/score" in row]
    assert [(row["epoch"], row["val/toy/score"]) for row in scores] == [(1, 0.3), (2, 0.2)]
    assert any("pictures/validation_1/path" in row for row in rows)
    config = "".join(item.value_json for record in records["config"] for item in record.update)
    assert "data/mine/" in config
    assert "someone" not in config
    assert "k-123" not in config
    assert records["run"][0].display_name == "mine"
    assert records["run"][0].project == "efftasks"
    assert list((tmp_path / "mine").rglob("*.png"))
    assert records["exit"][-1].exit_code == 0
    (artifact,) = records["artifact"]
    assert artifact.type == "model"
    assert json.loads(artifact.metadata) == {"epoch": 1, "metric": "toy/score", "score": 0.3}


@pytest.mark.slow
def test_a_resumed_part_is_a_wandb_run_of_its_own_offline(
    tmp_path: Path, toy: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    runner_with(toy, tmp_path, "WandbTracker", 1).train()
    runner_with(toy, tmp_path, "WandbTracker", 2, resume=True).train()
    ids = [path.stem for path in tmp_path.glob("wandb/offline-run-*/run-*.wandb")]
    assert len(ids) == len(set(ids)) == 2


ALONE = """
import sys
sys.path.insert(0, sys.argv[1])
import test_trackers, toy
from pathlib import Path
test_trackers.train(test_trackers.runner_with(toy, Path(sys.argv[2]), "WandbTracker", 1))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("key", "reason"), [("", "not logged in"), ("a" * 40, "no connection")])
def test_wandb_without_a_login_or_a_network(tmp_path: Path, key: str, reason: str) -> None:
    pytest.importorskip("wandb")
    removed = ("WANDB_MODE", "WANDB_API_KEY")
    environment = {name: value for name, value in os.environ.items() if name not in removed}
    environment |= {
        "HOME": str(tmp_path),
        "WANDB_BASE_URL": "http://127.0.0.1:9",
        **({"WANDB_API_KEY": key} if key else {}),
    }
    here = Path(__file__).resolve()
    environment["PYTHONPATH"] = os.pathsep.join([str(here.parents[3]), str(here.parents[1]), str(here.parent)])
    words = [sys.executable, "-c", ALONE, str(here.parent), str(tmp_path / "mine")]
    run = subprocess.run(words, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=200)
    assert run.returncode == 0, run.stderr
    lines = [line for line in run.stdout.splitlines() if "Weights & Biases" in line]
    assert len(lines) == 1
    assert reason in lines[0]
    assert "so the run is kept offline" in lines[0]
    assert history(wandb_records(tmp_path / "mine"))


def mlflow_runs(address: str) -> list[Any]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=address)
    experiment = client.get_experiment_by_name("efftasks")
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id]))


@pytest.mark.slow
def test_mlflow_in_the_work_dir_and_resumed(
    tmp_path: Path, toy: ModuleType, monkeypatch: pytest.MonkeyPatch, warned: list[str]
) -> None:
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = tmp_path / "mine"
    train(runner_with(toy, folder, "MlflowTracker", 1))
    runner_with(toy, folder, "MlflowTracker", 2, resume=True).train()
    address = f"sqlite:///{folder}/mlflow.db"
    (run,) = mlflow_runs(address)
    assert warned == []
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "mine"
    client = MlflowClient(tracking_uri=address)
    losses = client.get_metric_history(run.info.run_id, "train/loss")
    assert [metric.step for metric in losses] == [2, 4, 6, 8]
    scores = client.get_metric_history(run.info.run_id, "val/toy/score")
    assert [(metric.step, metric.value) for metric in scores] == [(1, 0.3), (1, 0.3), (2, 0.2)]
    assert run.data.params["model.type"] == "Network"
    assert run.data.params["data_root"] == "data/mine/"
    assert run.data.params["api_key"] == "(hidden)"
    assert run.data.tags["best.score"] == "0.3"
    assert "environment.torch" in run.data.tags
    names = {
        str(path.relative_to(folder / "mlartifacts" / run.info.run_id / "artifacts"))
        for path in (folder / "mlartifacts").rglob("*")
        if path.is_file()
    }
    assert {"config.py", "checkpoint/best.pth"} <= names
    assert any(name.startswith("images/validation_1") for name in names)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.mark.slow
def test_mlflow_server_killed_in_the_middle(
    tmp_path: Path, toy: ModuleType, monkeypatch: pytest.MonkeyPatch, warned: list[str]
) -> None:
    pytest.importorskip("mlflow")
    port = free_port()
    store = f"sqlite:///{tmp_path}/server.db"
    words = ["--backend-store-uri", store, "--port", str(port), "--artifacts-destination", str(tmp_path / "files")]
    with (tmp_path / "server.log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *words, "--workers", "1"],
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.5)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")

        class Kill(toy.Record):  # type: ignore[name-defined]
            def after_train_epoch(self, runner: Any) -> None:
                if runner.epoch == 1:
                    runner._trackers[0]._worker.submit(lambda: None, 60)  # what the first epoch logged has arrived
                    os.killpg(server.pid, signal.SIGKILL)

        runner = runner_with(toy, tmp_path / "mine", "MlflowTracker", 4, hooks=(Kill(),))
        runner.train()
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()
    assert runner.epoch == 4
    (message,) = warned
    assert message.startswith("MLflow failed (MlflowException: API request to")
    assert message.endswith("training goes on, and nothing more is logged there")
    (run,) = mlflow_runs(store)
    assert run.data.metrics["val/toy/score"] == 0.3
    (scalars,) = (tmp_path / "mine").glob("*/vis_data/scalars.json")
    assert [json.loads(line)["step"] for line in scalars.read_text().splitlines() if "toy/score" in line] == [
        1,
        2,
        3,
        4,
    ]


@pytest.mark.slow
def test_clearml_offline(tmp_path: Path, toy: ModuleType, monkeypatch: pytest.MonkeyPatch, warned: list[str]) -> None:
    pytest.importorskip("clearml")
    from clearml import Task

    monkeypatch.setattr(Task, "is_offline", Task.is_offline)
    train(runner_with(toy, tmp_path / "mine", "ClearmlTracker"))
    assert warned == []
    (session,) = (tmp_path / "mine").glob("clearml_*.zip")
    with zipfile.ZipFile(session) as archive:
        names = archive.namelist()
        task = json.loads(archive.read("task.json"))
        events = [json.loads(line) for line in archive.read("metrics.jsonl").splitlines()]
    assert task["task"]["name"] == "mine" if "task" in task else task["name"] == "mine"
    rows = [event for batch in events for event in (batch if isinstance(batch, list) else [batch])]
    losses = [(row["iter"], row["value"]) for row in rows if row.get("metric") == "train" and row["variant"] == "loss"]
    assert [step for step, _ in losses] == [2, 4, 6, 8]
    scores = [(row["iter"], row["value"]) for row in rows if row.get("metric") == "val/toy"]
    assert scores == [(1, 0.3), (2, 0.2)]
    assert any("best" in name for name in names)
    assert "k-123" not in json.dumps(task)
    assert "someone" not in json.dumps(task)
