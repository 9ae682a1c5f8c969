"""What mkdocs calls while it builds the site: pages from outside of docs/, their links, and the navigation.

The pages of docs/ stay as they are. README, changelog and contributing come from the root of the repository; the pages
of families, the API reference and the notebooks are generated; files of the repository that a page links to are shown
on pages of their own.
"""

from __future__ import annotations

import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # mkdocs loads this file by its path

from tools.docs.notebooks import notebooks
from tools.docs.sources import Sources, navigation

_sources: list[Sources] = []  # of the build that runs: mkdocs keeps this module between the builds of `mkdocs serve`


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Read the sources anew, and fill the navigation."""
    _sources[:] = [Sources(notebooks())]
    config.nav = navigation(config.nav, _sources[0])
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what is not in docs/."""
    for place, text in _sources[0].generated.items():
        hidden = place.startswith("source/")
        inclusion = InclusionLevel.NOT_IN_NAV if hidden else InclusionLevel.UNDEFINED
        files.append(File.generated(config, place, content=text, inclusion=inclusion))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The links of a page as the site needs them."""
    return _sources[0].rewritten(markdown, page.file.src_uri)
