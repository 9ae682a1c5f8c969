"""Parts of pages, read back with the parser of the standard library."""

from __future__ import annotations

import base64
from html.parser import HTMLParser

import pytest
from matplotlib.figure import Figure

from efftasks.reports import page

NASTY = "<script>&\"'"


class Parsed(HTMLParser):
    """The texts, and the attributes of each tag, in order; fails where tags are not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def test_everything_is_escaped() -> None:
    pictures = [page.Picture("a b.png", NASTY)]
    body = [
        page.cards({NASTY: NASTY}),
        page.section(NASTY, page.table([NASTY], [[NASTY]]), page.paragraph(NASTY, NASTY), page.preformatted(NASTY)),
        page.section("pictures", page.gallery(pictures), page.figure("x.svg", NASTY, NASTY)),
    ]
    parsed = Parsed(page.page(NASTY, NASTY, body, NASTY))
    assert parsed.all("script") == []
    assert parsed.texts.count(NASTY) == 14
    assert [(img["src"], img["alt"]) for img in parsed.all("img")] == [("a b.png", NASTY), ("x.svg", NASTY)]


def test_links_to_sections_lead_to_them() -> None:
    body = [page.section("One & two", page.paragraph("text")), page.section("Nothing"), page.section("Three", "", "x")]
    parsed = Parsed(page.page("title", "lead", body, contents=True))
    assert [a["href"] for a in parsed.all("a")] == ["#one-two", "#three"]
    assert [h2["id"] for h2 in parsed.all("h2")] == ["one-two", "three"]
    assert Parsed(page.page("title", "lead", body)).all("a") == []


def test_cells_keep_their_values_for_sorting() -> None:
    rows = [["a", 1 / 3, 7, None], ["b", float("nan"), 80, 0.5]]
    parsed = Parsed(page.page("t", "l", [page.table(["name", "x", "n", "y"], rows, sortable=True)]))
    cells = parsed.all("td")
    assert [cell.get("data-value") for cell in cells] == [None, repr(1 / 3), None, "", None, "", None, "0.5"]
    assert [th.get("class") for th in parsed.all("th")] == [None, "number", "number", "number"]
    assert "0.3333" in parsed.texts and "80" in parsed.texts and "nan" not in parsed.texts
    assert len(parsed.all("script")) == 1
    assert not {"src", "href"} & {key for _, attributes in parsed.tags for key in attributes}


def test_data_uris_hold_the_bytes() -> None:
    kind, _, text = page.data_uri(b"\x00\xffabc", "image/png").partition(";base64,")
    assert kind == "data:image/png" and base64.b64decode(text) == b"\x00\xffabc"


def test_figures_have_no_background_and_are_the_same_text_each_time() -> None:
    def drawn() -> str:
        figure = Figure(figsize=(2, 2))
        axes = figure.subplots()
        axes.plot([0, 1], [1, 0], label="a line", color="#112233")
        axes.set(title="title", xlabel="x")
        axes.legend()
        return page.figure_uri(figure)

    uri = drawn()
    svg = base64.b64decode(uri.removeprefix("data:image/svg+xml;base64,")).decode()
    assert "<svg" in svg and "#112233" in svg and page.FIGURE_COLOR in svg
    assert "fill: #ffffff" not in svg
    assert drawn() == uri


@pytest.mark.parametrize("size", ["", "small", "wide"])
def test_galleries(size: str) -> None:
    assert page.gallery([], size) == ""
    (grid,) = Parsed(page.gallery([page.Picture("a", "b")], size)).all("div")
    assert grid["class"] == f"pictures {size}".strip()
