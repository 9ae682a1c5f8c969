"""The documentation site: its navigation, the pages of families and of the API, and that it builds."""

from __future__ import annotations

import importlib
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from efftasks.apis import shipped_configs
from efftasks.cli.main import parse_args
from tools.docs.api import api_pages
from tools.docs.check_site import faults
from tools.docs.docstring_roles import without_roles
from tools.docs.families import Family, families, family_page, tables, to_table
from tools.docs.sources import API, FAMILIES, OF_THE_ROOT, Notebook, Sources, navigation

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
SCRIPTS = sorted((DOCS / "tutorials").glob("*.py"))
BENCHMARKS = {
    file.relative_to(ROOT).as_posix(): file.read_text(encoding="utf-8") for file in DOCS.glob("benchmarks/*_*.md")
}


class Settings(yaml.SafeLoader):
    """Reads mkdocs.yml, whose tags name Python functions."""


Settings.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: suffix)


@pytest.fixture(scope="module")
def sources() -> Sources:
    return Sources({script: Notebook("# A notebook\n", "{}") for script in SCRIPTS})


def listed_navigation() -> Any:
    return yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), Settings)["nav"]


def places(entries: Any) -> Iterator[str]:
    """The pages of a navigation."""
    if isinstance(entries, str):
        yield entries
    else:
        for entry in entries.values() if isinstance(entries, dict) else entries:
            yield from places(entry)


def test_every_page_is_in_the_navigation(sources: Sources) -> None:
    pages = {file.relative_to(DOCS).as_posix() for file in DOCS.rglob("*.md")}
    pages |= {f"tutorials/notebooks/{script.stem}.md" for script in SCRIPTS} | set(OF_THE_ROOT.values())
    listed = list(places(listed_navigation()))
    assert len(set(listed)) == len(listed)
    assert pages - set(listed) == set(), "name the page in the navigation, in mkdocs.yml"
    shown = list(places(navigation(listed_navigation(), sources)))
    assert set(shown) >= pages | set(sources.api) | {API, FAMILIES}
    assert len(set(shown)) == len(shown)


def test_the_navigation_leaves_out_what_is_not_there(sources: Sources) -> None:
    assert navigation([{"A": "export.md"}, {"B": [{"C": "no_such_page.md"}]}], sources) == [{"A": "export.md"}]


def test_every_link_of_every_page_leads_into_the_site(sources: Sources) -> None:
    for place in sources.origin:
        if place.endswith(".md"):
            sources.rewritten(sources.text(place), place)  # raises where one does not
    assert len(sources.families) == len(list(ROOT.glob("configs/*/*/metafile.yml"))) >= 30


@pytest.mark.parametrize("family", families(), ids=lambda family: family.folder)
def test_a_family_has_a_page(family: Family) -> None:
    page = family_page(family, BENCHMARKS)
    models = family.metafile["Models"]
    linked = dict(re.findall(r"^\| \[`([^`]+)`\]\(([^)]+)\)", page, re.MULTILINE))
    assert set(linked) == {model["Name"] for model in models} <= set(shipped_configs())
    assert all((ROOT / family.folder / target).is_file() for target in linked.values())
    (rows,) = (rows for columns, rows, text in tables(page) if "`](" in text and columns[0] == "config")
    for row, model in zip(rows, models):
        assert str(model["Metadata"]["Input Size"]) in row
        assert model["Metadata"]["Parameters (M)"] in [float(cell) for cell in row if re.fullmatch(r"[\d.]+", cell)]
        for result in model.get("Results", []):
            assert any(f"{name} {value}" in row[-1] for name, value in result["Metrics"].items())
    paper = family.metafile["Collections"][0].get("Paper")
    assert paper is None or f"]({paper['URL']})" in page


@pytest.mark.parametrize("family", families(), ids=lambda family: family.folder)
def test_a_family_has_commands_that_parse(family: Family) -> None:
    page = family_page(family, BENCHMARKS)
    blocks = re.findall(r"```bash\n(.*?)```", page, re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines() if line]
    named = [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("efftasks")]
    expected = {"train"} if family.task == "Compression" else {"train", "test", "export"}
    assert {words[0] for words in named} >= expected
    for words in named:
        parse_args(words)


def test_a_page_by_hand() -> None:
    metafile = {
        "Collections": [{"Name": "Net", "License": "MIT", "Paper": {"Title": "A net", "URL": "https://x.org/1"}}],
        "Models": [
            {
                "Name": "net-n_a_1xb8-9e_custom-64",
                "Config": "configs/det/net/net-n_a_1xb8-9e_custom-64.py",
                "Metadata": {"Parameters (M)": 1.5, "Input Size": 64},
                "Results": [{"Dataset": "COCO", "Metrics": {"box AP": 30.1}, "Source": "the authors"}],
            }
        ],
    }
    readme = "# Net\n\nWhat it is.\n\n| config | data | parameters M |\n|---|---|---|\n"
    readme += "| `net-n_a_1xb8-9e_custom-64` | yours | 1.5 |\n\nMore.\n"
    benchmarks = {
        "docs/benchmarks/a_1.md": "# Times\n\n| model | p50 ms |\n|---|---|\n| net-n, COCO | 3.5 |\n| net-nano | 9 |\n",
        "docs/benchmarks/b_1.md": "# No times\n\n| model | AP |\n|---|---|\n| net-n | 30 |\n",
    }
    page = family_page(Family("configs/det/net", metafile, readme), benchmarks)
    assert page.startswith(
        "# Net\n\n- Paper: [A net](https://x.org/1)\n- License of this implementation: MIT\n\nWhat it is."
    )
    link = "[`net-n_a_1xb8-9e_custom-64`](net-n_a_1xb8-9e_custom-64.py)"
    assert f"| {link} | yours | 64 | 1.50 | box AP 30.1 on COCO (1) |" in page
    assert "Source of the results: (1) the authors." in page and "\n\nMore.\n" in page
    assert (
        "efftasks train net-n_a_1xb8-9e_custom-64 --work-dir work_dirs/mine --cfg-options data_root=data/mine" in page
    )
    assert "[Times](../../../docs/benchmarks/a_1.md)" in page and "| net-n, COCO | 3.5 |" in page
    assert "net-nano" not in page and "No times" not in page


def test_empty_columns_are_left_out() -> None:
    assert to_table(["a", "b", "c"], [["1", "", "2"], ["3", "", ""]]) == "| a | c |\n| --- | --- |\n| 1 | 2 |\n| 3 |  |"


def test_the_api_reference_has_every_public_package() -> None:
    pages = dict(api_pages())
    names = [name for page in pages.values() for name in re.findall(r"^::: (\S+)$", page, re.MULTILINE)]
    assert len(set(names)) == len(names), "an object has one place"
    for name in names:
        module, _, attribute = name.rpartition(".")
        if name not in sys.modules:
            assert hasattr(importlib.import_module(module), attribute) or importlib.import_module(name)
    apis = importlib.import_module("efftasks.apis")
    assert {name.rpartition(".")[2] for name in re.findall(r"efftasks\.[\w.]+", pages["efftasks.apis"])} >= set(
        apis.__all__
    )
    assert {"efftasks", "efftasks.runtime", "efftasks.models.backbones", "efftasks.config"} <= set(pages)
    assert not any(name.startswith("efftasks.cli") for name in pages)


def test_roles_of_docstrings_are_links() -> None:
    text = "See :func:`efftasks.apis.train` and :class:`Prediction`, ``code``."
    assert without_roles(text) == (
        'See <autoref identifier="efftasks.apis.train" optional>`train`</autoref> and '
        '<autoref identifier="Prediction" optional>`Prediction`</autoref>, ``code``.'
    )


@pytest.mark.slow
def test_the_site_builds_and_its_links_lead_somewhere(tmp_path: Path) -> None:
    for name in ("mkdocs", "mkdocstrings", "jupytext"):
        pytest.importorskip(name, reason="efftasks[docs] is not installed")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    assert faults(tmp_path) == []
    for page in ("index", "families/dfine", "api/efftasks.apis", "tutorials/notebooks/first_hour", "benchmarks/index"):
        assert (tmp_path / f"{page}.html").is_file()
    index = (tmp_path / "search" / "search_index.json").read_text(encoding="utf-8")
    assert "families/dfine.html" in index and "source/" not in index
