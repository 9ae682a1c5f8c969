"""A network of several widths through training, resume, test, prediction, export and benchmark."""

from __future__ import annotations

import json
import re
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import efftasks.compat  # noqa: F401

# isort: split
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import Tensor

from efftasks import apis
from efftasks.checkpoints.files import read_checkpoint
from efftasks.cli.main import main
from efftasks.datasets.shapes import write_shapes
from efftasks.models.guides.teachers import build_teacher, trained_teacher
from efftasks.structures.errors import UserError

DENSE = "o2o-n_mobilenetv4-conv-s_1xb16-18e_shapes-128"
SMALL = {
    "image_size": (64, 64),
    "model.backbone.width": 0.25,
    "model.neck.out_channels": (16, 16, 16),
    "train_dataloader.batch_size": 4,
    "train_dataloader.num_workers": 0,
    "train_dataloader.persistent_workers": False,
    "val_dataloader.num_workers": 0,
    "val_dataloader.persistent_workers": False,
    "train_cfg.val_interval": 2,
}
STEPS = [dict(type="Slimmable", widths=(1.0, 0.5), round_to=4)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shapes(tmp_path_factory.mktemp("data") / "shapes", train=8, val=4, size=64, seed=1)


def config(data: Path, work_dir: Path, **options: Any) -> Config:
    options = {"data_root": f"{data}/", "max_epochs": 2, "model_transforms": STEPS, **SMALL, **options}
    cfg = apis.load_config(DENSE, options)
    cfg.work_dir = str(work_dir)
    return cfg


def train(cfg: Config, **how: Any) -> Any:
    return apis.train(cfg, threads=1, check=False, **how)


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The work dir of two epochs of two steps."""
    work_dir = tmp_path_factory.mktemp("slim")
    train(config(data, work_dir))
    return work_dir


@torch.no_grad()
def detections(model: Any, images: Tensor) -> list[Tensor]:
    return list(model.infer(images)[:3])


def metrics_in_log(work_dir: Path) -> dict[str, float]:
    (log,) = work_dir.glob("*/vis_data/scalars.json")
    return json.loads(log.read_text(encoding="utf-8").splitlines()[-1])


@pytest.mark.slow
def test_all_widths_are_validated(trained: Path) -> None:
    """With the averaged weights, that the checkpoint has."""
    scores = metrics_in_log(trained)
    names = {name for name in scores if "bbox_mAP" in name and not name.startswith("width")}
    assert names and all(f"width0.5/{name}" in scores for name in names)
    cfg = trained / f"{DENSE}.py"
    for width, prefix in ((1.0, ""), (0.5, "width0.5/")):
        model = apis.load(cfg, trained / "epoch_2.pth", width=width)
        predict, classes = partial(apis.predict, model), model.dataset_meta["classes"]
        result = apis.evaluate(model.cfg, predict, classes)
        for name in names:
            key = name.rpartition("/")[2]
            (value,) = (value for other, value in result.metrics.items() if other.rpartition("/")[2] == key)
            assert scores[f"{prefix}{name}"] == pytest.approx(value, abs=2e-3), name


@pytest.mark.slow
def test_resumed_it_is_the_uninterrupted_training(trained: Path, data: Path, tmp_path: Path) -> None:
    shutil.copy(trained / "epoch_1.pth", tmp_path)
    train(config(data, tmp_path), resume="auto")
    want, got = (read_checkpoint(folder / "epoch_2.pth") for folder in (trained, tmp_path))
    assert want["state_dict"].keys() == got["state_dict"].keys()
    assert any(".narrower.0." in name for name in got["state_dict"])
    assert all(torch.equal(value, got["state_dict"][name]) for name, value in want["state_dict"].items())


def test_a_width_is_loaded_as_a_plain_model(trained: Path, data: Path, tmp_path: Path) -> None:
    file, checkpoint = trained / f"{DENSE}.py", trained / "epoch_2.pth"
    default, full, half = (apis.load(file, checkpoint, width=width) for width in (None, 1.0, 0.5))
    images = torch.rand(1, 3, 64, 64)
    one, same, other = (detections(model, images) for model in (default, full, half))
    assert all(torch.equal(a, b) for a, b in zip(one, same)) and not torch.equal(one[1], other[1])
    counts = [sum(p.numel() for p in model.parameters()) for model in (full, half)]
    assert counts[1] < 0.5 * counts[0] and type(half).__name__ == "Detector" and not half.training
    plain = config(data, tmp_path, model_transforms=[])  # the checkpoint knows
    assert apis.load(plain, checkpoint, width=0.5).state_dict().keys() == half.state_dict().keys()
    with pytest.raises(UserError, match=r"^width: got 0\.3, expected one of 1, 0\.5$"):
        apis.load(file, checkpoint, width=0.3)


def test_as_a_teacher_it_is_the_widest(trained: Path) -> None:
    file, checkpoint = trained / f"{DENSE}.py", trained / "epoch_2.pth"
    expected = apis.load(file, checkpoint)
    with DefaultScope.overwrite_default_scope("efftasks"):
        config = expected.cfg.model
        teacher = trained_teacher(build_teacher(config), config, checkpoint).network
    state = expected.state_dict()
    assert type(teacher) is type(expected) and teacher.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in teacher.state_dict().items())


@pytest.mark.slow
def test_training_starts_from_a_dense_checkpoint(data: Path, tmp_path: Path) -> None:
    train(config(data, tmp_path / "dense", max_epochs=1, model_transforms=[]))
    dense = tmp_path / "dense" / "epoch_1.pth"
    with pytest.raises(UserError, match=r"--width: got 0\.5, but the model has one width alone"):
        apis.load(tmp_path / "dense" / f"{DENSE}.py", dense, width=0.5)
    still = {"load_from": str(dense), "max_epochs": 1, "optim_wrapper.optimizer.lr": 0.0}
    still["optim_wrapper.optimizer.muon_lr"] = 0.0
    network = train(config(data, tmp_path / "slim", **still)).model.eval()
    expected = read_checkpoint(dense)["state_dict"]
    weights = {name: value for name, value in network.named_parameters() if "narrower" not in name}
    assert all(torch.equal(value, expected[name]) for name, value in weights.items())
    with pytest.raises(UserError, match="of a dense model and the config has model_transforms"):
        train(config(data, tmp_path / "resumed"), resume=str(dense))


@pytest.mark.slow
def test_commands_take_a_width(trained: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx = pytest.importorskip("onnx")
    file, checkpoint, half = str(trained / f"{DENSE}.py"), str(trained / "epoch_2.pth"), ["--width", "0.5"]
    out, picture = str(tmp_path / "out"), str(next(data.rglob("images/**/*.*")))
    assert main(["export", file, checkpoint, "--out", out, "--num-images", "2", *half]) == 0  # verified, or refused
    weights = [x.dims for x in onnx.load(f"{out}/model.onnx").graph.initializer if len(x.dims) == 4]
    model = apis.fuse(apis.load(file, checkpoint, width=0.5))
    assert sorted(map(tuple, weights)) == sorted(tuple(p.shape) for p in model.parameters() if p.dim() == 4)
    assert json.loads(Path(out, "model.json").read_text(encoding="utf-8"))["source"]["width"] == "0.5"

    scores = tmp_path / "half.json"
    assert main(["test", file, checkpoint, "--out", str(scores), "--skip-check", *half]) == 0
    logged = {name.removeprefix("width0.5/"): x for name, x in metrics_in_log(trained).items() if "width0.5" in name}
    tested = json.loads(scores.read_text(encoding="utf-8"))
    assert any("bbox_mAP" in name for name in logged)
    assert all(abs(tested[name] - value) < 2e-3 for name, value in logged.items() if "bbox_mAP" in name)
    drawn = str(tmp_path / "drawn")
    assert main(["predict", checkpoint, picture, "--config", file, "--out", drawn, *half]) == 0

    capsys.readouterr()
    assert main(["test", file, checkpoint, "--width", "0.3", "--skip-check"]) == 2
    assert "width: got 0.3, expected one of 1, 0.5" in capsys.readouterr().err
    for command in (["test", file, f"{out}/model.onnx"], ["predict", f"{out}/model.onnx", picture]):
        assert main([*command, *half]) == 2
        assert "which has one width" in capsys.readouterr().err


@pytest.mark.slow
def test_a_benchmark_has_all_widths(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint, how = str(trained / "epoch_2.pth"), ["--runs", "2", "--warmup", "0", "--threads", "1"]
    assert main(["benchmark", checkpoint, "--baseline", checkpoint, *how]) == 0
    table = capsys.readouterr().out
    sizes = [float(x) for x in re.findall(r"epoch_2\.pth width [\d.]+\s*\|[^|]*\|[^|]*\|\s*([\d.]+)", table)]
    assert len(sizes) == 2 and sizes[1] < sizes[0] and "width 1 " in table and "width 0.5 " in table
