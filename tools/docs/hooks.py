"""What mkdocs calls while it builds the site: pages from outside of docs/, their links, and the navigation.

The pages of docs/ stay as they are. README, changelog and contributing come from the root of the repository; the pages
of families, the API reference and the notebooks are generated; files of the repository that a page links to are shown
on pages of their own.
"""

from __future__ import annotations

import sys
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # mkdocs loads this file by its path

from tools.docs.api import api_pages
from tools.docs.families import TASKS, families, family_page, overview
from tools.docs.links import can_be_shown, is_external, links, path_in_repository, place_of, rewrite, source_page
from tools.docs.notebooks import notebook_page, to_notebook, tutorials

OF_THE_ROOT = {"README.md": "index.md", "CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}
FAMILIES, API = "families/index.md", "api/index.md"  # the entries of the navigation that become sections


class Sources:
    """The sources of the site: Markdown by place, and where the repository's files are in it."""

    def __init__(self) -> None:
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
        for script in tutorials():
            place = f"tutorials/notebooks/{script.stem}"
            self.add(f"{place}.md", script.relative_to(ROOT).as_posix(), notebook_page(script))
            self.generated[f"{place}.ipynb"] = to_notebook(script)
        self.add_linked_files()

    def add(self, place: str, path: str, text: str | None = None) -> None:
        """Have a file of the repository at a place."""
        self.origin[place] = path
        self.places[path] = place
        if text is not None:
            self.generated[place] = text

    def place_of_family(self, family: Any) -> str:
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

    def page(self, place: str) -> str:
        """The Markdown of a page as the site has it."""
        if place in self.origin and not place.startswith("source/"):
            return rewrite(self.text(place), self.origin[place], place, self.places)
        return self.text(place)


_sources: list[Sources] = []  # of the build that runs; mkdocs keeps this module between the builds of `mkdocs serve`


def existing(entries: Any, sources: Sources) -> Any:
    """The navigation without pages that do not exist (yet); a test demands that every page of docs/ is in it."""
    if isinstance(entries, list):
        kept = (existing(entry, sources) for entry in entries)
        return [entry for entry in kept if entry]
    if isinstance(entries, dict):
        kept_items = {title: existing(value, sources) for title, value in entries.items()}
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


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Read the sources anew, and fill the navigation."""
    _sources[:] = [Sources()]
    config.nav = existing(config.nav, _sources[0])
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what is not in docs/."""
    for place, text in _sources[0].generated.items():
        hidden = place.startswith("source/")
        inclusion = InclusionLevel.NOT_IN_NAV if hidden else InclusionLevel.UNDEFINED
        files.append(File.generated(config, place, content=text, inclusion=inclusion))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The links of a page as the site needs them; a title in front matter has been read by then."""
    place = page.file.src_uri
    source = _sources[0].origin.get(place)
    if source is None or place.startswith("source/"):
        return markdown
    return rewrite(markdown, source, place, _sources[0].places)
