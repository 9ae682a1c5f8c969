"""The hook that switches fake quantization on, in whole trainings of a small detector."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import EMAHook

from efftasks import apis
from efftasks.checkpoints.files import read_checkpoint
from efftasks.compression.quantization.convert import quantization_of
from efftasks.compression.quantization.part import quantized_parts
from efftasks.datasets.shapes import write_shapes
from efftasks.engine.hooks.quantization import QuantizationAware
from efftasks.structures.errors import UserError

pytest.importorskip("torchao")

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
    "train_cfg.val_interval": 1,
    "default_hooks.checkpoint.max_keep_ckpts": 9,
    "optim_wrapper.optimizer.lr": 1e-3,
}
PHASES = dict(type="QuantizationAware", observe=1, quantize=2, freeze=3)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shapes(tmp_path_factory.mktemp("data") / "shapes", train=8, val=4, size=64, seed=1)


def config(data: Path, work_dir: Path, **options: Any) -> Config:
    cfg = apis.load_config(
        DENSE,
        {
            **{"data_root": f"{data}/", "max_epochs": 4, "model_transforms": [dict(type="QuantizeAware")]},
            **{**SMALL, "default_hooks.quantization": PHASES, **options},
        },
    )
    cfg.work_dir = str(work_dir)
    return cfg


def train(cfg: Config, **how: Any) -> Any:
    return apis.train(cfg, threads=1, check=False, **how)


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """The work dir and the runner of four epochs: in float, measuring, rounding, and with ranges kept."""
    work_dir = tmp_path_factory.mktemp("quantized")
    return work_dir, train(config(data, work_dir))


def state(folder: Path, epoch: int, key: str = "state_dict") -> dict[str, torch.Tensor]:
    values: dict[str, torch.Tensor] = read_checkpoint(folder / f"epoch_{epoch}.pth")[key]
    return values


def ranges(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Of the activations: one number each."""
    return {key: value for key, value in weights.items() if key.endswith(".min_val") and value.dim() == 0}


def test_epochs_must_ascend() -> None:
    for epochs in (dict(observe=1, quantize=1), dict(observe=-1), dict(quantize=3, freeze=2)):
        with pytest.raises(ValueError, match="0 <= observe < quantize <= freeze"):
            QuantizationAware(**epochs)  # type: ignore[arg-type]


def test_each_phase_does_what_it_says(trained: tuple[Path, Any]) -> None:
    folder, _ = trained
    # The first is of the trained weights, the averaged ones have the same flags.
    flags = [
        {int(value) for key, value in state(folder, epoch).items() if key.endswith("fake_quant_enabled")}
        for epoch in (1, 2, 3, 4)
    ]
    assert flags == [{0}, {0}, {1}, {1}]
    one, two, three, four = (ranges(state(folder, epoch)) for epoch in (1, 2, 3, 4))
    assert len(one) > 100 and all(bool(value.isinf()) for value in one.values())
    assert all(bool(value.isfinite()) for value in two.values())
    assert any(not torch.equal(value, three[key]) for key, value in two.items())
    assert all(torch.equal(value, four[key]) for key, value in three.items())


def test_the_averaged_model_has_the_ranges_of_the_trained_one(trained: tuple[Path, Any]) -> None:
    _, runner = trained
    (hook,) = (hook for hook in runner.hooks if isinstance(hook, EMAHook))
    ours, average = ranges(runner.model.state_dict()), ranges(hook.ema_model.module.state_dict())
    assert ours.keys() == average.keys() and all(torch.equal(value, average[key]) for key, value in ours.items())
    assert all(part.quantizes and part.is_measured for part in quantized_parts(hook.ema_model.module).values())


def test_the_best_checkpoint_is_of_the_quantized_model(trained: tuple[Path, Any]) -> None:
    folder, _ = trained
    assert read_checkpoint(folder / "best.pth")["meta"]["epoch"] > PHASES["quantize"]  # type: ignore[operator]


@pytest.mark.slow
def test_after_an_interruption_the_score_of_the_float_model_stays_forgotten(
    trained: tuple[Path, Any], data: Path, tmp_path: Path
) -> None:
    """As if it ended between the checkpoint and the validation of the first epoch with fake quantization."""
    folder, _ = trained
    shutil.copy(folder / "epoch_3.pth", tmp_path)
    best = read_checkpoint(folder / "best.pth")
    best["meta"].update(epoch=2, best=dict(best["meta"]["best"], score=0.99))
    torch.save(best, tmp_path / "best.pth")
    train(config(data, tmp_path), resume="auto")
    meta = read_checkpoint(tmp_path / "best.pth")["meta"]
    assert meta["epoch"] > 2 and meta["best"]["score"] < 0.99


@pytest.mark.slow
@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_resumed_in_any_phase_it_is_the_uninterrupted_training(
    trained: tuple[Path, Any], data: Path, tmp_path: Path, epoch: int
) -> None:
    folder, _ = trained
    shutil.copy(folder / f"epoch_{epoch}.pth", tmp_path)
    if epoch > PHASES["quantize"]:  # type: ignore[operator]
        shutil.copy(folder / "best.pth", tmp_path)
    train(config(data, tmp_path), resume="auto")
    for key in ("state_dict", "ema_state_dict"):
        want, got = (state(place, 4, key) for place in (folder, tmp_path))
        assert want.keys() == got.keys()
        assert [name for name, value in want.items() if not torch.equal(value, got[name])] == []


def test_it_loads_from_config_and_checkpoint_and_is_described(trained: tuple[Path, Any]) -> None:
    folder, runner = trained
    model = apis.load(folder / f"{DENSE}.py", folder / "epoch_4.pth")
    (hook,) = (hook for hook in runner.hooks if isinstance(hook, EMAHook))
    expected = hook.ema_model.module.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in model.state_dict().items() if "_enabled" not in key)
    images, fused = torch.rand(2, 3, 64, 64), apis.fuse(model)
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(fused.infer(images)[:3], model.infer(images)[:3]))
    spec = quantization_of(model)
    assert spec is not None and len(spec.float_layers) == 6
    for name in spec.float_layers:
        part, _, layer = name.rpartition(".")
        conv = fused.get_submodule(part).graph.get_submodule(f"part.{layer}")
        assert conv.weight.dtype == torch.float32 and conv.weight.shape[0] in (4, 6)


@pytest.mark.slow
def test_a_fresh_process_gives_the_same_outputs(trained: tuple[Path, Any], tmp_path: Path) -> None:
    folder, _ = trained
    images = torch.rand(1, 3, 64, 64)
    torch.save(images, tmp_path / "images.pt")
    config_file, checkpoint = folder / f"{DENSE}.py", folder / "epoch_4.pth"
    program = f"""if True:
        import torch
        from efftasks import apis
        torch.set_num_threads(1)
        model = apis.load({str(config_file)!r}, {str(checkpoint)!r})
        with torch.no_grad():
            outputs = list(model.infer(torch.load({str(tmp_path / "images.pt")!r}))[:3])
        torch.save(outputs, {str(tmp_path / "outputs.pt")!r})
    """
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    with torch.no_grad():
        expected = apis.load(config_file, checkpoint).infer(images)[:3]
    assert all(torch.equal(a, b) for a, b in zip(torch.load(tmp_path / "outputs.pt"), expected))


def test_without_quantized_parts_it_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no quantized parts; add dict\(type='QuantizeAware'\)"):
        train(config(data, tmp_path, model_transforms=[]))


@pytest.mark.slow
def test_a_training_that_ends_before_is_warned_of(
    data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    runner = train(config(data, tmp_path, max_epochs=1))
    log = Path(runner.log_dir, f"{runner.timestamp}.log").read_text()
    assert "quantize is epoch 2 and training has 1: the model stays in float" in log


@pytest.mark.slow
def test_the_float_model_teaches_it(data: Path, tmp_path: Path) -> None:
    """The guide gets the maps with fake quantization, and its teacher stays in float and out of checkpoints."""
    cfg = config(data, tmp_path, max_epochs=1, **{"default_hooks.quantization": dict(type="QuantizationAware")})
    cfg.model.guide = dict(type="FeatureGuide", teacher=cfg.model.to_dict(), indices=(0, 1, 2))
    runner = train(cfg)
    guide = runner.model.guide
    assert not quantized_parts(guide.teacher) and any(".norm." in name for name, _ in guide.teacher.named_parameters())
    losses = runner.model.train()(torch.rand(2, 3, 64, 64), batch_of(runner), mode="loss")
    assert losses["guide.loss_features"].item() > 0
    assert not any("teacher" in key for key in state(tmp_path, 1))


def batch_of(runner: Any) -> list[Any]:
    return [runner.train_dataloader.dataset[i]["data_samples"] for i in range(2)]
