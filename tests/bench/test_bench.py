import csv
import functools
import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from efftasks.bench.complexity import count_complexity
from efftasks.bench.engines import file_call, torch_call
from efftasks.bench.environment import describe_environment
from efftasks.bench.gap import add_gaps
from efftasks.bench.latency import measure, summarise, timed
from efftasks.bench.plot import draw_flops_against_latency
from efftasks.bench.run_report import RunReport, draw_curves, write_page
from efftasks.bench.table import to_markdown, write_report
from efftasks.export.exporters.onnx import write_graph
from efftasks.structures.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


def test_statistics_equal_numpy():
    times = np.random.default_rng(0).exponential(5, 1000)
    stats = summarise(times)
    assert stats.p90 == pytest.approx(np.quantile(times, 0.9)) and stats.mean == pytest.approx(times.mean())
    assert stats.iqr == pytest.approx(np.quantile(times, 0.75) - np.quantile(times, 0.25))


def test_calls_are_interleaved_and_timed_by_the_clock():
    order: list[str] = []
    ticks = itertools.count()

    def clock() -> float:
        return next(ticks) / 1e3

    calls = {name: timed(functools.partial(order.append, name), clock) for name in ("a", "b")}
    stats = measure(calls, warmup=1, runs=3)
    assert order == ["a", "a", "b", "b"] * 4  # the first of each turn does not count
    assert stats["a"].runs == 3 and stats["a"].p50 == pytest.approx(1.0)


def test_statistics_of_a_clock_with_known_times():
    times = [5.0, 1.0, 4.0, 2.0, 3.0]
    turns = [9.0, 9.0, 9.0, 9.0, *(x for t in times for x in (9.0, t))]  # two to warm up; the first of each is lost
    readings = iter([x for t in turns for x in (100.0, 100.0 + t / 1e3)])
    stats = measure({"a": timed(lambda: None, lambda: next(readings))}, warmup=2, runs=5)["a"]
    found = (stats.mean, stats.p50, stats.minimum, stats.iqr, stats.p90, stats.p99)
    assert found == pytest.approx((3.0, 3.0, 1.0, 2.0, np.percentile(times, 90), np.percentile(times, 99)))


def test_peak_memory_of_a_process_counts_what_it_allocated_and_not_its_parent():
    code = (
        "from efftasks.bench.memory import peak_rss_mb; first = peak_rss_mb(); "
        "x = bytearray(b'x') * 100_000_000; middle = peak_rss_mb(); del x; print(first, middle, peak_rss_mb())"
    )
    ballast = np.ones(50_000_000, np.float32)  # 200 MB that the child must not be charged with
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    first, middle, last = map(float, done.stdout.split())
    assert ballast[-1] == 1 and first < 100
    assert middle - first == pytest.approx(100, abs=5) and last == pytest.approx(middle, abs=1)


def test_complexity_by_hand():
    convolution = nn.Conv2d(3, 8, 3, padding=1)
    found = count_complexity(convolution, convolution, (10, 20))
    assert found.params_m == pytest.approx((3 * 8 * 9 + 8) / 1e6)
    assert found.gmacs == pytest.approx(3 * 8 * 9 * 10 * 20 / 1e9)
    assert found.gflops == pytest.approx(2 * found.gmacs)
    assert found.activations_m == pytest.approx(8 * 10 * 20 / 1e6)


def test_activations_are_what_convolutions_and_products_write():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.linear = nn.Conv2d(3, 4, 1, stride=2), nn.BatchNorm2d(4), nn.Linear(4, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            tokens = self.norm(self.conv(x)).relu().flatten(2).transpose(1, 2)
            return self.linear(tokens @ torch.ones(1, 4, 4))

    net = Net().eval()
    assert count_complexity(net, net, (8, 8)).activations_m == pytest.approx((4 + 4 + 5) * 16 / 1e6)


def test_gaps_by_hand():
    common = dict(backend="onnxruntime", input="8x8")
    rows: list[dict[str, Any]] = [
        {"model": "big", "GFLOPs": 8.0, "p50 ms": 12.0, **common},
        {"model": "small", "GFLOPs": 2.0, "p50 ms": 6.0, **common},
        {"model": "file", "p50 ms": 3.0, **common},
        {"model": "small", "GFLOPs": 2.0, "p50 ms": 1.0, **common, "input": "9x9"},
    ]
    add_gaps(rows, "big")
    assert (rows[1]["speed-up"], rows[1]["FLOPs saved"], rows[1]["gap"]) == (2.0, 4.0, 0.5)
    assert rows[0]["gap"] == 1.0 and rows[2]["speed-up"] == 4.0 and "gap" not in rows[2] and "gap" not in rows[3]
    with pytest.raises(UserError, match="--baseline: got 'none', expected one of big, small, file"):
        add_gaps(rows, "none")


def test_the_picture_has_a_panel_for_each_backend_and_input(tmp_path):
    sizes = {}
    for count in (1, 3):
        rows = [
            {"model": f"m{i}", "backend": f"b{j}", "input": "8x8", "GFLOPs": 1.0 + i, "p50 ms": 2.0 + i}
            for i in range(3)
            for j in range(count)
        ]
        image = cv2.imread(str(draw_flops_against_latency(rows, tmp_path / "deep" / f"{count}.png")))
        assert image is not None and image.min() < 200  # something is drawn
        sizes[count] = image.shape[:2]
    assert sizes[3] == pytest.approx((2 * sizes[1][0], 2 * sizes[1][1]), rel=0.02)


@pytest.mark.parametrize("engine", ["torch", "onnxruntime", "openvino"])
def test_engines_time_one_run(engine, tmp_path):
    if engine == "openvino":
        pytest.importorskip("openvino")
    net = nn.Conv2d(3, 4, 3, padding=1).eval()
    if engine == "torch":
        call = torch_call(net, (16, 24))
    else:
        write_graph(net, torch.zeros(1, 3, 16, 24), tmp_path / "net.onnx")
        call = file_call(engine, tmp_path / "net.onnx", (16, 24), threads=1)
    assert all(0 < call() < 10_000 for _ in range(3))


@pytest.mark.parametrize(("params", "gflops"), [(2.6, 5.5)])
def test_nano_at_640_with_80_classes_stays_within_its_budget(params, gflops):
    from efftasks import apis

    cfg = apis.load_config("o2o-n_mobilenetv4-conv-s_8xb16-300e_coco-640")
    model = apis.fuse(apis.build(cfg))
    found = count_complexity(model, model.infer, (640, 640))
    assert found.params_m <= params and found.gflops <= gflops
    said = [name for name, output in model.infer(torch.zeros(1, 3, 64, 64))._asdict().items() if output is not None]
    assert said == ["boxes", "scores", "labels"]


def test_tables_carry_their_environment(tmp_path):
    rows: list[dict[str, Any]] = [{"model": "a", "p50 ms": 1.234, "runs": 3}, {"model": "b"}]
    assert to_markdown(rows, ["model", "p50 ms"]).splitlines()[2:] == ["| a | 1.23 |", "| b | - |"]
    environment = describe_environment(threads=2)
    assert environment["threads"] == "2" and environment["cpu"]
    markdown, data, sheet = write_report(tmp_path / "deep" / "latency", rows, ["model"], environment)
    assert json.loads(data.read_text())[1]["environment"] == environment
    assert f"- cpu: {environment['cpu']}" in markdown.read_text()
    with sheet.open(newline="") as file:
        assert [row["model"] + row["threads"] for row in csv.DictReader(file)] == ["a2", "b2"]


def test_the_page_shows_everything_and_escapes_it(tmp_path):
    scalars = [{"loss": 3.0, "loss_a": 2.0, "lr": 0.1, "epoch": 1}, {"loss": 2.0, "loss_a": 1.0, "lr": 0.1, "epoch": 2}]
    draw_curves(
        [*scalars, {"coco/bbox_mAP": 0.3, "coco/bbox_mAP_50": 0.5, "coco/bbox_mAP_75": 0.2, "step": 2}],
        tmp_path / "c.svg",
    )
    assert "<svg" in (tmp_path / "c.svg").read_text()
    report = RunReport(
        title="A <run>",
        lead="lead",
        cards={"AP": "0.5"},
        tables={"Accuracy": (("metric", "value"), [("AP", 0.51234)])},
        curves="c.svg",
        pictures=["p/1.png"],
        commands=["efftasks train x"],
        environment={"cpu": "c"},
    )
    text = write_page(report, tmp_path / "index.html").read_text()
    for part in ("A &lt;run&gt;", "0.5123", 'src="c.svg"', 'src="p/1.png"', "efftasks train x", "cpu c"):
        assert part in text
