"""Compression steps from the config to the report, interrupted and resumed, and changed between."""

from __future__ import annotations

import csv
import gc
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.hooks import Hook

from efftasks import apis
from efftasks.apis import compression_results
from efftasks.checkpoints.files import read_checkpoint, read_state_dict
from efftasks.cli.main import main
from efftasks.datasets.shapes import write_shapes
from efftasks.models.detectors import Detector
from efftasks.registry import HOOKS
from efftasks.structures.errors import UserError, WorkError

pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.slow  # exports take most of the time

BASE = "o2o-n_mobilenetv4-conv-s_1xb16-18e_shapes-128"
STEPS: list[dict[str, Any]] = [
    dict(name="dense"),
    dict(
        name="lowrank",
        model_transforms=[dict(type="LowRank", layers=["neck.*"], ratio=0.5)],
        max_epochs=2,
        optim_wrapper=dict(optimizer=dict(lr=1e-3)),
    ),
    dict(name="plain"),
]
SMALL = {
    "image_size": (64, 64),
    "model.backbone.width": 0.25,
    "model.neck.out_channels": (16, 16, 16),
    "train_dataloader.batch_size": 4,
    "train_dataloader.num_workers": 0,
    "train_dataloader.persistent_workers": False,
    "val_dataloader.num_workers": 0,
    "val_dataloader.persistent_workers": False,
    "train_cfg.val_interval": 1,
    "max_epochs": 1,
}


class Interruption(Exception):
    """A power cut."""


@HOOKS.register_module()
class InterruptInTests(Hook):
    """Raises in the second epoch while `file` exists."""

    def __init__(self, file: str) -> None:
        self.file = Path(file)

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        if runner.epoch == 1 and self.file.is_file():
            raise Interruption


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shapes(tmp_path_factory.mktemp("data") / "shapes", train=8, val=4, size=64, seed=1)


def config(data: Path, work_dir: Path, steps: list[dict[str, Any]] = STEPS, **options: Any) -> Any:
    compression = dict(steps=steps, benchmark=dict(runs=3, warmup=1, threads=1, backends=["onnxruntime"]))
    cfg = apis.load_config(BASE, {"data_root": f"{data}/", "compression": compression, **SMALL, **options})
    cfg.work_dir = str(work_dir)
    return cfg


def compress(cfg: Any, **how: Any) -> Any:
    return apis.compress(cfg, threads=1, check=False, **how)


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return compress(config(data, tmp_path_factory.mktemp("run")))


@pytest.fixture(scope="module")
def folder(run: Any) -> Path:
    return run.page.parent


def times_of(folder: Path) -> dict[str, int]:
    """When each checkpoint and each exported file was written."""
    files = [path for kind in ("*.pth", "*.onnx") for path in folder.rglob(kind)]
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in files}


def same_weights(one: Path, other: Path) -> bool:
    a, b = read_checkpoint(one), read_checkpoint(other)
    states = [(a["state_dict"], b["state_dict"])]
    if "ema_state_dict" in a and "ema_state_dict" in b:
        states.append((a["ema_state_dict"], b["ema_state_dict"]))
    return all(
        x.keys() == y.keys() and all(torch.equal(torch.as_tensor(x[key]), torch.as_tensor(y[key])) for key in x)
        for x, y in states
    )


def test_every_step_has_a_row_that_is_true_of_its_model(run: Any, folder: Path, data: Path) -> None:
    assert [(row["step"], row["epochs"], row["input"]) for row in run.rows] == [
        *(("dense", 1, "64x64"), ("lowrank", 2, "64x64"), ("plain", 0, "64x64"))
    ]
    dense, low, plain = run.rows
    network = apis.build(apis.load_config(BASE, {"data_root": f"{data}/", **SMALL}))
    count = sum(parameter.numel() for parameter in apis.fuse(network).parameters())
    assert dense["params M"] == pytest.approx(count / 1e6, abs=1e-9)
    plan = read_checkpoint(folder / "1_lowrank" / "epoch_2.pth")["meta"]["compression_plan"]
    saved = 0
    for name, rank in plan["steps"][0]["plan"]["ranks"].items():
        outputs, inputs = network.get_submodule(name).weight.shape[:2]
        saved += outputs * inputs - rank * (outputs + inputs)
    assert saved > 0 and low["params M"] == pytest.approx((count - saved) / 1e6, abs=1e-9)
    assert plain["params M"] == low["params M"] and plain["metrics"] == low["metrics"]
    assert dense["GFLOPs"] > low["GFLOPs"] and low["FLOPs saved"] == dense["GFLOPs"] / low["GFLOPs"]
    for row in run.rows:
        path = Path(row["path"])
        assert row["file MB"] == pytest.approx(path.stat().st_size / 1e6)
        assert json.loads(path.with_suffix(".json").read_text())["verify"]["passed"]
        stats = row["latency"]["onnxruntime"]
        assert stats["runs"] == 3 and 0 < stats["minimum"] <= stats["p50"] == row["onnxruntime ms"]
        assert row["onnxruntime speed-up"] == pytest.approx(dense["onnxruntime ms"] / row["onnxruntime ms"])
        assert row["AP"] == pytest.approx(100 * row["metrics"]["artifact"]["coco/bbox_mAP"])


def test_the_metric_of_a_row_is_that_of_its_file(run: Any, folder: Path, tmp_path: Path) -> None:
    row = run.rows[1]
    out = tmp_path / "metrics.json"
    assert main(["test", str(folder / "1_lowrank" / "lowrank.py"), row["path"], "--out", str(out)]) == 0
    assert json.loads(out.read_text()) == row["metrics"]["artifact"]


def test_the_report_has_the_rows_and_needs_no_network(run: Any, folder: Path) -> None:
    data = json.loads((folder / "report.json").read_text())
    assert [row["onnxruntime ms"] for row in data] == [row["onnxruntime ms"] for row in run.rows]
    assert all(row["environment"]["threads"] == "1" and row["environment"]["cpu"] for row in data)
    with (folder / "report.csv").open(newline="") as file:
        sheet = list(csv.DictReader(file))
    assert [float(row["params M"]) for row in sheet] == [row["params M"] for row in run.rows]
    page = run.page.read_text(encoding="utf-8")
    assert not re.search(r"(src|href)=\"(\w+:)?//|url\(|@import|<script", page)
    pictures = re.findall(r'src="([^"]+)"', page)
    assert pictures[0] == "report.png" and all((folder / name).stat().st_size > 1000 for name in pictures)
    assert "1_lowrank/curves.svg" in pictures and "2_plain/curves.svg" not in pictures
    assert f"{run.rows[1]['onnxruntime speed-up']:.2f} x" not in page.split("<table")[1]


def test_a_steps_config_and_checkpoint_are_enough(folder: Path, data: Path, tmp_path: Path) -> None:
    for name, checkpoint in (("1_lowrank/lowrank", "1_lowrank/epoch_2"), ("2_plain/plain", "2_plain/model")):
        file, weights = str(folder / f"{name}.py"), str(folder / f"{checkpoint}.pth")
        assert "compression" not in apis.load_config(file)
        assert main(["test", file, weights, "--skip-check"]) == 0
        assert main(["export", file, weights, "--out", str(tmp_path / "out"), "--num-images", "2"]) == 0
    assert same_weights(folder / "1_lowrank" / "best.pth", folder / "2_plain" / "model.pth")
    picture = next(data.rglob("images/**/*.*"))
    assert main(["predict", weights, str(picture), "--config", file, "--out", str(tmp_path / "drawn")]) == 0


@pytest.fixture(scope="module")
def interrupted(run: Any, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run that was interrupted in the second epoch of its second step, then resumed; and what was there between."""
    work_dir = tmp_path_factory.mktemp("interrupted")
    cut = work_dir / "cut"
    cut.touch()
    steps = [STEPS[0], dict(STEPS[1], custom_hooks=[dict(type="InterruptInTests", file=str(cut))]), STEPS[2]]
    with pytest.raises(Interruption):
        compress(config(data, work_dir, steps))
    cut.unlink()
    between = times_of(work_dir)
    return compress(config(data, work_dir, steps), resume=True), between, steps


def test_an_interrupted_step_goes_on_where_it_was(interrupted: Any, folder: Path) -> None:
    report, between, _ = interrupted
    work_dir = report.page.parent
    after = times_of(work_dir)
    kept = {name: time for name, time in between.items() if name.startswith("0_dense/") or "epoch_1" in name}
    assert {"0_dense/best.pth", "0_dense/exports/onnx/model.onnx", "1_lowrank/epoch_1.pth"} <= kept.keys()
    assert {name: after[name] for name in kept} == kept
    for name in ("1_lowrank/epoch_2.pth", "1_lowrank/best.pth", "2_plain/model.pth"):
        assert same_weights(work_dir / name, folder / name)
    log = (work_dir / "compression.log").read_text()
    assert "step 1 of 3, dense: finished" in log and "step 2 of 3, lowrank: goes on where it was interrupted" in log


def test_a_changed_step_is_done_again_and_so_are_those_after_it(interrupted: Any, data: Path) -> None:
    report, _, steps = interrupted
    work_dir = report.page.parent
    before = times_of(work_dir)
    changed = [steps[0], dict(steps[1], max_epochs=1), steps[2]]
    compress(config(data, work_dir, changed), resume=True)
    after = times_of(work_dir)
    assert before["0_dense/best.pth"] == after["0_dense/best.pth"]
    assert after["1_lowrank/epoch_1.pth"] > before["1_lowrank/epoch_1.pth"]
    assert "1_lowrank/epoch_2.pth" not in after, "of the earlier run, and must not be taken for this one's"
    assert after["2_plain/model.pth"] > before["2_plain/model.pth"]
    log = (work_dir / "compression.log").read_text()
    assert re.search(r"lowrank: is done again, since max_epochs, .*changed; so are the steps after it", log)


def test_another_export_needs_no_other_training(run: Any, folder: Path, data: Path) -> None:
    before = times_of(folder)
    steps = [STEPS[0], dict(STEPS[1], export=dict(dynamic_batch=False)), STEPS[2]]
    compress(config(data, folder, steps), resume=True)
    after = times_of(folder)
    rewritten = {name for name in before if before[name] != after[name]}
    assert rewritten == {"1_lowrank/exports/onnx/model.onnx"}


def test_from_a_checkpoint_no_step_needs_training(run: Any, folder: Path, data: Path, tmp_path: Path) -> None:
    steps: list[Any] = [dict(name="dense"), dict(name="lowrank", model_transforms=STEPS[1]["model_transforms"])]
    start = folder / "0_dense" / "best.pth"
    living = sum(isinstance(thing, Detector) for thing in gc.get_objects())
    report = compress(config(data, tmp_path, steps, load_from=str(start)))
    gc.collect()
    assert sum(isinstance(thing, Detector) for thing in gc.get_objects()) <= living
    assert [row["epochs"] for row in report.rows] == [0, 0] and not list(tmp_path.rglob("epoch_*.pth"))
    assert report.rows[0]["metrics"] == run.rows[0]["metrics"]
    dense, low = read_state_dict(start), read_state_dict(tmp_path / "1_lowrank" / "model.pth")
    kept = [name for name in dense if name in low]
    assert len(kept) > len(dense) / 2 and all(torch.equal(dense[name], low[name]) for name in kept)
    name = "neck.pool.merge.conv"
    product = low[f"{name}.expand.weight"].flatten(1) @ low[f"{name}.reduce.weight"].flatten(1)
    u, s, v = torch.linalg.svd(dense[f"{name}.weight"].flatten(1))
    rank = low[f"{name}.reduce.weight"].shape[0]
    torch.testing.assert_close(product, u[:, :rank] @ torch.diag(s[:rank]) @ v[:rank], atol=1e-5, rtol=1e-4)


def test_a_step_without_training_checks_the_data_that_its_transforms_may_read(
    folder: Path, data: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "data"
    shutil.copytree(data, copy)
    file = copy / "annotations" / "train.json"
    annotations = json.loads(file.read_text())
    file.write_text(json.dumps({**annotations, "annotations": []}))
    steps: list[Any] = [dict(name="dense"), dict(name="low", model_transforms=STEPS[1]["model_transforms"])]
    cfg = config(copy, tmp_path / "run", steps, load_from=str(folder / "0_dense" / "best.pth"))
    cfg.test_dataloader.dataset.data_root = f"{data}/"
    with pytest.raises(UserError, match=r"train\.json"):
        apis.compress(cfg, threads=1)
    assert (tmp_path / "run" / "0_dense" / "model.pth").is_file()


def test_the_transforms_of_two_steps_compose(folder: Path, data: Path, tmp_path: Path) -> None:
    layers = [["neck.*"], ["backbone.stages.3.*"]]
    steps: list[Any] = [
        dict(name="dense"),
        *(
            dict(name=f"s{i}", model_transforms=[dict(type="LowRank", layers=x, ratio=0.5)])
            for i, x in enumerate(layers)
        ),
    ]
    report = compress(config(data, tmp_path, steps, load_from=str(folder / "0_dense" / "best.pth")))
    plans = [read_checkpoint(tmp_path / name / "model.pth")["meta"]["compression_plan"] for name in ("1_s0", "2_s1")]
    assert [len(plan["steps"]) for plan in plans] == [1, 2] and plans[1]["steps"][0] == plans[0]["steps"][0]
    assert report.rows[2]["params M"] < report.rows[1]["params M"] < report.rows[0]["params M"]


def test_a_file_that_is_rejected_leaves_the_report_of_those_before_it(
    folder: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = [dict(name="dense"), dict(name="plain"), dict(name="last")]
    cfg = config(data, tmp_path, steps, load_from=str(folder / "0_dense" / "best.pth"))
    honest = compression_results.export

    def export(config: Any, checkpoint: Path, target: Path, *arguments: Any) -> Any:
        if target.parts[-3] == "1_plain":
            raise WorkError("does not agree")
        return honest(config, checkpoint, target, *arguments)

    monkeypatch.setattr(compression_results, "export", export)
    with pytest.raises(WorkError, match="does not agree"):
        compress(cfg)
    assert [row["step"] for row in json.loads((tmp_path / "report.json").read_text())] == ["dense"]
    assert (tmp_path / "1_plain" / "model.pth").is_file() and not (tmp_path / "2_last").exists()
    before = times_of(tmp_path)
    monkeypatch.setattr(compression_results, "export", honest)
    report = compress(cfg, resume=True)
    assert [row["step"] for row in report.rows] == ["dense", "plain", "last"]
    assert times_of(tmp_path).items() >= before.items()
