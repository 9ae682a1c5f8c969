"""Pages of the repository as pages of the site: links that work in both, and lists as both read them."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from urllib.parse import unquote

ROOT = Path(__file__).resolve().parents[2]
LINK = re.compile(r"(?<=\]\()(?P<target>[^)\s]+)(?=[^)\n]*\))|(?<=src=\")(?P<image>[^\"]+)(?=\")")
FENCE = re.compile(r"^ *(```+|~~~+)")


def outside_of_code(markdown: str, change: Callable[[str], str]) -> str:
    """Change the lines of a page that are not in fenced blocks, and there what is not in backticks."""
    lines, fence = [], ""
    for line in markdown.split("\n"):
        mark = FENCE.match(line)
        if mark and not fence:
            fence = mark[1]
        elif mark and mark[1].startswith(fence):
            fence = ""
        elif not fence:
            parts = re.split(r"(`[^`]*`)", line)
            line = "".join(part if i % 2 else change(part) for i, part in enumerate(parts))
        lines.append(line)
    return "\n".join(lines)


def links(markdown: str) -> Iterator[str]:
    """Targets of the links and pictures of a page, as they are written."""
    targets: list[str] = []

    def keep(text: str) -> str:
        targets.extend(match[0] for match in LINK.finditer(text))
        return text

    outside_of_code(markdown, keep)
    yield from targets


def is_external(target: str) -> bool:
    """Whether a link leads out of the repository: it has a scheme."""
    return re.match(r"[a-z][a-z0-9+.-]*:", target) is not None


def path_in_repository(target: str, source: str) -> str:
    """What a relative link of a file leads to, from the root of the repository; the file itself if it is an anchor."""
    path = unquote(target.partition("#")[0])
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), path)) if path else source


def place_of(path: str, places: Mapping[str, str]) -> str | None:
    """Where the site has a file of the repository; for a folder, its README."""
    return places.get(path) or places.get(posixpath.normpath(f"{path}/README.md"))


def rewrite(markdown: str, source: str, place: str, places: Mapping[str, str]) -> str:
    """The Markdown of a page with its links as the site needs them.

    Args:
        markdown: the page as the repository has it.
        source: its path in the repository.
        place: its path in the site's sources.
        places: path in the repository -> path in the site's sources, of everything that the site has.

    Raises:
        ValueError: a link leads to what the site does not have.
    """

    def new_link(match: re.Match[str]) -> str:
        target = match[0]
        if is_external(target):
            return target
        path = path_in_repository(target, source)
        where = place_of(path, places)
        if where is None:
            raise ValueError(f"{source}: {target} leads to {path}, which the site does not have")
        anchor = target.partition("#")[1:]
        return posixpath.relpath(where, posixpath.dirname(place) or ".") + "".join(anchor)

    nested = re.sub(r"^  (?=[-*] )", "    ", markdown, flags=re.MULTILINE)  # Python-Markdown nests by four spaces
    return outside_of_code(nested, lambda text: LINK.sub(new_link, text))


def can_be_shown(path: Path) -> bool:
    """Whether a file or folder of the repository can be a page."""
    return path.is_dir() or (
        path.is_file() and path.suffix in {".py", ".yml", ".json", ".toml", ".txt", ".md", ".sh", ""}
    )


def source_page(path: str) -> str:
    """A page that shows a file of the repository, or the names in a folder."""
    file = ROOT / path
    hidden = "---\nsearch:\n  exclude: true\n---\n"
    if file.is_dir():
        names = sorted(inner.name for inner in file.iterdir() if not inner.name.startswith(("_", ".")))
        return f"{hidden}# {file.name}\n\nThe folder `{path}`:\n\n" + "\n".join(f"- `{name}`" for name in names) + "\n"
    text = file.read_text(encoding="utf-8")
    language = {".py": "python", ".yml": "yaml", ".json": "json"}.get(file.suffix, "text")
    fence = "`" * max(3, max(map(len, re.findall(r"`+", text)), default=0) + 1)
    return f"{hidden}# {file.name}\n\n`{path}`\n\n{fence}{language}\n{text.rstrip()}\n{fence}\n"
