"""The notebooks of the tutorials run from the first cell to the last, at a small size."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from efftasks.datasets.shapes import write_shapes

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted((ROOT / "docs" / "tutorials").glob("*.py"))
CELLS = "RBC WBC Platelets"  # the classes of BCCD

# What stands in the cell with the parameters instead; the data are shapes with the names of blood cells.
SMALL = {
    "channel_pruning": 'arguments = ["--data-root", "data/", "--epochs", "1", "--tune-epochs", "1", "--ratios", "0.5",'
    ' "--recalibrate", "1", "--backends", "onnxruntime", "--runs", "3", "--out", "work_dirs/channel_pruning"]',
    "distillation": 'arguments = ["bccd", "--data-root", "data/", "--seeds", "1", "--epochs", "1", "--teacher-epochs",'
    ' "1", "--only", "maps", "--threads", "1", "--out", "work_dirs/distil"]',
    "early_exit": 'arguments = ["--data-root", "data/", "--epochs", "1", "--gates", "ConfidenceGate", "--draws", "1",'
    ' "--out", "work_dirs/early_exit"]',
    "first_hour": "from pathlib import Path\nFOLDER, EPOCHS, TRAIN, VAL = Path('work_dirs/first_hour'), 1, 16, 4\n"
    'CONFIG = "o2o-n_mobilenetv4-conv-s_1xb16-18e_shapes-128"',
    "split_transform_merge": 'arguments = ["--data-root", "data/", "--epochs", "1", "--runs", "2", "--out",'
    ' "work_dirs/stm"]',
}
LEFT = {  # below work_dirs
    "channel_pruning": ["channel_pruning/table.md", "channel_pruning/plot.png"],
    "distillation": ["distil/bccd/table.md"],
    "early_exit": ["early_exit/table.md", "early_exit/curve.png", "early_exit/exits_ConfidenceGate.jpg"],
    "first_hour": ["first_hour/run/best.pth", "first_hour/out/model.onnx", "first_hour/drawn"],
    "split_transform_merge": ["stm/table.md"],
}


def blood_cells(folder: Path) -> None:
    """A set in the layout and with the classes of BCCD."""
    write_shapes(folder, train=8, val=4)
    for file in (folder / "annotations").glob("*.json"):
        content = json.loads(file.read_text(encoding="utf-8"))
        content["categories"] = [dict(id=i, name=name) for i, name in enumerate(CELLS.split(), 1)]
        for annotation in content["annotations"]:
            annotation["category_id"] = annotation["category_id"] % 3 + 1
        for image in content["images"]:
            image["file_name"] = f"{file.stem}/{Path(image['file_name']).name}"
        file.write_text(json.dumps(content), encoding="utf-8")


def notebook_of(script: Path) -> Any:
    """The notebook as the site has it."""
    return pytest.importorskip("tools.docs.notebooks", reason="efftasks[docs] is not installed").read(script)


def test_every_script_has_a_small_size() -> None:
    assert {script.stem for script in SCRIPTS} == set(SMALL) == set(LEFT)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_script_is_a_notebook(script: Path) -> None:
    notebook = notebook_of(script)
    kinds = [cell.cell_type for cell in notebook.cells]
    assert kinds[0] == "markdown" and notebook.cells[0].source.startswith("# ")
    assert sum("parameters" in cell.metadata.get("tags", []) for cell in notebook.cells) == 1
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    assert "__doc__" not in code.replace("main.__doc__", "") and "__name__" not in code
    compile(code.replace("from __future__ import annotations", ""), script.name, "exec")


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_notebooks_run(script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = notebook_of(script)
    nbclient = pytest.importorskip("nbclient", reason="efftasks[docs] is not installed")
    blood_cells(tmp_path / "data")
    (cell,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    cell.source = SMALL[script.stem]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources).execute()
    missing = [name for name in LEFT[script.stem] if not (tmp_path / "work_dirs" / name).exists()]
    assert not missing
