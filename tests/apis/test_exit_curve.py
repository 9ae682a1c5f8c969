"""Curves of early exits, of a network that sees cats at its exit and dogs only behind it."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from efftasks.apis.exit_curve import CurveSettings, _quantiles, _verdict, measure_exit_curve
from efftasks.bench.exit_plot import draw_exit_curve
from efftasks.cli.main import main
from efftasks.export.exporters import onnx as exporter
from efftasks.structures.errors import UserError
from efftasks.structures.instances import DetectionTensors, EarlyAnswer
from efftasks.structures.spec import ArtifactSpec, ExitSpec, InputSpec, OutputSpec

METRIC = "coco/bbox_mAP"


def region(seen: Tensor) -> tuple[Tensor, Tensor]:
    """Cells (N, H, W) in {0, 1} -> the box (N, 4) around those that are 1, and whether there are any."""
    ends = []
    for axis, length in ((1, seen.shape[2]), (2, seen.shape[1])):  # over rows: columns, and over columns: rows
        line = seen.amax(axis)
        steps = torch.arange(length, dtype=torch.float32)
        ends.append((length - (line * (length - steps)).amax(1), (line * (steps + 1)).amax(1)))
    (left, right), (top, bottom) = ends
    some = seen.flatten(1).amax(1)
    return torch.stack([left, top, right, bottom], 1) * some[:, None], some


class CatsFirst(nn.Module):
    """The exit score is one less the share of blue: images without a dog leave at 1."""

    def __init__(self) -> None:
        super().__init__()
        self.exit_threshold = 1.0

    def answer(self, images: Tensor, with_dogs: float) -> DetectionTensors:
        cats, dogs = ((images[:, k] - images[:, 2 - k] > 0.5).float() for k in (0, 2))
        boxes, (red, blue) = zip(region(cats), region(dogs * with_dogs))
        labels = torch.arange(2).expand(images.shape[0], 2).clone()
        return DetectionTensors(torch.stack(boxes, 1), torch.stack((0.9 * red, 0.8 * blue), 1), labels)

    def infer_early(self, images: Tensor) -> EarlyAnswer:
        blue = (images[:, 2] - images[:, 0] > 0.5).float().flatten(1).mean(1)
        return EarlyAnswer(self.answer(images, 0.0), 1 - blue, (images,))

    def infer_late(self, carried: tuple[Tensor, ...]) -> DetectionTensors:
        return self.answer(carried[0] + 0, 1.0)

    def carried(self, height: int, width: int) -> tuple[OutputSpec, ...]:
        return (OutputSpec("pixels", ("N", 3, height, width), "float32", ""),)

    def infer(self, images: Tensor) -> DetectionTensors:
        raise NotImplementedError

    def outputs(self, height: int, width: int) -> tuple[OutputSpec, ...]:
        raise NotImplementedError


@pytest.fixture(scope="module")
def root(painted: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return painted.write_pictures(tmp_path_factory.mktemp("painted") / "data")


@pytest.fixture(scope="module")
def files(painted: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A file that decides itself, and one of the whole network."""
    outputs = (
        OutputSpec("boxes", ("N", 2, 4), "float32", ""),
        OutputSpec("scores", ("N", 2), "float32", ""),
        OutputSpec("labels", ("N", 2), "int64", ""),
        OutputSpec("exit_score", ("N",), "float32", ""),
    )
    paths, (height, width) = {}, painted.INPUT
    for form, early_exit in (("if", ExitSpec("if", 1.0)), ("whole", None)):
        spec = ArtifactSpec(
            task="detection",
            classes=painted.NAMES,
            category_ids=tuple(painted.CATEGORY_IDS[name] for name in painted.NAMES),
            input=InputSpec("images", height, width, mean=(0, 0, 0), std=(255, 255, 255), dynamic_batch=False),
            outputs=outputs if early_exit else outputs[:-1],
            early_exit=early_exit,
        )
        paths[form] = str(exporter.export_onnx(CatsFirst(), spec, tmp_path_factory.mktemp(form) / f"{form}.onnx"))
    return paths


def test_a_threshold_gives_the_metric_and_the_exit_rate_of_its_images(painted, root, files, tmp_path):
    settings = CurveSettings((2, 0, 1), beside=(files["whole"],), threads=1, rounds=1)
    curve = measure_exit_curve(painted.config(root), files["if"], settings)
    assert [(row.get("threshold"), row.get("exit rate")) for row in curve.rows] == [
        (0, 1.0),
        (1, 0.25),
        (2, 0.0),
        (None, None),
    ]
    assert curve.metric == METRIC
    assert [row[METRIC] for row in curve.rows] == pytest.approx([0.5, 1, 1, 1])  # cats alone are half
    assert all(0 < row["p50 ms"] <= row["p99 ms"] and row["mean ms"] > 0 for row in curve.rows)
    (verdict,) = curve.verdicts
    assert "whole.onnx" in verdict
    assert draw_exit_curve(curve.rows, METRIC, tmp_path / "curve.png").stat().st_size > 10_000


@pytest.mark.slow
def test_the_command_writes_what_it_prints(painted, root, files, tmp_path, capsys):
    config, out, plot = tmp_path / "config.py", tmp_path / "curve.json", tmp_path / "curve.png"
    painted.config(root).dump(str(config))
    line = ["test", str(config), files["if"], "--exit-thresholds", "auto", "--beside", files["whole"], "--rounds", "1"]
    assert main([*line, "--out", str(out), "--plot", str(plot)]) == 0
    data = json.loads(out.read_text())
    thresholds = [row["threshold"] for row in data["rows"] if "threshold" in row]
    assert thresholds[0] == 0 and thresholds[-1] == 2 and len(thresholds) > 3 and plot.is_file()
    printed = capsys.readouterr().out
    assert "exit rate" in printed and data["verdicts"][0] in printed
    assert main(["test", str(config), files["if"], "--exit-threshold", "0", "--out", str(out)]) == 0
    data = json.loads(out.read_text())
    assert data["exit_rate"] == 1 and data[METRIC] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("model", "beside", "message"),
    [
        ("whole", (), r"whole\.onnx has no early exit, expected a file that was exported with one"),
        ("if", ("if",), r"--beside: .*if\.onnx has an early exit, expected a file of a network without one"),
    ],
)
def test_files_of_the_wrong_kind_are_refused(model, beside, message, painted, root, files):
    with pytest.raises(UserError, match=message):
        measure_exit_curve(painted.config(root), files[model], CurveSettings((0,), tuple(files[b] for b in beside)))


def test_thresholds_of_a_command_are_numbers(painted, root, files, tmp_path, capsys):
    painted.config(root).dump(str(tmp_path / "config.py"))
    for given, message in ((["0", "half"], "expected numbers from 0, or auto"), (["-1"], "exit_threshold: got -1")):
        assert main(["test", str(tmp_path / "config.py"), files["if"], "--exit-thresholds", *given]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--plot", "a.png"], "--plot: got it without --exit-thresholds, expected both"),
        (["--beside", "a.onnx"], "--beside: got it without --exit-thresholds, expected both"),
        (["--rounds", "2"], "--rounds: got it without --exit-thresholds, expected both"),
        (["--threads", "1"], "--threads: got it without --exit-thresholds, expected both"),
        (["--exit-thresholds", "auto", "--show-dir", "a"], "--show-dir: got it with --exit-thresholds, expected one"),
        (["--exit-thresholds", "auto", "--tiles"], "--tiles: got it with --exit-thresholds, expected one"),
    ],
)
def test_options_that_would_be_ignored_are_refused(given, message, capsys):
    assert main(["test", "o2o-n_mobilenetv4-conv-s_1xb16-18e_shapes-128", "model.onnx", *given]) == 2
    assert message in capsys.readouterr().err


def row(metric: float, mean: float, **more: Any) -> dict[str, Any]:
    return {METRIC: metric, "mean ms": mean, **more}


@pytest.mark.parametrize(
    ("metric", "mean", "starts"),
    [
        (0.5, 6.0, "threshold 0.7 beats"),
        (0.55, 5.0, "no threshold beats"),  # equal in both
        (0.56, 5.0, "no threshold beats"),
        (0.6, 12.0, "threshold 2 beats"),
        (0.3, 1.0, "no threshold beats"),
    ],
)
def test_what_beats_is_as_good_and_as_fast_and_one_of_both_better(metric, mean, starts):
    curve = [row(0.4, 3.0, threshold=0.0), row(0.55, 5.0, threshold=0.7), row(0.6, 10.0, threshold=2.0)]
    assert _verdict(curve, row(metric, mean, model="small.onnx"), METRIC).startswith(f"{starts} small.onnx")


def test_automatic_thresholds_are_scores_between_the_ends():
    thresholds = list(_quantiles([i / 100 for i in range(101)]))
    assert thresholds[0] == 0 and thresholds[-1] == 2
    assert thresholds[1:-1] == pytest.approx([i / 10 for i in range(1, 10)])
