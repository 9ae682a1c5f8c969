"""Links of pages as the site needs them, and the check of the built site."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.docs.check_site import Fault, faults
from tools.docs.links import links, rewrite, source_page

PLACES = {
    "README.md": "index.md",
    "docs/export.md": "export.md",
    "docs/images/a.jpg": "images/a.jpg",
    "docs/runtimes/README.md": "runtimes/README.md",
    "configs/det/o2o/README.md": "families/o2o.md",
    "configs/det/o2o/x.py": "source/configs/det/o2o/x.py.md",
}


@pytest.mark.parametrize(
    ("source", "place", "written", "expected"),
    [
        ("docs/export.md", "export.md", "[a](../README.md)", "[a](index.md)"),
        ("docs/export.md", "export.md", "[a](runtimes/README.md#x-y)", "[a](runtimes/README.md#x-y)"),
        ("docs/runtimes/README.md", "runtimes/README.md", "[`a`](../export.md)", "[`a`](../export.md)"),
        ("docs/export.md", "export.md", "[a](../configs/det/o2o/README.md)", "[a](families/o2o.md)"),
        ("README.md", "index.md", "[a](docs/runtimes)", "[a](runtimes/README.md)"),
        ("README.md", "index.md", "![a](docs/images/a.jpg)", "![a](images/a.jpg)"),
        ("README.md", "index.md", '<img src="docs/images/a.jpg">', '<img src="images/a.jpg">'),
        ("configs/det/o2o/README.md", "families/o2o.md", "[a](x.py)", "[a](../source/configs/det/o2o/x.py.md)"),
        ("docs/export.md", "export.md", "[a](#here)", "[a](export.md#here)"),
        ("docs/export.md", "export.md", "[a](https://x.org/README.md)", "[a](https://x.org/README.md)"),
        ("docs/export.md", "export.md", "`[a](../README.md)`", "`[a](../README.md)`"),
        ("docs/export.md", "export.md", "```\n[a](../README.md)\n```", "```\n[a](../README.md)\n```"),
        ("docs/export.md", "export.md", "- a\n  - b", "- a\n    - b"),
    ],
)
def test_links_lead_to_the_same_place(source: str, place: str, written: str, expected: str) -> None:
    assert rewrite(written, source, place, PLACES) == expected


def test_a_link_out_of_the_site_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"docs/export\.md: \.\./setup\.py leads to setup\.py"):
        rewrite("[a](../setup.py)", "docs/export.md", "export.md", PLACES)


def test_links_in_code_are_none() -> None:
    assert list(links("[a](b.md) `[c](d.md)`\n\n~~~\n[e](f.md)\n~~~\n[g](h.md)")) == ["b.md", "h.md"]


def test_a_page_shows_a_file_or_a_folder() -> None:
    page = source_page("setup.py")
    assert "# setup.py" in page and "```python\n" in page and (Path("setup.py").name in page)
    assert "- `check_site.py`" in source_page("tools/docs")


def test_the_check_of_a_site_sees_what_is_broken(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "index.html").write_text('<a href="../a.html#x">x</a>')
    (tmp_path / "a.html").write_text(
        '<h1 id="x">x</h1> <a href="b/">b</a> <a href="#x">x</a> <a href="https://y.org/z">z</a> <a href="#y">y</a>'
        '<a href="c.html">c</a> <a href="b/index.html#no">no</a> <img src="p.png"> <script src="//y.org/s.js"></script>'
    )
    assert faults(tmp_path) == [
        Fault("a.html", "//y.org/s.js", "loaded from the network"),
        Fault("a.html", "#y", "no such anchor"),
        Fault("a.html", "c.html", "no such file"),
        Fault("a.html", "b/index.html#no", "no such anchor"),
        Fault("a.html", "p.png", "no such file"),
    ]
