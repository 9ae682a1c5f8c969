"""What training asks of a config before its first step."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from types import ModuleType

import pytest
import torch

from efftasks import apis
from efftasks.checkpoints.files import read_state_dict
from efftasks.structures.errors import UserError


@pytest.fixture(scope="module")
def root(painted: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return painted.write_pictures(tmp_path_factory.mktemp("painted") / "data")


SMALL = {
    "model.backbone.width": 0.25,
    "model.neck.out_channels": (16, 16, 16),
    "train_dataloader.batch_size": 2,
    "train_dataloader.num_workers": 0,
    "val_dataloader.num_workers": 0,
    "val_dataloader.persistent_workers": False,
    "max_epochs": 1,
}


@pytest.fixture
def cfg(painted, root, tmp_path):
    cfg = painted.config(root, **SMALL)
    cfg.work_dir = str(tmp_path / "run")
    return cfg


def test_an_input_size_that_the_backbone_cannot_halve_is_named(painted, root, tmp_path):
    cfg = painted.config(root, **SMALL, image_size=(64, 100))
    cfg.work_dir = str(tmp_path / "run")
    with pytest.raises(UserError, match="image_size: got 64 x 100, expected multiples of 32, the backbone's divisor"):
        apis.train(cfg, check=False)


@pytest.mark.parametrize("compressed", [False, True])
def test_faults_are_named_before_transforms_decide(painted, root, tmp_path, compressed):
    transforms = [dict(type="Prune", flops=0.7)] if compressed else []
    cfg = painted.config(root, **SMALL, image_size=(330, 330), model_transforms=transforms)
    cfg.work_dir = str(tmp_path / "run")
    with pytest.raises(UserError, match="image_size: got 330 x 330, expected multiples of 32"):
        apis.train(cfg, check=False)
    cfg = painted.config(root, **SMALL, model_transforms=transforms)
    cfg.work_dir = str(tmp_path / "other")
    cfg.train_dataloader.dataset.ann_file = "annotations/none.json"
    with pytest.raises(UserError, match=r"none\.json.*--skip-check"):
        apis.train(cfg)
    assert Path(cfg.work_dir).exists() != compressed, "a runner makes it, and decides"


@pytest.mark.slow
def test_with_nothing_to_resume_training_starts_from_its_weights(painted, root, tmp_path, cfg):
    apis.train(cfg, threads=1, check=False)
    start = Path(cfg.work_dir) / "epoch_1.pth"
    other = painted.config(root, **SMALL, load_from=str(start))
    other.work_dir = str(tmp_path / "other")
    runner = apis.train(other, resume="auto", threads=1, check=False)
    assert runner.epoch == 1
    log = next((tmp_path / "other").glob("*/*.log")).read_text()
    assert "nothing to resume in" in log and f"training starts from load_from={start}" in log
    assert re.search(rf"{re.escape(str(start))}: \d+ tensors matched", log)


@pytest.mark.parametrize("amp", ["float8", "yes"])
def test_a_precision_that_there_is_not_is_named(cfg, amp):
    with pytest.raises(UserError, match=f"--amp: got '{amp}', allowed on a .* are auto, bfloat16"):
        apis.train(cfg, amp=amp)
    assert not Path(cfg.work_dir).exists()


def test_the_data_are_looked_at_unless_told_otherwise(cfg):
    cfg.train_dataloader.dataset.ann_file = "annotations/none.json"
    with pytest.raises(UserError, match=r"none\.json.*--skip-check goes on without"):
        apis.train(cfg)
    with pytest.raises(UserError, match=r"none\.json") as caught:
        apis.train(cfg, check=False)
    assert "--skip-check" not in str(caught.value)


def test_what_a_run_adds_is_not_the_callers(cfg):
    before = copy.deepcopy(cfg.to_dict())
    apis.train(cfg, amp="bfloat16", resume="auto", threads=1, check=False)
    assert cfg.to_dict() == before


def test_a_run_leaves_what_predicts_for_images_of_its_classes(cfg, root):
    runner = apis.train(cfg, threads=1)
    assert runner.epoch == 1 and runner.iter == 2 and torch.get_num_threads() == 1
    work_dir = Path(cfg.work_dir)
    assert (work_dir / "last_checkpoint").read_text() == str(work_dir / "epoch_1.pth")
    model = apis.load(cfg, work_dir / "epoch_1.pth")
    found = apis.predict(model, root / "images")
    assert [prediction.classes for prediction in found] == [("cat", "dog")] * 4
    assert found[0].category_ids == (3, 7)
    weights = read_state_dict(work_dir / "epoch_1.pth")
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())
