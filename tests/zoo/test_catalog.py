"""The catalog states what is true of this package and of its pages."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import pytest

from efftasks.apis.zoo_table import model_of_metafile, zoo_rows
from efftasks.config import shipped_configs
from efftasks.models.published.checkpoint import FAMILIES, MMSEG, MMSEG_FAMILIES
from efftasks.structures.errors import UserError
from efftasks.zoo.catalog import Entry, catalog

ROOT = Path(__file__).resolve().parents[2]
ENTRIES = list(catalog().values())
MODELS = [entry for entry in ENTRIES if not entry.backbone]
BACKBONES = [entry for entry in ENTRIES if entry.backbone]
FREE = {"Apache-2.0", "MIT", "BSD-3-Clause"}  # may be used and passed on


@pytest.mark.parametrize("entry", MODELS, ids=lambda entry: entry.name)
def test_entry(entry: Entry) -> None:
    assert entry.family in FAMILIES
    assert entry.config in shipped_configs()
    model = entry.config.split("-")[0]
    assert model in MMSEG_FAMILIES if entry.family == MMSEG else model == entry.family
    assert entry.license in FREE and entry.config
    assert all(urlsplit(address).scheme == "https" for address in (entry.url, entry.page))
    assert entry.file in (f"{entry.name}.pth", f"{entry.name}.safetensors")
    assert len(model_of_metafile(entry.config)["Results"]) == 1
    if entry.sha256:  # OpenMMLab ends the names of files in its first digits
        assert entry.url.endswith(f"-{entry.sha256}.pth")


@pytest.mark.parametrize("entry", BACKBONES, ids=lambda entry: entry.name)
def test_backbone(entry: Entry) -> None:
    """timm states the license, and has a network of that name whose file the backbone reads."""
    timm = pytest.importorskip("timm", exc_type=ImportError)
    name = entry.page.removeprefix("https://huggingface.co/timm/")
    stated = timm.get_pretrained_cfg(name)
    assert stated.hf_hub_id == f"timm/{name}" and stated.license == entry.license.lower()
    assert entry.license in FREE and not entry.config
    kind, variant = entry.backbone
    family = {"RegNet": "regnet", "HGNetV2": "hgnetv2_"}.get(kind, f"{kind.lower()}_")
    words = {"conv-s": "conv_small", "conv-m": "conv_medium"}
    assert name.startswith(f"{family}{words.get(variant, variant)}")


@pytest.mark.parametrize("entry", [entry for entry in ENTRIES if entry.latency_ms], ids=lambda entry: entry.name)
def test_latency_is_that_of_its_page(entry: Entry) -> None:
    """In the row of the model, in the column of our file in ONNX Runtime."""
    page = (ROOT / "docs" / "benchmarks" / entry.benchmark).read_text(encoding="utf-8")
    table = page.split("| model | ONNX Runtime theirs | ours |")[1].split("\n\n")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]
    (row,) = [row for row in rows if row[0].lower().replace("-fine", "fine") in entry.name]
    assert float(row[2]) == entry.latency_ms


def test_every_published_figure_of_those_families_has_a_name() -> None:
    """A config with a metric of the authors' checkpoint is a config that people look for in the zoo."""
    named = {entry.config for entry in ENTRIES}
    for config in shipped_configs():
        results = model_of_metafile(config).get("Results", [])
        if any("checkpoint" in result.get("Source", "") for result in results):
            assert config in named


def test_rows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EFFTASKS_CACHE", str(tmp_path))
    rows = zoo_rows("det")
    assert rows[0] | {"config": "", "url": ""} == {
        "name": "dfine-n-coco",
        "task": "det",
        "published": "box AP 42.8",
        "data": "COCO val2017",
        "params M": 3.74,
        "input": 640,
        "ms": 51.6,
        "license": "Apache-2.0",
        "source": "https://github.com/Peterande/D-FINE",
        "config": "",
        "backbone": None,
        "url": "",
        "MB here": 0.0,
    }
    assert sum(len(zoo_rows(task)) for task in ("det", "semseg", "pose", "backbone")) == len(zoo_rows()) == len(ENTRIES)
    with pytest.raises(UserError, match="--task: got 'dte', expected one of det, semseg, pose, backbone"):
        zoo_rows("dte")
