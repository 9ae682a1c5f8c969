"""A compressed model from its config through training, resume, test, prediction and export."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmengine.config import Config
from torch import nn

from efftasks import apis
from efftasks.apis import latency
from efftasks.checkpoints.files import read_checkpoint, read_state_dict
from efftasks.cli.main import main
from efftasks.datasets.shapes import write_shapes
from efftasks.export.exporters.onnx import write_graph
from efftasks.export.graph import Graph
from efftasks.registry import RUNNERS
from efftasks.structures.errors import UserError

COMPRESSED = "o2o-n_mobilenetv4-conv-s_1xb16-18e_shapes-128_lowrank"
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
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shapes(tmp_path_factory.mktemp("data") / "shapes", train=8, val=4, size=64, seed=1)


def config(name: str, data: Path, work_dir: Path, **options: Any) -> Config:
    cfg = apis.load_config(name, {"data_root": f"{data}/", "max_epochs": 2, **SMALL, **options})
    cfg.work_dir = str(work_dir)
    return cfg


def train(cfg: Config, **how: Any) -> Any:
    return apis.train(cfg, threads=1, check=False, **how)


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The work dir of two epochs of two steps."""
    work_dir = tmp_path_factory.mktemp("compressed")
    train(config(COMPRESSED, data, work_dir))
    return work_dir


@pytest.fixture(scope="module")
def dense(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the same network, dense."""
    work_dir = tmp_path_factory.mktemp("dense")
    train(config(DENSE, data, work_dir, max_epochs=1))
    return work_dir / "epoch_1.pth"


CHAIN = [
    dict(type="Prune", ratio=0.3, round_to=4, importance="taylor", batches=1, recalibrate=1),
    dict(type="Prune", parameters=0.8, scheme="isomorphic", round_to=4),
]


@pytest.fixture(scope="module")
def pruned(dense: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The work dir of two epochs that start from the dense checkpoint, pruned once."""
    work_dir = tmp_path_factory.mktemp("pruned")
    cfg = config(DENSE, data, work_dir, load_from=str(dense))
    cfg.model_transforms = CHAIN[:1]
    cfg.default_hooks.sparsity = dict(type="GroupSparsity", interval=1)
    train(cfg)
    return work_dir


def pairs(model: nn.Module) -> dict[str, int]:
    """Layers of low rank and their ranks."""
    return {
        name: next(part.reduce.parameters()).shape[0]  # type: ignore[union-attr, operator]
        for name, part in model.named_modules()
        if isinstance(part, nn.Sequential) and dict(part.named_children()).keys() == {"reduce", "expand"}
    }


def test_the_checkpoint_says_what_was_done(trained: Path) -> None:
    meta = read_checkpoint(trained / "epoch_2.pth")["meta"]
    plan = meta["compression_plan"]
    assert plan["version"] == 1 and [step["type"] for step in plan["steps"]] == ["LowRank"]
    ranks = plan["steps"][0]["plan"]["ranks"]
    assert ranks and all(name.startswith(("backbone.stages.3.", "neck.")) for name in ranks)
    assert pairs(apis.load(trained / f"{COMPRESSED}.py", trained / "epoch_2.pth")) == ranks
    assert read_checkpoint(trained / "best.pth")["meta"]["compression_plan"] == plan


def test_resumed_it_is_the_uninterrupted_training(trained: Path, data: Path, tmp_path: Path) -> None:
    work_dir = tmp_path / "resumed"
    work_dir.mkdir()
    shutil.copy(trained / "epoch_1.pth", work_dir)
    # Without transforms in the config: the checkpoint knows.
    train(config(DENSE, data, work_dir), resume="auto")
    want, got = (read_checkpoint(folder / "epoch_2.pth") for folder in (trained, work_dir))
    assert want["state_dict"].keys() == got["state_dict"].keys()
    assert all(torch.equal(value, got["state_dict"][key]) for key, value in want["state_dict"].items())
    assert got["meta"]["compression_plan"] == want["meta"]["compression_plan"]


def test_test_predict_and_export_need_config_and_checkpoint_alone(trained: Path, data: Path, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    file, checkpoint, out = str(trained / f"{COMPRESSED}.py"), str(trained / "epoch_2.pth"), tmp_path / "out"
    assert main(["test", file, checkpoint, "--out", str(tmp_path / "metrics.json"), "--skip-check"]) == 0
    pictures = sorted(data.rglob("images/**/*.*"))
    assert main(["predict", checkpoint, str(pictures[0]), "--config", file, "--out", str(tmp_path / "drawn")]) == 0
    assert main(["export", file, checkpoint, "--out", str(out), "--num-images", "2"]) == 0  # verified, or refused
    weights = [x.dims for x in onnx.load(str(out / "model.onnx")).graph.initializer if len(x.dims) == 4]
    model = apis.fuse(apis.load(file, checkpoint))
    assert sorted(map(tuple, weights)) == sorted(tuple(p.shape) for p in model.parameters() if p.dim() == 4)


def test_a_config_without_transforms_loads_it_too(trained: Path, data: Path, tmp_path: Path) -> None:
    checkpoint, images = trained / "epoch_2.pth", torch.rand(1, 3, 64, 64)
    one, other = (apis.load(config(name, data, tmp_path), checkpoint) for name in (COMPRESSED, DENSE))
    assert pairs(one) == pairs(other) != {}
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(one.infer(images)[:3], other.infer(images)[:3]))


def test_transforms_decide_from_dense_weights_that_training_starts_from(
    dense: Path, data: Path, tmp_path: Path
) -> None:
    step = dict(type="LowRank", layers=["neck.*"], energy=0.9999999, ratio=0.1)
    weights = read_state_dict(dense)
    low = torch.randn(16, 2) @ torch.randn(2, weights["neck.pool.merge.conv.weight"].shape[1])
    weights["neck.pool.merge.conv.weight"] = low[:, :, None, None]
    content = read_checkpoint(dense)
    content["state_dict"] = weights
    torch.save(content, tmp_path / "dense.pth")
    cfg = config(DENSE, data, tmp_path, load_from=str(tmp_path / "dense.pth"), max_epochs=1)
    cfg.model_transforms = [step]
    # In the file: to predict, without training.
    loaded = apis.load(cfg, tmp_path / "dense.pth")
    assert pairs(loaded)["neck.pool.merge.conv"] == 2
    images = torch.rand(1, 3, 64, 64)
    dense_model = apis.load(config(DENSE, data, tmp_path), tmp_path / "dense.pth")
    with torch.no_grad():
        for got, want in zip(loaded(images).one_to_one[:2], dense_model(images).one_to_one[:2]):
            torch.testing.assert_close(got, want, atol=1e-3, rtol=1e-3)
    # At the start of a training: the same layers and the same weights, before the first step.
    cfg.optim_wrapper.optimizer.update(lr=0.0, muon_lr=0.0)
    runner = train(cfg)
    assert pairs(runner.model) == pairs(loaded)
    for key, value in loaded.state_dict().items():
        if "neck" in key and "norm" not in key:
            torch.testing.assert_close(runner.model.state_dict()[key], value, atol=1e-6, rtol=1e-6)


def test_a_dense_checkpoint_is_not_resumed_compressed(dense: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"of a dense model and the config has model_transforms.*set load_from"):
        train(config(COMPRESSED, data, tmp_path), resume=str(dense))


def test_a_compressed_checkpoint_starts_the_training_of_other_classes(
    trained: Path, data: Path, tmp_path: Path
) -> None:
    cfg = config(DENSE, data, tmp_path, load_from=str(trained / "epoch_2.pth"))
    cfg.model.head.num_classes = 9
    runner = RUNNERS.get("EffRunner").from_cfg(cfg)
    runner.call_hook("before_run")  # makes the average of weights
    runner.load_or_resume()
    before = apis.load(trained / f"{COMPRESSED}.py", trained / "epoch_2.pth")
    assert pairs(runner.model) == pairs(before)
    neck = {key: value for key, value in runner.model.state_dict().items() if key.startswith("neck.")}
    assert all(torch.equal(value, before.state_dict()[key]) for key, value in neck.items())


@pytest.mark.parametrize("use", ["load", "resume", "load_from"])
def test_a_plan_of_another_dense_model_is_one_sentence(trained: Path, data: Path, tmp_path: Path, use: str) -> None:
    path = str(trained / "epoch_2.pth")
    other = config(COMPRESSED, data, tmp_path, **{"model.neck.out_channels": (24, 24, 24)})
    with pytest.raises(UserError, match=r"epoch_2\.pth: its compression plan was made for another") as error:
        if use == "load":
            apis.load(other, path)
        elif use == "resume":
            train(other, resume=path)
        else:
            other.load_from = path
            train(other)
    assert "\n" not in str(error.value)


def test_a_pruned_training_resumes_to_the_same(pruned: Path, data: Path, tmp_path: Path) -> None:
    work_dir = tmp_path / "resumed"
    work_dir.mkdir()
    shutil.copy(pruned / "epoch_1.pth", work_dir)
    cfg = apis.load_config(pruned / f"{DENSE}.py")
    cfg.work_dir = str(work_dir)
    train(cfg, resume="auto")
    want, got = (read_checkpoint(folder / "epoch_2.pth") for folder in (pruned, work_dir))
    assert want["state_dict"].keys() == got["state_dict"].keys()
    assert all(torch.equal(value, got["state_dict"][key]) for key, value in want["state_dict"].items())
    assert got["meta"]["compression_plan"] == want["meta"]["compression_plan"]
    assert got["meta"]["compression_plan"]["steps"][0]["config"] == CHAIN[0]


@pytest.mark.slow
def test_a_pruned_checkpoint_is_equal_in_another_process(pruned: Path, tmp_path: Path) -> None:
    """To the last bit, with config and checkpoint alone."""
    program = """if True:
        import sys, torch
        from efftasks import apis
        torch.set_num_threads(1)
        model = apis.load(sys.argv[1], sys.argv[2])
        images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(5))
        with torch.no_grad():
            torch.save(list(model.infer(images)[:3]), sys.argv[3])
    """
    files = [str(pruned / f"{DENSE}.py"), str(pruned / "epoch_2.pth"), str(tmp_path / "out.pt")]
    subprocess.run([sys.executable, "-W", "ignore", "-c", program, *files], check=True, capture_output=True)
    model = apis.load(*files[:2])
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        for one, other in zip(model.infer(images)[:3], torch.load(files[2])):
            assert torch.equal(one, other)


@pytest.mark.slow
def test_a_pruned_checkpoint_is_tested_and_exported(pruned: Path, data: Path, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    file, checkpoint, out = str(pruned / f"{DENSE}.py"), str(pruned / "epoch_2.pth"), tmp_path / "out"
    assert main(["test", file, checkpoint, "--out", str(tmp_path / "metrics.json"), "--skip-check"]) == 0
    assert main(["export", file, checkpoint, "--out", str(out), "--num-images", "2"]) == 0
    weights = [x.dims for x in onnx.load(str(out / "model.onnx")).graph.initializer if len(x.dims) == 4]
    small, dense = apis.fuse(apis.load(file, checkpoint)), apis.fuse(apis.build(config(DENSE, data, tmp_path)))
    assert sorted(map(tuple, weights)) == sorted(tuple(p.shape) for p in small.parameters() if p.dim() == 4)
    sizes = [sum(p.numel() for p in model.parameters()) for model in (small, dense)]
    assert sizes[0] < 0.8 * sizes[1]


@pytest.mark.slow
def test_a_chain_goes_on_from_a_pruned_checkpoint(pruned: Path, data: Path, tmp_path: Path) -> None:
    """As iterative pruning: each step from the checkpoint of the one before, in a config that lists all of them."""
    first = str(pruned / "epoch_2.pth")
    cfg = config(DENSE, data, tmp_path, load_from=first, max_epochs=1)
    cfg.model_transforms = CHAIN
    train(cfg)
    once, twice = (read_checkpoint(path)["meta"]["compression_plan"] for path in (first, tmp_path / "epoch_1.pth"))
    assert twice["steps"][:1] == once["steps"] and [step["config"] for step in twice["steps"]] == CHAIN
    counts = [
        sum(p.numel() for key, p in read_state_dict(path).items() if "one_to_many" not in key)
        for path in (first, tmp_path / "epoch_1.pth")
    ]
    assert counts[1] < 0.85 * counts[0]
    assert apis.load(cfg, tmp_path / "epoch_1.pth")
    with pytest.raises(UserError, match=r"of a less compressed model and the config has model_transforms"):
        train(cfg, resume=first)
    cfg.model_transforms = CHAIN[1:]
    with pytest.raises(UserError, match=r"step 1 of its compression plan is .*'ratio': 0\.3"):
        apis.load(cfg, first)


def test_without_training_data_taylor_says_what_to_do(dense: Path, data: Path, tmp_path: Path) -> None:
    cfg = config(DENSE, data, tmp_path)
    cfg.model_transforms = CHAIN[:1]
    with pytest.raises(UserError, match=r"needs batches of the training data.*start a training with load_from"):
        apis.load(cfg, dense)


@pytest.mark.slow
def test_a_latency_target_is_met_by_the_exported_file(
    dense: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a clock that tells the size of a file in milliseconds, so that the test does not depend on the machine."""
    pytest.importorskip("onnxruntime")

    def file_call(backend: str, path: Path, size: tuple[int, int], threads: int) -> float:
        assert (backend, threads) == ("onnxruntime", 1)
        return Path(path).stat().st_size / 1e3

    def measure(calls: dict[str, float], *rest: int) -> dict[str, Any]:
        return {name: SimpleNamespace(minimum=milliseconds) for name, milliseconds in calls.items()}

    monkeypatch.setattr(latency, "file_call", file_call)
    monkeypatch.setattr(latency, "measure", measure)
    cfg = config(DENSE, data, tmp_path)
    whole = apis.load(cfg, dense)
    cfg.model_transforms = [dict(type="Prune", latency=dict(backend="onnxruntime", factor=0.9), round_to=4)]
    sizes = []
    for name, model in (("small", apis.load(cfg, dense)), ("whole", whole)):
        images = torch.zeros(1, 3, *model.cfg.image_size)
        sizes.append(write_graph(Graph(apis.fuse(model)), images, tmp_path / f"{name}.onnx").stat().st_size)
    assert 0.8 <= sizes[0] / sizes[1] <= 0.9
