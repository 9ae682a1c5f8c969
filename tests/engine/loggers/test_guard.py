"""A logger never stops the training: it fails once, with one warning, and is left alone after that."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.visualization import BaseVisBackend, LocalVisBackend

from efftasks.engine.loggers import guard, worker
from efftasks.engine.loggers.guard import GuardedBackend, GuardedTracker
from efftasks.engine.loggers.tracker import Scalars, TrackedRun, Tracker
from efftasks.structures.errors import UserError


class Fake(Tracker):
    """Keeps its calls, and fails or waits where it was told to."""

    flag, package, title = "fake", "json", "Fake"

    def __init__(self, fails: str = "", waits: str = "", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.calls: list[tuple[str, Any]] = []
        self.threads: set[str] = set()
        self.fails, self.waits = fails, waits
        self.answer = threading.Event()

    @property
    def experiment(self) -> Any:
        return self

    def _record(self, name: str, value: Any = None) -> None:
        self.threads.add(threading.current_thread().name)
        if name == self.waits:
            self.answer.wait(20)
        if name == self.fails:
            raise ConnectionError("the server is gone\nand more lines")
        self.calls.append((name, value))

    def _init_env(self) -> None:
        self._record("open")

    def add_config(self, config: Any, **kwargs: Any) -> None:
        self._record("config", config)

    def add_image(self, name: str, image: np.ndarray, step: int = 0, **kwargs: Any) -> None:
        self._record("image", (name, step))

    def _log(self, scalars: Scalars) -> None:
        self._record("scalars", scalars)

    def add_environment(self, environment: Any) -> None:
        self._record("environment", environment)

    def add_checkpoint(self, path: Path, metadata: Any) -> None:
        self._record("checkpoint", (path.name, metadata))

    def finish(self, is_complete: bool) -> None:
        self._record("finish", is_complete)


class Broken(BaseVisBackend):
    """Any other backend whose disk is full."""

    def __init__(self, save_dir: str) -> None:
        super().__init__(save_dir)
        self.calls = 0

    experiment = property(lambda self: self)

    def _init_env(self) -> None: ...

    def add_scalars(self, scalar_dict: Any, step: int = 0, file_path: Any = None, **kwargs: Any) -> None:
        self.calls += 1
        raise OSError(28, "No space left on device")


@pytest.fixture
def warned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The warnings of guards."""
    messages: list[str] = []
    monkeypatch.setattr(guard, "print_log", lambda message, logger, level: messages.append(message))
    return messages


def guarded(tmp_path: Path, open_seconds: float = 20, close_seconds: float = 20, **kwargs: Any) -> GuardedTracker:
    config = dict(type=Fake, run=TrackedRun(tmp_path / "mine", False, "epoch"), **kwargs)
    return GuardedTracker(str(tmp_path), config, open_seconds, close_seconds)


def calls(tracker: GuardedTracker) -> list[str]:
    return [name for name, _ in tracker.experiment.calls]


def use(tracker: GuardedTracker) -> None:
    tracker.add_config({"a": 1})
    tracker.add_environment({"python": "3"})
    tracker.add_scalars({"loss": torch.tensor(0.5), "lr": 0.1, "iter": 20, "epoch": 1, "note": "text"}, step=20)
    tracker.add_scalars({"coco/bbox_mAP": np.float64(0.25), "time": 1}, step=1)
    tracker.add_image("validation_1", np.zeros((2, 2, 3), np.uint8), step=1)
    tracker.add_checkpoint(Path("best.pth"), {"epoch": 1})
    tracker.close()


def test_calls_come_in_order_in_one_thread(tmp_path: Path) -> None:
    tracker = guarded(tmp_path)
    use(tracker)
    fake = tracker.experiment
    assert calls(tracker) == ["open", "config", "environment", "scalars", "scalars", "image", "checkpoint", "finish"]
    assert fake.threads == {"tracker Fake"}
    train, val = (value for name, value in fake.calls if name == "scalars")
    assert train == ({"train/loss": 0.5, "train/lr": 0.1, "train/epoch": 1}, "iter", 20)
    assert val == ({"val/coco/bbox_mAP": 0.25, "val/time": 1}, "epoch", 1)
    assert fake.calls[-1] == ("finish", True)


def test_nothing_is_opened_before_there_is_something_to_log(tmp_path: Path) -> None:
    tracker = guarded(tmp_path)
    tracker.add_config({"a": 1})  # the runner does so before it has built the model
    tracker.close()
    assert calls(tracker) == []


def test_aborted_run_is_a_failed_one_and_closed_once(tmp_path: Path) -> None:
    tracker = guarded(tmp_path)
    tracker.add_environment({})
    tracker.abort()
    tracker.close()
    tracker.add_environment({})
    assert tracker.experiment.calls[1:] == [("environment", {}), ("finish", False)]


@pytest.mark.parametrize("fails", ["open", "config", "scalars", "image", "checkpoint", "finish"])
def test_failure_is_one_warning(tmp_path: Path, fails: str, warned: list[str]) -> None:
    tracker = guarded(tmp_path, fails=fails)
    use(tracker)  # closing waits for the thread
    assert fails not in calls(tracker)
    assert calls(tracker)[-1:] != ["finish"]
    assert warned == [
        "Fake failed (ConnectionError: the server is gone); training goes on, and nothing more is logged there"
    ]


@pytest.mark.parametrize("waits", ["open", "finish"])
def test_server_that_does_not_answer_is_left(tmp_path: Path, waits: str, warned: list[str]) -> None:
    tracker = guarded(tmp_path, 0.05 if waits == "open" else 20, 0.05 if waits == "finish" else 20, waits=waits)
    use(tracker)
    tracker.experiment.answer.set()
    (message,) = warned
    assert "(no answer within 0.05 s)" in message


def test_server_slower_than_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warned: list[str]) -> None:
    monkeypatch.setattr(worker, "PENDING", 3)
    tracker = guarded(tmp_path, waits="scalars")
    for step in range(9):
        tracker.add_scalars({"loss": 1.0, "iter": step}, step)
    tracker.experiment.answer.set()
    (message,) = warned
    assert "(3 calls wait for an answer)" in message


def test_other_backends_are_guarded_as_well(tmp_path: Path, warned: list[str]) -> None:
    backend = GuardedBackend(str(tmp_path), dict(type=Broken))
    for step in range(3):
        backend.add_scalars({"loss": 1.0}, step)
    assert backend.experiment.calls == 1
    (message,) = warned
    assert message.startswith("Broken failed (OSError: [Errno 28] No space left on device); training goes on")


def test_missing_package_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Fake, "package", "no_such_package")
    with pytest.raises(UserError, match=r"^--logger fake: .*no_such_package.* pip install 'efftasks\[fake\]'$"):
        Fake.check_installed()


def lines(folder: Path) -> list[dict[str, Any]]:
    (file,) = folder.glob("*/vis_data/scalars.json")
    return [json.loads(line) for line in file.read_text().splitlines()]


def visualizer(**kwargs: Any) -> dict[str, Any]:
    return dict(type="Visualizer", vis_backends=[dict(type="LocalVisBackend"), dict(type=Fake, **kwargs)])


@pytest.mark.parametrize("fails", ["", "open", "scalars"])
def test_training_is_the_same_with_a_logger(tmp_path: Path, toy: ModuleType, fails: str, warned: list[str]) -> None:
    losses = []
    for name in ("without", "mine"):
        settings = {} if name == "without" else dict(visualizer=visualizer(fails=fails))
        runner = toy.make_runner(tmp_path / name, epochs=2, scores=[0.3, 0.2], cfg=dict(x=1), **settings)
        runner.train()
        losses.append(runner.model.losses)
    assert losses[0] == losses[1]
    assert next(row for row in lines(tmp_path / "mine") if "toy/score" in row)["toy/score"] == 0.3
    fake = runner._trackers[0].experiment
    if fails:
        assert len(warned) == 1
        return
    assert [name for name, _ in fake.calls[:3]] == ["open", "config", "environment"]
    assert fake.calls[-2:] == [
        ("checkpoint", ("best.pth", {"epoch": 1, "metric": "toy/score", "score": 0.3})),
        ("finish", True),
    ]
    steps = [(x.axis, x.step) for name, x in fake.calls if name == "scalars"]
    assert [step for axis, step in steps if axis == "epoch"] == [1, 2]
    assert "torch" in dict(fake.calls)["environment"]


def test_local_backend_keeps_its_name(tmp_path: Path, toy: ModuleType) -> None:
    runner = toy.make_runner(tmp_path, visualizer=visualizer(), cfg=dict(x=1))
    assert isinstance(runner.visualizer.get_backend("LocalVisBackend").experiment, LocalVisBackend)
    assert isinstance(runner.visualizer.get_backend("Fake"), GuardedTracker)


def test_failed_training_ends_the_run_as_failed(tmp_path: Path, toy: ModuleType) -> None:
    class Stop(toy.Record):  # type: ignore[name-defined]
        def after_train_iter(self, *args: Any, **kwargs: Any) -> None:
            raise KeyboardInterrupt

    runner = toy.make_runner(tmp_path, visualizer=visualizer(), cfg=dict(x=1), hooks=(Stop(),))
    with pytest.raises(KeyboardInterrupt):
        runner.train()
    assert runner._trackers[0].experiment.calls[-1] == ("finish", False)


def test_deadlines_are_long_enough_for_a_new_database() -> None:
    # MLflow makes the tables of a new SQLite file in 3 to 15 s.
    assert guard.OPEN_SECONDS >= 60
    assert guard.CLOSE_SECONDS >= 60
