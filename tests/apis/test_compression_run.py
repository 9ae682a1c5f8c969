"""Which steps run, from what and in which order: with trainings and exports that only leave a trace."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from efftasks import apis
from efftasks.apis import compressing
from efftasks.structures.errors import UserError

BASE = "o2o-n_mobilenetv4-conv-s_1xb16-18e_shapes-128"
STEPS: list[dict[str, Any]] = [
    dict(name="dense"),
    dict(name="low", model_transforms=[dict(type="LowRank", layers=["neck.*"], ratio=0.5)]),
    dict(name="tune", max_epochs=3, result="last"),
]


class Calls:
    """What was called, in order; `stop` is the name of the step whose training is interrupted after an epoch."""

    def __init__(self) -> None:
        self.names: list[tuple[str, ...]] = []
        self.stop = ""
        self.guides: list[str | None] = []  # the weights of the guide in each training

    def train(self, config: Any, resume: str | None, **how: Any) -> Any:
        folder = Path(config.work_dir)
        start = config.load_from and str(Path(config.load_from).relative_to(folder.parent))
        self.names.append(("train", folder.name, (resume and Path(resume).name) or start or "nothing"))
        self.guides.append((config.model.get("guide") or {}).get("weights"))
        weights = dict(meta={}, state_dict={"x": torch.zeros(1)})
        torch.save(weights, folder / "epoch_1.pth")
        if folder.name.endswith(self.stop or "none"):
            raise KeyboardInterrupt
        torch.save(weights, folder / f"epoch_{config.train_cfg.max_epochs}.pth")
        torch.save(weights, folder / "best.pth")
        return SimpleNamespace(epoch=config.train_cfg.max_epochs)

    def transform_only(self, config: Any, folder: Path) -> Path:
        self.names.append(("transform", folder.name, str(Path(config.load_from).relative_to(folder.parent))))
        torch.save({}, folder / "model.pth")
        return folder / "model.pth"

    def step_rows(self, step: Any, config: Any, checkpoint: Path, *rest: Any) -> Iterator[dict[str, Any]]:
        self.names.append(("rows", step.name, checkpoint.name))
        yield dict(step=step.name)

    def taken(self) -> list[tuple[str, ...]]:
        names, self.names = self.names, []
        return names


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    calls = Calls()
    for name in ("train", "transform_only", "step_rows"):
        monkeypatch.setattr(compressing, name, getattr(calls, name))
    report: Callable[..., Any] = lambda work_dir, rows, chain: SimpleNamespace(rows=rows, page="report.html")  # noqa: E731
    monkeypatch.setattr(compressing, "write_compression_report", report)
    monkeypatch.setattr(compressing, "check_chain", lambda chain: None)
    return calls


def run(work_dir: Path, steps: list[dict[str, Any]] = STEPS, resume: bool = False, **options: Any) -> list[str]:
    cfg = apis.load_config(BASE, {"compression": dict(steps=steps), "max_epochs": 2, **options})
    cfg.work_dir = str(work_dir)
    return [row["step"] for row in apis.compress(cfg, resume=resume, check=False).rows]


ROWS = [("rows", "dense", "best.pth"), ("rows", "low", "model.pth"), ("rows", "tune", "epoch_3.pth")]


def test_each_step_starts_from_the_result_of_the_last(calls: Calls, tmp_path: Path) -> None:
    assert run(tmp_path) == ["dense", "low", "tune"]
    dense, low, tune = calls.taken()[::2]
    assert dense == ("train", "0_dense", "nothing")
    assert low == ("transform", "1_low", "0_dense/best.pth")
    assert tune == ("train", "2_tune", "1_low/model.pth")


def test_what_is_finished_is_kept(calls: Calls, tmp_path: Path) -> None:
    run(tmp_path)
    calls.taken()
    assert run(tmp_path, resume=True) == ["dense", "low", "tune"]
    assert calls.taken() == ROWS
    other = [*STEPS[:2], dict(STEPS[2], export=dict(num_images=3)), dict(name="more")]
    run(tmp_path, other, resume=True)
    assert calls.taken() == [*ROWS, ("transform", "3_more", "2_tune/epoch_3.pth"), ("rows", "more", "model.pth")]
    run(tmp_path)
    assert len(calls.taken()) == 6, "without resume all are done anew"


def test_an_interrupted_training_is_resumed(calls: Calls, tmp_path: Path) -> None:
    calls.stop = "tune"
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    calls.taken()
    calls.stop = ""
    run(tmp_path, resume=True)
    assert calls.taken() == [*ROWS[:2], ("train", "2_tune", "epoch_1.pth"), ROWS[2]]


@pytest.mark.parametrize(
    ("steps", "options", "first"),
    [
        ([*STEPS[:2], dict(STEPS[2], max_epochs=4)], {}, 2),
        (
            [STEPS[0], dict(STEPS[1], model_transforms=[dict(type="LowRank", layers=["neck.*"], ratio=0.3)]), STEPS[2]],
            {},
            1,
        ),
        (STEPS, {"optim_wrapper.optimizer.lr": 0.5}, 0),
        ([dict(STEPS[0], result="last"), *STEPS[1:]], {}, 0),
    ],
    ids=["max_epochs", "transform", "of all", "result"],
)
@pytest.mark.parametrize("is_interrupted", [False, True])
def test_a_changed_step_and_those_after_it_are_done_again(
    calls: Calls, tmp_path: Path, steps: list[Any], options: dict[str, Any], first: int, is_interrupted: bool
) -> None:
    calls.stop = "tune" if is_interrupted else ""
    try:
        run(tmp_path)
    except KeyboardInterrupt:
        calls.stop = ""
    calls.taken()
    run(tmp_path, steps, resume=True, **options)
    done = [names for names in calls.taken() if names[0] != "rows"]
    assert [names[1] for names in done] == ["0_dense", "1_low", "2_tune"][first:]
    assert "epoch_1.pth" not in [names[2] for names in done], "of the step that was interrupted with another config"
    log = (tmp_path / "compression.log").read_text()
    assert "is done again, since" in log and "so are the steps after it" in log


def test_a_missing_result_is_made_again(calls: Calls, tmp_path: Path) -> None:
    run(tmp_path)
    (tmp_path / "1_low" / "model.pth").unlink()
    calls.taken()
    run(tmp_path, resume=True)
    assert [names[1] for names in calls.taken() if names[0] != "rows"] == ["1_low", "2_tune"]
    assert "model.pth is missing" in (tmp_path / "compression.log").read_text()


def test_results_of_an_earlier_run_are_not_taken_for_those_of_this_one(calls: Calls, tmp_path: Path) -> None:
    run(tmp_path)
    run(tmp_path, [*STEPS[:2], dict(STEPS[2], max_epochs=1)])
    assert calls.taken()[-1] == ("rows", "tune", "epoch_1.pth")
    assert sorted(path.name for path in (tmp_path / "2_tune").glob("*.pth")) == ["best.pth", "epoch_1.pth"]


def test_references_are_the_results_of_this_run(calls: Calls, tmp_path: Path) -> None:
    guide = dict(type="mmdet.X", weights="step:dense")
    steps = [*STEPS[:2], dict(STEPS[2], model=dict(guide=guide))]
    run(tmp_path, steps)
    assert calls.guides == [None, str(tmp_path / "0_dense" / "best.pth")]


def test_other_weights_to_start_from_are_another_start(calls: Calls, tmp_path: Path) -> None:
    start = tmp_path / "start.pth"
    for value in (0.0, 1.0):
        torch.save({"state_dict": {"x": torch.tensor([value])}}, start)
        run(tmp_path, resume=True, load_from=str(start))
        done = [names for names in calls.taken() if names[0] != "rows"]
        assert done[0] == ("transform", "0_dense", "start.pth") and len(done) == 3
    assert "since load_from changed" in (tmp_path / "compression.log").read_text()
    run(tmp_path, resume=True, load_from=str(start))
    assert {names[0] for names in calls.taken()} == {"rows"}


def test_finished_results_are_moved_aside_and_not_removed(calls: Calls, tmp_path: Path) -> None:
    run(tmp_path)
    old = (tmp_path / "2_tune" / "best.pth").stat().st_ino
    run(tmp_path, [*STEPS[:2], dict(STEPS[2], max_epochs=4)], resume=True)
    assert (tmp_path / "2_tune.old" / "best.pth").stat().st_ino == old
    assert not (tmp_path / "1_low.old").exists()
    run(tmp_path)
    assert (tmp_path / "2_tune.old1" / "epoch_4.pth").is_file() and (tmp_path / "2_tune.old" / "epoch_3.pth").is_file()
    assert f"is in {tmp_path / '2_tune.old1'}" in (tmp_path / "compression.log").read_text()


@pytest.mark.parametrize("key", ["load_from", "guide"])
def test_weights_in_the_folder_of_a_step_are_refused(calls: Calls, tmp_path: Path, key: str) -> None:
    run(tmp_path)
    calls.taken()
    file = tmp_path / "0_dense" / "best.pth"
    options = {key: str(file)} if key == "load_from" else {"model.guide": dict(type="mmdet.X", weights=str(file))}
    for resume in (False, True):
        with pytest.raises(UserError, match=r"0_dense/best\.pth, which is in the folder of a step of this run"):
            run(tmp_path, resume=resume, **options)
    assert file.is_file() and calls.taken() == []


@pytest.mark.parametrize(
    "options", [{"default_hooks.logger.interval": 7}, {"env_cfg.cudnn_benchmark": True}, {"log_level": "DEBUG"}]
)
def test_what_is_only_logged_redoes_nothing(calls: Calls, tmp_path: Path, options: dict[str, Any]) -> None:
    run(tmp_path)
    calls.taken()
    run(tmp_path, resume=True, **options)
    assert calls.taken() == ROWS


def test_any_error_leaves_the_report_of_the_steps_before_it(
    calls: Calls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[list[str]] = []

    def transform_only(config: Any, folder: Path) -> Path:
        raise RuntimeError("out of memory")

    def report(work_dir: Path, rows: list[dict[str, Any]], chain: Any) -> Any:
        reported.append([row["step"] for row in rows])
        if len(reported) > 1:
            raise OSError("disk full")
        return SimpleNamespace(rows=rows, page="report.html")

    monkeypatch.setattr(compressing, "transform_only", transform_only)
    monkeypatch.setattr(compressing, "write_compression_report", report)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="out of memory"):
            run(tmp_path)
    assert reported == [["dense"], ["dense"]]
    assert "no report of the files so far: disk full" in (tmp_path / "compression.log").read_text()
