"""What the site is made of: the Markdown of each page, where its links lead, and the navigation; without mkdocs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from tools.docs.api import api_pages
from tools.docs.families import TASKS, Family, families, family_page, overview
from tools.docs.links import (
    ROOT,
    can_be_shown,
    is_external,
    links,
    path_in_repository,
    place_of,
    rewrite,
    source_page,
)

OF_THE_ROOT = {"README.md": "index.md", "CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}
FAMILIES, API = "families/index.md", "api/index.md"  # the entries of the navigation that become sections


class Notebook(NamedTuple):
    """A tutorial: its page, and the file to download."""

    page: str
    file: str


class Sources:
    """The sources of the site: Markdown by place, and where the repository's files are in it.

    Args:
        notebooks: script of a tutorial -> its notebook.
    """

    def __init__(self, notebooks: Mapping[Path, Notebook]) -> None:
        self.generated: dict[str, str] = {}  # place -> Markdown, or a notebook
        self.origin: dict[str, str] = {}  # place -> path in the repository, against which its links are read
        self.places: dict[str, str] = {}  # path in the repository -> place
        for file in sorted((ROOT / "docs").rglob("*")):
            if file.is_file() and file.suffix != ".py":
                self.add(file.relative_to(ROOT / "docs").as_posix(), file.relative_to(ROOT).as_posix())
        for path, place in OF_THE_ROOT.items():
            self.add(place, path, (ROOT / path).read_text(encoding="utf-8"))
        self.families = families()
        benchmarks = {
            file.relative_to(ROOT).as_posix(): file.read_text(encoding="utf-8")
            for file in sorted((ROOT / "docs" / "benchmarks").glob("*_*.md"))
        }
        for family in self.families:
            self.add(self.place_of_family(family), f"{family.folder}/README.md", family_page(family, benchmarks))
        pages = {self.place_of_family(family).removeprefix("families/"): family for family in self.families}
        self.generated[FAMILIES] = overview(pages)
        self.api = {f"api/{name}.md": page for name, page in api_pages()}
        self.generated |= self.api
        rows = "\n".join(f"- [{PurePosixPath(place).stem}]({PurePosixPath(place).name})" for place in self.api)
        self.generated[API] = f"# API reference\n\nThe public names of each package, from their docstrings.\n\n{rows}\n"
        for script, notebook in notebooks.items():
            place = f"tutorials/notebooks/{script.stem}"
            self.add(f"{place}.md", script.relative_to(ROOT).as_posix(), notebook.page)
            self.generated[f"{place}.ipynb"] = notebook.file
        self.add_linked_files()

    def add(self, place: str, path: str, text: str | None = None) -> None:
        """Have a file of the repository at a place."""
        self.origin[place] = path
        self.places[path] = place
        if text is not None:
            self.generated[place] = text

    def place_of_family(self, family: Family) -> str:
        """``configs/det/dfine`` -> ``families/dfine.md``."""
        return f"families/{PurePosixPath(family.folder).name}.md"

    def text(self, place: str) -> str:
        """The Markdown of a page."""
        return self.generated.get(place) or (ROOT / "docs" / place).read_text(encoding="utf-8")

    def add_linked_files(self) -> None:
        """Pages that show the other files of the repository which pages link to."""
        for place, source in list(self.origin.items()):
            if place.endswith(".md"):
                for target in links(self.text(place)):
                    path = path_in_repository(target, source)
                    if not is_external(target) and place_of(path, self.places) is None and can_be_shown(ROOT / path):
                        self.add(f"source/{path}.md", path, source_page(path))

    def rewritten(self, markdown: str, place: str) -> str:
        """The Markdown of a page with its links as the site needs them."""
        source = self.origin.get(place)
        if source is None or place.startswith("source/"):
            return markdown
        return rewrite(markdown, source, place, self.places)


def navigation(entries: Any, sources: Sources) -> Any:
    """The navigation without pages that do not exist (yet); a test demands that every page of docs/ is in it."""
    if isinstance(entries, list):
        kept = (navigation(entry, sources) for entry in entries)
        return [entry for entry in kept if entry]
    if isinstance(entries, dict):
        kept_items = {title: navigation(value, sources) for title, value in entries.items()}
        return {title: value for title, value in kept_items.items() if value}
    if entries == FAMILIES:
        sections = {
            task: [{family.name: sources.place_of_family(family)} for family in sources.families if family.task == task]
            for task in TASKS.values()
        }
        return [FAMILIES, *({task: pages} for task, pages in sections.items() if pages)]
    if entries == API:
        return [API, *({PurePosixPath(place).stem: place} for place in sources.api)]
    return entries if entries in sources.generated or (ROOT / "docs" / entries).is_file() else None
