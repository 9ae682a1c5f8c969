"""A comparison as page, JSON, CSV and tables."""

from __future__ import annotations

import base64
import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from efftasks.evaluation.comparison import MetricRow
from efftasks.evaluation.differences import Difference, Interval
from efftasks.reports.comparison import ComparedModel, Comparison, cost_table, main_table, write_data
from efftasks.reports.comparison_page import write_comparison_page
from efftasks.reports.page import Picture

NONE = float("nan")


def comparison(several_parts: bool = False) -> Comparison:
    loss = Difference(-2.0, -3.0, -1.0, 1.4, 0.01, 0.02)
    unknown = Difference(NONE, NONE, NONE, NONE, 1.0, 1.0)
    same = Difference(0.0, 0.0, 0.0, 0.0, 1.0, 1.0)
    rows = [
        MetricRow("boxes", "main", "AP", (Interval(50, 48, 52), Interval(48, 46, 50)), (loss,)),
        MetricRow("boxes", "more", "AP50", (Interval(70, 68, 72), Interval(70, 68, 72)), (same,)),
        MetricRow("boxes", "class", "<cat>", (Interval(NONE, NONE, NONE), Interval(1, 0, 2)), (unknown,)),
    ]
    if several_parts:
        rows.append(MetricRow("label maps", "main", "mIoU", (Interval(40, 39, 41), Interval(40, 39, 41)), (same,)))
    models = [
        ComparedModel("a.pth", "x/a.pth", 8.5, 2.1, 10.0, None, 0.02),
        ComparedModel("b.onnx", "x/b.onnx", 2.5, None, 4.0, Interval(0.4, 0.39, 0.42), 0.01),
    ]
    return Comparison(models, rows, ["A difference: AP is < lower"], 87, 2000, 3, {"cpu": "one"})


def test_tables() -> None:
    first, second = main_table(comparison())
    assert first == {
        "metric": "AP",
        "a.pth": "50.00 (48.0 to 52.0)",
        "b.onnx": "48.00 (46.0 to 50.0)",
        "b.onnx - a.pth": "-2.00 (-3.00 to -1.00)",
    }
    assert second["b.onnx - a.pth"] == "0"
    assert main_table(comparison(True))[2]["metric"] == "label maps: mIoU"
    assert [x["a.pth"] for x in main_table(comparison(), ("class",))] == ["-"]
    assert cost_table(comparison())[1] == {
        "model": "b.onnx",
        "file MB": "2.50",
        "parameters M": "",
        "network ms (median)": "4.00",
        "time / a.pth": "0.400 (0.390 to 0.420)",
    }


def test_reports_have_no_cost() -> None:
    made = comparison()
    unknown = [replace(x, megabytes=None, parameters=None, milliseconds=None, ratio=None) for x in made.models]
    assert cost_table(replace(made, models=unknown)) == []


def test_data_hold_all_figures(tmp_path: Path) -> None:
    data, sheet = write_data(comparison(), tmp_path / "compare")
    read = json.loads(data.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert read["rows"][0]["differences"][0] == {
        **dict(value=-2.0, low=-3.0, high=-1.0, detectable=1.4, p=0.01, p_adjusted=0.02),
        "is_real": True,
    }
    assert read["rows"][2]["values"] == [dict(value=None, low=None, high=None), dict(value=1, low=0, high=2)]
    assert read["models"][1]["ratio"] == dict(value=0.4, low=0.39, high=0.42)
    assert (read["images"], read["resamples"], read["seed"]) == (87, 2000, 3)
    with sheet.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    assert rows[1]["model"] == "b.onnx"
    assert [float(rows[1][key]) for key in ("value", "difference", "difference_low", "p_adjusted")] == [
        48,
        -2,
        -3,
        0.02,
    ]
    assert rows[0]["difference"] is None or rows[0]["difference"] == ""


@pytest.mark.parametrize("several_parts", [False, True])
def test_page_is_one_file_with_everything_escaped(tmp_path: Path, several_parts: bool) -> None:
    pictures = [Picture("data:image/jpeg;base64,AAAA", "1.png. a.pth: 0 missed")]
    path = write_comparison_page(comparison(several_parts), pictures, tmp_path / "compare.html", 0.25)
    text = path.read_text()
    for part in ("a.pth against b.onnx", "87 images, 2000 resamples, seed 3", "AP is &lt; lower", "&lt;cat&gt;"):
        assert part in text
    assert "<cat>" not in text
    assert "score of 0.25 or more" in text
    assert all(source.startswith("data:") for source in re.findall(r'src="([^"]+)"', text))
    headings = re.findall(r"<h2[^>]*>(.*?)</h2>", text)
    assert headings == [
        *("Verdict", "Metrics", "Differences", "Cost", "By class"),
        *("Where they differ most", "How to read it"),
    ]


def test_names_with_dollars_are_no_formulas(tmp_path: Path) -> None:
    made = comparison()
    models = [replace(model, name=f"{model.name} $\\frac$") for model in made.models]
    named = replace(made, models=models, rows=[replace(made.rows[0], name="US$ $x"), *made.rows[1:]])
    text = write_comparison_page(named, [], tmp_path / "compare.html", 0.25).read_text()
    drawn = [base64.b64decode(x).decode() for x in re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', text)]
    assert len(drawn) == 1 and "<!-- US$ $x -->" in drawn[0]
