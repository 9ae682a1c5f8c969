"""The report of compression steps, on files of which all figures but the times are known."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import cv2
import pytest

from efftasks.apis import compression_report
from efftasks.apis.compression_report import CompressionReport, write_compression_report
from efftasks.apis.compression_steps import Chain, CompressionStep
from efftasks.bench.rows import BenchmarkSettings
from efftasks.bench.steps_plot import draw_accuracy_against_latency
from efftasks.linking.linked import LinkedConfig
from efftasks.structures.errors import WorkError

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

FIXTURES = Path(__file__).parents[1] / "fixtures"
FIGURES = (("dense", 0.40, 8.0), ("prune", 0.375, 4.0), ("int8", 0.38, 4.0))  # step, AP, GFLOPs


def write_file(path: Path) -> Path:
    """A network of zeros, with the description of a real one."""
    path.parent.mkdir(parents=True)
    text = (FIXTURES / "sidecar_schema1.json").read_text()
    description = json.loads(text)
    types = {"float32": onnx.TensorProto.FLOAT, "int64": onnx.TensorProto.INT64}
    nodes, outputs, values = [], [], []
    for output in description["outputs"]:
        shape = [1 if side == "N" else int(side) for side in output["shape"]]
        size = 1
        for side in shape:
            size *= side
        kind, name = types[output["dtype"]], output["name"]
        values.append(onnx.helper.make_tensor(f"{name}_", kind, shape, [0] * size))
        nodes.append(onnx.helper.make_node("Identity", [f"{name}_"], [name]))
        outputs.append(onnx.helper.make_tensor_value_info(name, kind, shape))
    shape = [1, 3, description["input"]["height"], description["input"]["width"]]
    images = onnx.helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, shape)
    graph = onnx.helper.make_graph(nodes, "zeros", [images], outputs, values)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, str(path))
    path.with_suffix(".json").write_text(text)
    return path


def row(step: str, value: float, gflops: float, path: Path) -> dict[str, Any]:
    metrics = {"pytorch": {"coco/bbox_mAP": value + 0.001}, "artifact": {"coco/bbox_mAP": value}}
    return {
        **{"step": step, "epochs": 0, "file": "onnx fp32", "input": "64x64", "metric": "coco/bbox_mAP"},
        **{"metric in PyTorch": value + 0.001, "params M": 2.0, "GFLOPs": gflops, "file MB": 1.0, "precision": "fp32"},
        **{"metrics": metrics, "path": str(path), "metric on": {"onnxruntime": value, "openvino": value - 0.01}},
    }


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> CompressionReport:
    work_dir = tmp_path_factory.mktemp("work")
    paths = [write_file(work_dir / f"{i}_{step}" / "model.onnx") for i, (step, *_) in enumerate(FIGURES)]
    paths[1].write_bytes(b"no network")
    rows = [row(*figures, path) for figures, path in zip(FIGURES, paths)]
    steps = tuple(CompressionStep(i, name, LinkedConfig(), False, "best", ()) for i, (name, *_) in enumerate(FIGURES))
    settings = BenchmarkSettings(runs=4, warmup=0, threads=1, backends=("onnxruntime",))
    return write_compression_report(work_dir, rows, Chain(steps, None, settings))


def test_figures_are_in_points_and_against_the_dense_model(report: CompressionReport) -> None:
    assert [x["AP"] for x in report.rows] == pytest.approx([40, 37.5, 38])
    assert [x["AP in PyTorch"] for x in report.rows] == pytest.approx([40.1, 37.6, 38.1])
    assert [x["change"] for x in report.rows] == pytest.approx([0, -2.5, -2])
    assert [x["FLOPs saved"] for x in report.rows] == [1, 2, 2]
    dense, _, last = report.rows
    assert dense["onnxruntime speed-up"] == 1
    assert last["onnxruntime speed-up"] == pytest.approx(dense["onnxruntime ms"] / last["onnxruntime ms"])
    assert last["latency"].keys() == {"onnxruntime"} and last["latency"]["onnxruntime"]["runs"] == 4
    assert "AP on onnxruntime" not in report.columns, "it is that of the file"


def test_a_file_that_cannot_be_timed_is_named_and_stops_nothing(report: CompressionReport) -> None:
    reason = report.rows[1]["latency"]["onnxruntime"]
    assert isinstance(reason, str) and "model.onnx" in reason and "onnxruntime ms" not in report.rows[1]
    page = report.page.read_text()
    assert "Not timed" in page and "prune" in page.split("Not timed")[1]


def test_a_process_that_dies_costs_the_times_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [write_file(tmp_path / f"{i}" / "model.onnx") for i in range(2)]
    rows = [row(*figures, path) for figures, path in zip(FIGURES, paths)]

    def in_new_process(what: str, *rest: Any) -> Any:
        raise WorkError("the process ended early; out of memory")

    monkeypatch.setattr(compression_report, "in_new_process", in_new_process)
    settings = BenchmarkSettings(runs=4, warmup=0, threads=1, backends=("onnxruntime",))
    report = write_compression_report(tmp_path, rows, Chain((), None, settings))
    reason = "not timed: the process ended early; out of memory"
    assert [x["latency"] for x in report.rows] == [{"onnxruntime": reason}] * 2
    assert [x["AP"] for x in report.rows] == pytest.approx([40, 37.5]) and "onnxruntime ms" not in report.columns
    assert reason in report.page.read_text() and (tmp_path / "report.png").is_file()


def test_all_forms_have_the_same_rows_and_need_no_network(report: CompressionReport) -> None:
    folder = report.page.parent
    data = json.loads((folder / "report.json").read_text())
    with (folder / "report.csv").open(newline="") as file:
        sheet = list(csv.DictReader(file))
    assert [x["AP"] for x in data] == [float(x["AP"]) for x in sheet] == [x["AP"] for x in report.rows]
    assert all(x["environment"]["threads"] == "1" == y["threads"] for x, y in zip(data, sheet))
    page = report.page.read_text()
    assert not re.search(r"(src|href)=\"(\w+:)?//|url\(|@import|<script", page)
    assert re.findall(r'src="([^"]+)"', page) == ["report.png"] and "0_dense/model.onnx" in page
    picture = cv2.imread(str(folder / "report.png"))
    assert picture is not None and picture.min() < 100


def test_the_picture_has_a_panel_for_each_runtime(tmp_path: Path) -> None:
    stats = dict(p50=2.0, minimum=1.5, p90=3.0)
    rows = [
        {**row("dense", 0.4, 1.0, tmp_path), "latency": {"onnxruntime": stats, "openvino": stats}},
        {**row("int8", 0.3, 1.0, tmp_path), "latency": {"onnxruntime": dict(stats, p50=1.8), "openvino": "not read"}},
    ]
    widths = []
    for runtimes in (["onnxruntime"], ["onnxruntime", "openvino"]):
        path = draw_accuracy_against_latency(rows, runtimes, "AP", 100, tmp_path / "plot.png")
        widths.append(cv2.imread(str(path)).shape[1])
    assert widths[1] == pytest.approx(2 * widths[0], rel=0.02)
