"""Models compared: what they are given as, evaluated once and kept, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest

from efftasks import apis
from efftasks.apis import compare_records, comparing
from efftasks.apis.compare_subjects import read_subjects
from efftasks.apis.comparing import CompareSettings, compare
from efftasks.cli.main import main
from efftasks.evaluation.records import EvaluationRecord
from efftasks.imaging.prediction import Prediction
from efftasks.structures.errors import UserError

QUICK = CompareSettings(resamples=100, runs=0, pictures=2)


@pytest.fixture(scope="module")
def root(painted: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return painted.write_pictures(tmp_path_factory.mktemp("painted") / "data")


@pytest.fixture
def report(painted: ModuleType, root: Path, tmp_path: Path) -> Path:
    """The folder of a report."""
    cfg = painted.config(root, kinds=("bbox", "segm", "keypoints"))
    model = painted.detector(cfg)
    result = apis.evaluate(cfg, lambda entries: apis.predict(model, entries), painted.NAMES, record=True, model="a")
    assert result.record is not None
    result.record.save(tmp_path / "report")
    return tmp_path / "report"


def test_reports_are_compared_without_a_config(report: Path, tmp_path: Path) -> None:
    result = compare([str(report), str(report)], tmp_path / "out", settings=QUICK)
    mains = [row for row in result.comparison.rows if row.group == "main"]
    assert [row.part for row in mains] == ["boxes", "masks", "keypoints"]
    assert all(row.values[0].value == pytest.approx(100) for row in mains)
    assert all((x.value, x.low, x.high) == (0, 0, 0) for row in result.comparison.rows for x in row.differences)
    assert all(sentence.startswith("No difference") for sentence in result.comparison.verdicts)
    assert len(result.comparison.verdicts) == 3
    assert result.page == tmp_path / "out/compare.html"
    assert "Where they differ most" not in result.page.read_text()


def test_what_differs_is_drawn(report: Path, tmp_path: Path) -> None:
    record = EvaluationRecord.load(report)
    record.detections[:] = [row for row in record.detections if row["image_id"] != 10]
    record.save(tmp_path / "other")
    text = compare([str(report), str(tmp_path / "other")], tmp_path / "out", settings=QUICK).page.read_text()
    assert text.count("data:image/jpeg") == 1
    assert "0.png. report: 0 missed, 0 false; other: 2 missed, 0 false" in text


def test_reports_of_different_data_are_one_sentence(
    report: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = json.loads((report / "record.json").read_text())
    other = tmp_path / "other"
    EvaluationRecord.load(report).save(other)
    (other / "record.json").write_text(json.dumps({**data, "data_digest": "0"}))
    assert main(["compare", str(report), str(other), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error == (
        "error: report and other were evaluated on different data (images or annotations), expected the same for a "
        "comparison\n"
    )
    assert not (tmp_path / "out").exists()


def test_a_model_is_evaluated_once_and_again_when_it_changes(
    painted: ModuleType, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = painted.config(root)
    model = painted.detector(cfg)
    runs: list[str] = []

    def predictor(cfg: Any, path: str) -> Any:
        def predict(entries: Any) -> Any:
            runs.append(path)
            return apis.predict(model, entries)

        return predict, painted.NAMES

    monkeypatch.setattr(compare_records, "entry_predictor", predictor)
    monkeypatch.setattr(comparing, "_timed", lambda *_: None)
    cfg.dump(tmp_path / "config.py")
    for name in ("a.pth", "b.pth"):
        (tmp_path / name).write_bytes(name.encode())
    models = [str(tmp_path / name) for name in ("a.pth", "b.pth")]
    first = compare(models, tmp_path / "out", settings=QUICK)
    assert runs == models  # four images are one batch
    assert compare(models, tmp_path / "out", settings=QUICK).comparison.rows == first.comparison.rows
    assert runs == models
    (tmp_path / "b.pth").write_bytes(b"another")
    compare(models, tmp_path / "out", settings=QUICK)
    assert runs == [*models, models[1]]
    (root / "images/0.png").touch()
    compare(models, tmp_path / "out", settings=QUICK)
    assert runs[3:] == models


def test_label_maps_are_kept_in_the_numbers_of_the_data(tmp_path: Path) -> None:
    labels = np.array([[0, 1], [1, 1]], np.uint8)
    made = Prediction.of_labels("x", labels, classes=("wall", "floor"), category_ids=(1, 2))
    keeping = compare_records._keeping_label_maps(lambda entries: [made] * len(entries), ("floor", "wall"), tmp_path)
    keeping([{}, {}])
    keeping([{}])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.png", "1.png", "2.png"]
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "2.png"), cv2.IMREAD_GRAYSCALE), 1 - labels)


def test_what_models_are_given_as(tmp_path: Path, report: Path) -> None:
    for name in ("a/best.pth", "b/best.pth", "a/config.py", "model.onnx"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    a, b, onnx = (str(tmp_path / name) for name in ("a/best.pth", "b/best.pth", "model.onnx"))
    subjects = read_subjects([a, f"mine.py:{b}", onnx, a, str(report)], None)
    assert [x.name for x in subjects] == ["a/best.pth", "b/best.pth", "model.onnx", "a/best.pth (2)", "report"]
    beside = str(tmp_path / "a/config.py")
    assert [x.config for x in subjects] == [beside, "mine.py", None, beside, None]
    assert [x.is_report for x in subjects] == [False] * 4 + [True]
    assert read_subjects([a, b], "data.py")[1].config == "data.py"


@pytest.mark.parametrize(
    ("models", "words"),
    [
        (["a.pth"], "got 1 model, expected at least two"),
        (["a.onnx", "none.onnx"], "none.onnx: no such file"),
        (["a.pth", "b.pth"], "a.pth: 0 configs beside it, expected the one of its work dir; give it as CONFIG:"),
        (
            ["folder", "a.pth"],
            "folder: has no record.json, expected the folder that efftasks test --report has written",
        ),
        (["a.onnx", "a.onnx"], "a.onnx: got no config, whose test data it is evaluated on; expected --config"),
    ],
)
def test_what_cannot_be_compared(tmp_path: Path, models: list[str], words: str) -> None:
    (tmp_path / "folder").mkdir()
    for name in ("a.pth", "b.pth", "a.onnx"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(UserError, match=words.replace(".", r"\.")):
        compare([str(tmp_path / name) for name in models], tmp_path / "out", settings=QUICK)


@pytest.mark.parametrize("name", ["resamples", "runs", "threads", "pictures"])
def test_settings_out_of_range(name: str) -> None:
    options: Any = {name: -1}
    with pytest.raises(UserError, match=f"--{name}: got -1, expected an integer from"):
        CompareSettings(**options)


def test_a_score_out_of_range() -> None:
    with pytest.raises(UserError, match="--score-thr: got 5, expected a number in 0 to 1"):
        CompareSettings(score_thr=5)


@pytest.mark.parametrize(
    ("given", "name"), [(dict(config="a.py"), "--config"), (dict(options={"a": 1}), "--cfg-options")]
)
def test_reports_alone_take_no_config(report: Path, tmp_path: Path, given: dict[str, Any], name: str) -> None:
    with pytest.raises(UserError, match=f"{name}: got it with reports alone, whose data are given"):
        compare([str(report), str(report)], tmp_path / "out", settings=QUICK, **given)
