import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from efftasks.bench.complexity import count_complexity
from efftasks.bench.environment import describe_environment
from efftasks.bench.latency import measure, summarise
from efftasks.bench.run_report import RunReport, draw_curves, write_page
from efftasks.bench.table import to_markdown, write_report

ROOT = Path(__file__).resolve().parents[2]


def test_statistics_equal_numpy():
    times = np.random.default_rng(0).exponential(5, 1000)
    stats = summarise(times)
    assert stats.p90 == pytest.approx(np.quantile(times, 0.9)) and stats.mean == pytest.approx(times.mean())
    assert stats.iqr == pytest.approx(np.quantile(times, 0.75) - np.quantile(times, 0.25))


def test_calls_are_interleaved_and_timed_by_the_clock():
    order: list[str] = []
    ticks = itertools.count()
    stats = measure(
        {"a": lambda: order.append("a"), "b": lambda: order.append("b")},
        warmup=1,
        runs=3,
        clock=lambda: next(ticks) / 1e3,
    )
    assert order == ["a", "b"] * 4
    assert stats["a"].runs == 3 and stats["a"].p50 == pytest.approx(1.0)


def test_statistics_of_a_clock_with_known_times():
    times = [5.0, 1.0, 4.0, 2.0, 3.0]
    readings = iter([x for t in times for x in (100.0, 100.0 + t / 1e3)])
    stats = measure({"a": lambda: None}, warmup=2, runs=5, clock=lambda: next(readings))["a"]
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


@pytest.mark.parametrize(("params", "gflops"), [(2.6, 5.5)])
def test_nano_at_640_with_80_classes_stays_within_its_budget(params, gflops):
    from efftasks import apis

    cfg = apis.load_config("o2o-n_mobilenetv4-conv-s_8xb16-300e_coco-640")
    model = apis.fuse(apis.build(cfg))
    found = count_complexity(model, model.detect, (640, 640))
    assert found.params_m <= params and found.gflops <= gflops
    assert torch.is_tensor(model.detect(torch.zeros(1, 3, 64, 64)).boxes)


def test_tables_carry_their_environment(tmp_path):
    rows: list[dict[str, Any]] = [{"model": "a", "p50 ms": 1.234, "runs": 3}, {"model": "b"}]
    assert to_markdown(rows, ["model", "p50 ms"]).splitlines()[2:] == ["| a | 1.23 |", "| b | - |"]
    environment = describe_environment(threads=2)
    assert environment["threads"] == "2" and environment["cpu"]
    markdown, data = write_report(tmp_path / "deep" / "latency", rows, ["model"], environment)
    assert json.loads(data.read_text())[1]["environment"] == environment
    assert f"- cpu: {environment['cpu']}" in markdown.read_text()


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
