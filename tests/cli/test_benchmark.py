"""``efftasks benchmark``: what the table says of a file and of a config, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from mmengine.registry import DefaultScope
from onnx import TensorProto, helper

from efftasks.cli.main import main
from efftasks.compression.building import build_model
from efftasks.structures.spec import ArtifactSpec, InputSpec, OutputSpec

CONFIG = "o2o-n_mobilenetv4-conv-s_1xb16-18e_shapes-128"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A file of dynamic size that finds nothing: its outputs are constants."""
    values = {"boxes": np.zeros((1, 1, 4), np.float32), "scores": np.zeros((1, 1), np.float32)}
    values["labels"] = np.zeros((1, 1), np.int64)
    kinds = {name: TensorProto.INT64 if name == "labels" else TensorProto.FLOAT for name in values}
    spec = ArtifactSpec(
        task="detection",
        classes=("cat",),
        category_ids=(3,),
        input=InputSpec("images", 64, 96, mean=(0, 0, 0), std=(255, 255, 255), dynamic_size=True),
        outputs=tuple(OutputSpec(name, value.shape, str(value.dtype), "") for name, value in values.items()),
    )
    graph = helper.make_graph(
        [helper.make_node("Identity", [f"{name}_"], [name]) for name in values],
        "constant",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, "H", "W"])],
        [helper.make_tensor_value_info(name, kinds[name], value.shape) for name, value in values.items()],
        [onnx.numpy_helper.from_array(value, f"{name}_") for name, value in values.items()],
    )
    onnx_model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(onnx_model, {"efftasks": spec.to_json()})
    onnx.save(onnx_model, str(tmp_path / "model.onnx"))
    return tmp_path / "model.onnx"


def test_a_file(model, tmp_path, capsys):
    line = ["benchmark", str(model), str(model), "--runs", "5", "--warmup", "1", "--threads", "1"]
    assert main([*line, "--out", f"{tmp_path}/report/"]) == 0
    runtime, end_to_end = json.loads((tmp_path / "report" / "report.json").read_text())
    assert (runtime["backend"], end_to_end["backend"]) == ("onnxruntime", "onnxruntime, end to end")
    for row in (runtime, end_to_end):
        assert row["input"] == "64x96" and row["runs"] == 5 and row["environment"]["threads"] == "1"
        assert row["file MB"] == pytest.approx(model.stat().st_size / 1e6)
        assert 0 < row["min ms"] <= row["p50 ms"] <= row["p90 ms"] <= row["p99 ms"]
    assert 20 < end_to_end["peak RSS MB"] < 400  # an interpreter with numpy, OpenCV and the runtime; no torch
    assert runtime["min ms"] < end_to_end["p50 ms"]
    table = (tmp_path / "report" / "report.md").read_text()
    assert table.splitlines()[:4] == capsys.readouterr().out.splitlines()[:4]

    sizes = ["--size", "128", "64", "--size", "64", "64"]
    assert main([*line, *sizes, "--backend", "onnxruntime", "--out", str(tmp_path / "stem")]) == 0
    assert {row["input"] for row in json.loads((tmp_path / "stem.json").read_text())} == {"128x64", "64x64"}


@pytest.mark.slow
def test_a_config_file_by_another_counter_and_as_a_baseline(tmp_path):
    from efftasks import apis

    file = tmp_path / "mine.py"
    apis.load_config(CONFIG).dump(str(file))
    line = ["benchmark", str(file), "--runs", "2", "--warmup", "1", "--size", "64", "96", "--out", str(tmp_path / "r")]
    assert main([*line, "--baseline", str(file)]) == 0
    (row,) = json.loads((tmp_path / "r.json").read_text())
    model = apis.fuse(apis.build(CONFIG))
    assert row["backend"] == "torch" and row["input"] == "64x96"
    assert row["model"] == "mine" and row["gap"] == 1.0
    assert row["params M"] == pytest.approx(sum(p.numel() for p in model.parameters()) / 1e6)
    assert row["GMACs"] == pytest.approx(multiply_adds(model, 64, 96) / 1e9, rel=1e-6)
    assert row["GFLOPs"] == pytest.approx(2 * row["GMACs"])


@pytest.mark.slow
def test_backbones_on_several_runtimes_against_a_baseline(tmp_path, capsys):
    small = "backbone:HGNetV2,variant=b0,width=0.5,out_strides=(8,16)"
    line = ["benchmark", "backbone:HGNetV2,variant=b0", small, "--backend", "torch", "onnxruntime"]
    line += ["--size", "64", "96", "--runs", "3", "--warmup", "1", "--threads", "1"]
    assert main([*line, "--baseline", "backbone:HGNetV2,variant=b0", "--out", f"{tmp_path}/front"]) == 0
    rows = json.loads((tmp_path / "front.json").read_text())
    names = [(row["model"] == small, row["input"], row["backend"]) for row in rows]
    assert names == [(is_small, "64x96", b) for is_small in (False, True) for b in ("torch", "onnxruntime")]
    for i, row in enumerate(rows):
        base = rows[i % 2]
        assert row["speed-up"] == pytest.approx(base["p50 ms"] / row["p50 ms"])
        assert row["gap"] == pytest.approx(row["speed-up"] * row["GFLOPs"] / base["GFLOPs"])
        assert row["activations M"] > 0 and row["peak RSS MB"] > 20
    assert rows[2]["params M"] < 0.5 * rows[0]["params M"]
    assert all((tmp_path / f"front{suffix}").exists() for suffix in (".md", ".csv", ".png"))
    assert "gap" in capsys.readouterr().out.splitlines()[0]


@pytest.mark.slow
def test_a_checkpoint_by_the_config_beside_it(tmp_path, capsys):
    from efftasks import apis

    cfg = apis.load_config(CONFIG)
    cfg.dump(str(tmp_path / "config.py"))
    with DefaultScope.overwrite_default_scope("efftasks"):
        model, plan = build_model(cfg.model, [dict(type="LowRank", layers=["neck.*"], ratio=0.3)])
    assert plan is not None
    meta = dict(dataset_meta=dict(classes=tuple(cfg.classes)), compression_plan=plan.as_data())
    torch.save(dict(state_dict=model.state_dict(), meta=meta), tmp_path / "epoch_1.pth")
    line = ["benchmark", str(tmp_path / "epoch_1.pth"), "--runs", "2", "--warmup", "0", "--size", "64", "64"]
    assert main([*line, "--out", str(tmp_path / "r")]) == 0
    assert "epoch_1.pth" in capsys.readouterr().out
    (row,) = json.loads((tmp_path / "r.json").read_text())
    parameters = sum(p.numel() for p in apis.fuse(model).parameters())
    assert row["params M"] == pytest.approx(parameters / 1e6)  # of the compressed network, which the config is not
    assert parameters < sum(p.numel() for p in apis.fuse(apis.build(cfg)).parameters())
    (tmp_path / "second.py").touch()
    assert main(line) == 2
    assert "2 configs beside it" in capsys.readouterr().err


@pytest.mark.slow
def test_torch_compile_and_the_detector_on_all_runtimes(tmp_path):
    pytest.importorskip("openvino")
    line = ["benchmark", CONFIG, "--backend", "torch.compile", "onnxruntime", "openvino", "--size", "64", "64"]
    assert main([*line, "--runs", "3", "--warmup", "1", "--out", f"{tmp_path}/r"]) == 0
    rows = json.loads((tmp_path / "r.json").read_text())
    assert [row["backend"] for row in rows] == ["torch.compile", "onnxruntime", "openvino"]
    assert len({row["GFLOPs"] for row in rows}) == 1


def multiply_adds(model, height: int, width: int) -> int:
    """Those of the convolutions, by their shapes: output elements x kernel x input channels of a group."""
    import torch
    from torch import nn

    total = 0

    def count(module: nn.Module, _: object, output: torch.Tensor) -> None:
        nonlocal total
        assert isinstance(module, nn.Conv2d)
        total += output.numel() * module.weight[0].numel()

    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(count)
    with torch.no_grad():
        model.infer(torch.zeros(1, 3, height, width))
    return total


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--runs", "0"], "--runs: got 0, expected an integer from 1"),
        (["--warmup", "-1"], "--warmup: got -1"),
        (["--threads", "0"], "--threads: got 0"),
        (["--backend", "abacus"], "backend: got 'abacus', expected one of torch, torch.compile, onnxruntime"),
        (["--backend", "torch"], "--backend: got 'torch', allowed for"),
        (["--baseline", "other"], "--baseline: got 'other', expected one of the models"),
        (["none.pth"], "none.pth: no such checkpoint file"),
        (["backbone:HGNetV2,b0"], "got 'b0', expected argument=value"),
        (["backbone:HGNetV2,variant=b9"], "variant: got 'b9'"),
        (["--size", "100", "64"], "size: got (100, 64), expected multiples of 32"),
        ([CONFIG, "--size", "96", "0"], "--size: got 96 0"),
        (["none.onnx"], "none.onnx: no such file"),
        (["none"], "none: no such config file"),
    ],
)
def test_wrong_calls(model, capsys, words, said):
    assert main(["benchmark", str(model), *words]) == 2
    assert said in capsys.readouterr().err
