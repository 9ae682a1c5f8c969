"""Training through the real runner, on a network small enough for a test."""

import errno
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import mmengine.runner.runner as mmengine_runner
import pytest
import torch
from mmengine.config import Config

from efftasks import apis
from efftasks.checkpoints.files import read_checkpoint, read_state_dict
from efftasks.checkpoints.newest import newest_intact_checkpoint
from efftasks.structures.errors import UserError, WorkError

CONFIG = "o2o-n_mobilenetv4-conv-s_1xb16-18e_shapes-128"


def config(shapes: Path, work_dir: Path, epochs: int = 3, **options: Any) -> Config:
    pipelines = {}
    for loader in ("train", "val", "test"):
        pipeline = apis.load_config(CONFIG)[f"{loader}_dataloader"].dataset.pipeline
        for transform in pipeline:
            if transform["type"] == "FitImage":
                transform["size"] = (64, 64)
        pipelines[f"{loader}_dataloader.dataset.pipeline"] = pipeline
    cfg = apis.load_config(
        CONFIG,
        {
            "data_root": f"{shapes}/",
            "model.backbone.width": 0.25,
            "model.neck.out_channels": (16, 16, 16),
            "train_dataloader.batch_size": 4,
            "train_cfg.max_epochs": epochs,
            "train_cfg.val_interval": 1,
            "param_scheduler.1.T_max": 3,
            "default_hooks.logger.interval": 1,
            "vis_backends": [dict(type="LocalVisBackend")],
            "visualizer.vis_backends": [dict(type="LocalVisBackend")],
            **pipelines,
            **options,
        },
    )
    cfg.work_dir = str(work_dir)
    return cfg


def losses(work_dir: Path) -> list[tuple[int, float]]:
    """(step, loss) of every iteration of every run in a work dir, oldest run first."""
    rows = []
    for file in sorted(work_dir.glob("*/vis_data/scalars.json"), key=lambda p: p.stat().st_mtime):
        for line in file.read_text().splitlines():
            row = json.loads(line)
            if "loss" in row:
                rows.append((row["step"], row["loss"]))
    return rows


@pytest.fixture(scope="module")
def straight(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    work_dir = tmp_path_factory.mktemp("straight")
    apis.train(config(shapes, work_dir, **{"log_processor.window_size": 1}))
    return work_dir


def test_leaves_config_checkpoints_pointer_and_scalars(straight):
    names = {path.name for path in straight.iterdir()}
    assert {"best.pth", "epoch_2.pth", "epoch_3.pth", "last_checkpoint", f"{CONFIG}.py"} <= names
    assert "epoch_1.pth" not in names  # two are kept
    assert (straight / "last_checkpoint").read_text() == str(straight / "epoch_3.pth")
    assert len(losses(straight)) == 12 and not list(straight.glob("*.tmp"))
    meta = read_checkpoint(straight / "best.pth")["meta"]
    assert list(meta["dataset_meta"]["category_ids"]) == [1, 2, 3, 4, 5, 6]


@pytest.mark.slow
def test_two_runs_give_the_same_losses_to_the_last_bit(shapes, straight, tmp_path):
    apis.train(config(shapes, tmp_path, **{"log_processor.window_size": 1}))
    assert losses(tmp_path) == losses(straight)


@pytest.mark.slow
def test_a_resumed_run_is_the_uninterrupted_run(shapes, straight, tmp_path):
    options = {"log_processor.window_size": 1}
    apis.train(config(shapes, tmp_path, epochs=2, **options))
    assert losses(tmp_path) != losses(straight)[:8]  # progress runs over two epochs here, not three
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    shutil.copy(straight / "epoch_2.pth", tmp_path)
    apis.train(config(shapes, tmp_path, **options), resume="auto")
    assert losses(tmp_path) == losses(straight)[8:]
    ours, theirs = (read_state_dict(folder / "epoch_3.pth") for folder in (tmp_path, straight))
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_a_truncated_last_checkpoint_is_passed_over(straight, tmp_path):
    for name in ("epoch_2.pth", "epoch_3.pth"):
        shutil.copy(straight / name, tmp_path)
    assert newest_intact_checkpoint(tmp_path) == (tmp_path / "epoch_3.pth", [])
    whole = (tmp_path / "epoch_3.pth").read_bytes()
    (tmp_path / "epoch_3.pth").write_bytes(whole[: len(whole) // 2])
    assert newest_intact_checkpoint(tmp_path) == (tmp_path / "epoch_2.pth", [tmp_path / "epoch_3.pth"])
    (tmp_path / "epoch_2.pth").write_bytes(b"")
    assert newest_intact_checkpoint(tmp_path)[0] is None


@pytest.mark.slow
def test_a_full_disk_leaves_the_previous_checkpoint(shapes, straight, tmp_path, monkeypatch):
    shutil.copy(straight / "epoch_2.pth", tmp_path)
    before = (tmp_path / "epoch_2.pth").read_bytes()

    def full(checkpoint: dict, path: str, **kwargs: Any) -> None:
        Path(path).write_bytes(b"half of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(mmengine_runner, "save_checkpoint", full)
    with pytest.raises(WorkError, match=r"epoch_3\.pth could not be saved .*No space left"):
        apis.train(config(shapes, tmp_path), resume="auto")
    assert (tmp_path / "epoch_2.pth").read_bytes() == before
    assert not (tmp_path / "epoch_3.pth").exists() and not list(tmp_path.glob("*.tmp"))
    assert newest_intact_checkpoint(tmp_path)[0] == tmp_path / "epoch_2.pth"


@pytest.mark.slow
def test_corrupt_images_are_skipped_named_and_counted(shapes, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(shapes, data)
    (data / "images/train/000003.png").write_bytes(b"no image")
    (data / "images/val/000001.png").unlink()
    apis.train(config(data, tmp_path / "run", epochs=1))
    log = next((tmp_path / "run").glob("*/*.log")).read_text()
    assert log.count("000003.png: the image is missing or cannot be decoded, skipped") == 1
    assert log.count("val/000001.png: the image is missing or cannot be decoded, skipped") == 1
    assert "epoch 1: 1 unreadable images skipped" in log
    assert (tmp_path / "run/epoch_1.pth").exists()


@pytest.mark.slow
def test_weights_of_another_class_count_are_a_start_and_another_architecture_is_not(shapes, straight, tmp_path):
    few = dict(classes=("circle", "star"), load_from=str(straight / "best.pth"))
    apis.train(config(shapes, tmp_path / "few", epochs=1, **few))
    assert "classes: 2 of 2 are carried by name (circle, star)" in next((tmp_path / "few").glob("*/*.log")).read_text()
    with pytest.raises(UserError, match=r"another architecture.*missing.*unexpected"):
        other = {
            "model.backbone": dict(type="HGNetV2", variant="b0", width=0.25),
            "load_from": str(straight / "best.pth"),
        }
        apis.train(config(shapes, tmp_path / "other", epochs=1, **other))


def test_mixed_precision_on_a_cpu_trains(shapes, tmp_path):
    runner = apis.train(config(shapes, tmp_path, epochs=1), amp="bfloat16")
    assert type(runner.optim_wrapper).__name__ == (
        "AmpOptimWrapper" if torch.cuda.is_available() else "CpuAmpOptimWrapper"
    )
    assert torch.cuda.is_available() or read_checkpoint(tmp_path / "epoch_1.pth")["meta"]["precision"] == "bfloat16"
    values = [loss for _, loss in losses(tmp_path)]
    assert len(values) == 4 and all(0 < value < 100 for value in values)
    others = [type(hook).__name__ for hook in runner.hooks]
    assert ("FairThreadsHook" in others) != torch.cuda.is_available()


@pytest.mark.slow
def test_a_number_of_threads_is_fixed_in_a_dumped_config_too(shapes, tmp_path):
    cfg = config(shapes, tmp_path, epochs=1)
    cfg.default_hooks.threads = dict(type="FairThreadsHook")  # as an earlier run left it
    runner = apis.train(cfg, threads=1)
    assert "FairThreadsHook" not in [type(hook).__name__ for hook in runner.hooks]


def with_objects_on_one_image(shapes: Path, folder: Path) -> Path:
    shutil.copytree(shapes, folder)
    file = folder / "annotations/train.json"
    content = json.loads(file.read_text())
    keep = content["images"][0]["id"]
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] == keep]
    file.write_text(json.dumps(content))
    return folder


@pytest.mark.slow
def test_an_image_set_without_a_single_object_in_a_batch(shapes, tmp_path):
    data = with_objects_on_one_image(shapes, tmp_path / "data")
    apis.train(config(data, tmp_path / "run", epochs=1))
    assert len(losses(tmp_path / "run")) == 4


def queries(family: str, data: Path) -> Config:
    """The family's config for one's own data, small."""
    shipped = {name for name, path in apis.shipped_configs().items() if path.parent.name == family}
    (name,) = (name for name in shipped if name.startswith(f"{family}-") and name.endswith("_finetune"))
    options = {
        "data_root": f"{data}/",
        "image_size": (64, 64),
        **({"model.backbone.width": 0.25} if family == "dfine" else {}),
        "model.neck.channels": 32,
        "model.neck.ffn_channels": 32,
        "model.head.channels": 32,
        "model.head.selection.num_queries": 20,
        "model.data_preprocessor.batch_augments": [],
        "train_dataloader.num_workers": 0,
        "val_dataloader.num_workers": 0,
        "val_dataloader.persistent_workers": False,
        "train_cfg.max_epochs": 2,
        "train_cfg.val_interval": 1,
        "default_hooks.checkpoint.interval": 1,
        "default_hooks.logger.interval": 1,
    }
    return apis.load_config(name, options)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["o2o", "dfine", "rtdetrv2"])
def test_two_processes_train_one_model(family, shapes, tmp_path):
    """One of two processes meets batches without objects; both must go on, and end with the same weights."""
    data = with_objects_on_one_image(shapes, tmp_path / "data")
    cfg = config(data, tmp_path / "run", epochs=2) if family == "o2o" else queries(family, data)
    cfg.work_dir = str(tmp_path / "run")
    cfg.train_dataloader.batch_size = 2
    cfg.dump(str(tmp_path / "two.py"))
    words = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
    words += ["-m", "efftasks", "train", str(tmp_path / "two.py"), "--launcher", "pytorch"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-9000:]
    assert (tmp_path / "run/epoch_2.pth").exists()
    found = [loss for _, loss in losses(tmp_path / "run")]
    assert len(found) == 8 and all(map(math.isfinite, found))  # 16 images, 2 processes, batches of 2, 2 epochs
