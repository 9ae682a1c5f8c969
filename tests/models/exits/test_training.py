"""An exit in training through the real runner: it starts from a static detector, and resumes exactly."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config

from efftasks import apis
from efftasks.checkpoints.files import read_state_dict
from efftasks.datasets.shapes import write_shapes

STATIC = "o2o-n_mobilenetv4-conv-s_1xb16-18e_shapes-128"
WITH_EXIT = "o2o-n_mobilenetv4-conv-s_1xb8-24e_bccd-320_exit-alone"


def config(shapes: Path, work_dir: Path, epochs: int, early_exit: dict[str, Any] | None, **options: Any) -> Config:
    fit = dict(type="FitImage", size=(64, 64), mode="stretch")
    load = [dict(type="LoadImage"), dict(type="LoadObjects")]
    cfg = apis.load_config(
        STATIC,
        {
            "data_root": f"{shapes}/",
            "model.backbone.width": 0.25,
            "model.neck.out_channels": (16, 16, 16),
            "train_dataloader.batch_size": 4,
            "train_dataloader.dataset.pipeline": [*load, fit, dict(type="PackObjects")],
            "max_epochs": epochs,
            "train_cfg.val_interval": epochs,
            "visualizer.vis_backends": [dict(type="LocalVisBackend")],
            **({} if early_exit is None else {"model.early_exit": early_exit}),
            **options,
        },
    )
    cfg.work_dir = str(work_dir)
    return cfg


@pytest.mark.slow
@pytest.mark.parametrize("train_only", ["exit", None])
def test_it_starts_from_a_static_detector_and_resumes_exactly(tmp_path: Path, train_only: str | None) -> None:
    shapes = write_shapes(tmp_path / "shapes", train=16, val=4, size=64, seed=1)
    apis.train(config(shapes, tmp_path / "static", 1, None))
    static = tmp_path / "static" / "epoch_1.pth"
    early_exit = apis.load_config(WITH_EXIT, dict(classes=("a",))).model.early_exit.to_dict()
    early_exit["train_only"] = train_only
    early_exit["head"]["num_classes"] = None

    apis.train(config(shapes, tmp_path / "straight", 3, early_exit, load_from=str(static)))
    assert "; the early exit is new, and starts untrained" in next((tmp_path / "straight").glob("*/*.log")).read_text()
    (tmp_path / "resumed").mkdir()
    shutil.copy(tmp_path / "straight" / "epoch_2.pth", tmp_path / "resumed")
    apis.train(config(shapes, tmp_path / "resumed", 3, early_exit, load_from=str(static)), resume="auto")
    ours, theirs = (read_state_dict(tmp_path / name / "epoch_3.pth") for name in ("resumed", "straight"))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    before = read_state_dict(static)
    same = [torch.equal(theirs[key], value) for key, value in before.items()]
    assert all(same) if train_only == "exit" else not all(same)
    assert not torch.equal(theirs["early_exit.gate.histogram"], torch.full((1024,), 1 / 1024))
