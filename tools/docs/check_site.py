"""Check the built site: links inside lead to files and anchors that exist, and nothing is loaded from the network.

python -m tools.docs.check_site build/site
"""

from __future__ import annotations

import argparse
import posixpath
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}
NOT_LOADED = {"canonical", "next", "prev"}  # values of rel


class Links(HTMLParser):
    """What a page links to, what it loads, and its anchors."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = {"", "__skip"}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep addresses and anchors."""
        values = {name: value for name, value in attrs if value is not None}
        self.anchors |= {values[name] for name in ("id", "name") if name in values and tag != "meta"}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        elif tag in LOADED and LOADED[tag] in values and values.get("rel") not in NOT_LOADED:
            self.loaded.append(values[LOADED[tag]])


class Fault(NamedTuple):
    """A link that leads nowhere."""

    page: str
    target: str
    reason: str


def read_site(site: Path) -> dict[str, Links]:
    """The pages of a site by their path in it."""
    return {
        file.relative_to(site).as_posix(): Links(file.read_text(encoding="utf-8"))
        for file in sorted(site.rglob("*.html"))
        if file.name != "404.html"  # shown at any address, so that its links are absolute
    }


def faults(site: Path) -> list[Fault]:
    """All links and loaded files of a site that do not exist in it."""
    pages = read_site(site)
    result = []
    for page, content in pages.items():
        result += [
            Fault(page, target, "loaded from the network") for target in content.loaded if urlsplit(target).netloc
        ]
        for target in [*content.links, *content.loaded]:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            path = (
                posixpath.normpath(posixpath.join(posixpath.dirname(page), unquote(parts.path))) if parts.path else page
            )
            if parts.path.endswith("/") or (site / path).is_dir():
                path = posixpath.normpath(f"{path}/index.html")
            if not (site / path).is_file():
                result.append(Fault(page, target, "no such file"))
            elif path in pages and unquote(parts.fragment) not in pages[path].anchors:
                result.append(Fault(page, target, "no such anchor"))
    return result


def main() -> int:
    """Print the faults; 1 if there are some."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("site", type=Path)
    site = parser.parse_args().site
    broken = faults(site)
    for fault in broken:
        print(f"{fault.page}: {fault.target}: {fault.reason}", file=sys.stderr)
    pages = read_site(site)
    links = sum(len(page.links) + len(page.loaded) for page in pages.values())
    print(f"{len(pages)} pages, {links} links, {len(broken)} lead nowhere")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
