"""The documentation cannot rot: links lead somewhere, command lines parse, names and snippets are real."""

from __future__ import annotations

import ast
import importlib
import re
import runpy
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

import pytest

from efftasks.apis import shipped_configs
from efftasks.cli.main import parse_args

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "configs").rglob("*.md")])
SHELL = {"bash", "sh", "shell", "console"}
FOLDERS = "configs|docs|efftasks|requirements|tests|tools"
CONFIG_NAME = re.compile(r"\b[a-z0-9]+-[a-z0-9]+_[a-z0-9-]+_\d+xb\d+-\d+e_[a-z0-9-]+-\d+(?:_[a-z0-9-]+)?\b")


class Block(NamedTuple):
    """A fenced block: its language, its text."""

    language: str
    text: str


def label(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path) -> list[Block]:
    found = re.findall(r"^ *```(\w*)[^\n]*\n(.*?)^ *```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [Block(language, text) for language, text in found]


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return re.sub(r"^ *```.*?^ *```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """The anchors GitHub gives the headings of a page."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ +(.+?) *#*$", prose(page), re.MULTILINE):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        number = sum(1 for other in found if re.fullmatch(rf"{re.escape(slug)}(-\d+)?", other))
        found.add(f"{slug}-{number}" if number else slug)
    return found | set(re.findall(r'<a (?:name|id)="([^"]+)"', page.read_text(encoding="utf-8")))


def commands(page: Path) -> Iterator[list[str]]:
    """Command lines of the shell blocks, as words; comments and what comes after a pipe are left out."""
    for block in blocks(page):
        if block.language in SHELL:
            for line in block.text.replace("\\\n", " ").splitlines():
                words = shlex.split(line.strip().removeprefix("$ "), comments=True)
                yield words[: words.index("|")] if "|" in words else words


def without_environment(words: list[str]) -> list[str]:
    start = next((i for i, word in enumerate(words) if not re.fullmatch(r"[A-Z_]+=.*", word)), len(words))
    return words[start:]


def efftasks_arguments(words: list[str]) -> list[str] | None:
    """What follows the program in a line that runs efftasks in any of its spellings; None for other programs."""
    words = without_environment(words)
    if words[:1] == ["efftasks"]:
        return words[1:]
    for i in range(len(words) - 1):
        if words[i : i + 2] == ["-m", "efftasks"]:
            return words[i + 2 :]
    for i, word in enumerate(words):
        if re.fullmatch(r"tools/\w+\.py", word):
            return [Path(word).stem, *words[i + 1 :]]
    return None


@pytest.mark.parametrize("page", PAGES, ids=label)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"`[^`\n]*`", "", prose(page))
    targets = re.findall(r"\]\(([^)\s]+)(?: \"[^\"]*\")?\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)
    for target in targets:
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = unquote(target).partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{target}: nothing there"
        assert file.is_relative_to(ROOT), f"{target} leads out of the repository"
        if anchor and file.suffix == ".md":
            assert anchor in anchors(file), f"{target}: no such heading; there are {sorted(anchors(file))}"


def parses(arguments: list[str]) -> bool:
    try:
        parse_args(arguments)
    except SystemExit:
        return False
    return True


@pytest.mark.parametrize("page", PAGES, ids=label)
def test_command_lines_parse(page: Path) -> None:
    for words in commands(page):
        arguments = efftasks_arguments(words)
        if not arguments or "--help" in arguments or "-h" in arguments or "--version" in arguments:
            continue
        assert parses(arguments), f"does not parse: efftasks {shlex.join(arguments)}"


@pytest.mark.parametrize("page", PAGES, ids=label)
def test_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    inline = [shlex.split(code) for code in re.findall(r"`(make [^`\n|]+)`", prose(page)) if "..." not in code]
    for words in map(without_environment, [*commands(page), *inline]):
        if words[:1] == ["make"]:
            named = [word for word in words[1:] if "=" not in word and not word.startswith("-")]
            assert set(named) <= targets, f"{shlex.join(words)}: there are {sorted(targets)}"


@pytest.mark.parametrize("page", PAGES, ids=label)
def test_named_configs_exist(page: Path) -> None:
    named = set(CONFIG_NAME.findall(page.read_text(encoding="utf-8")))
    assert named <= set(shipped_configs())


@pytest.mark.parametrize("page", PAGES, ids=label)
def test_named_files_exist(page: Path) -> None:
    if page.name == "CHANGELOG.md":
        return  # tells of files that are gone
    named = re.findall(rf"`((?:{FOLDERS})/[\w./-]+)`", prose(page))
    missing = [name for name in named if not (ROOT / name).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=label)
def test_python_snippets_import_what_exists(page: Path) -> None:
    for block in blocks(page):
        if block.language not in ("python", "py"):
            continue
        for node in ast.walk(ast.parse(block.text)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "efftasks":
                module = importlib.import_module(node.module or "")
                assert all(hasattr(module, alias.name) for alias in node.names), ast.unparse(node)


def extension_points() -> list[list[str]]:
    """The rows of "Where things go" in CONTRIBUTING: what to add, an example, its registration, where it is named."""
    section = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("## Where things go")[1].split("\n## ")[0]
    rows = [row for row in section.splitlines() if re.match(r"\| an? ", row)]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def test_a_newcomer_finds_the_place_of_everything() -> None:
    kinds = {row[0].split(" ", 1)[1] for row in extension_points()}
    models = {"backbone", "loss", "transform", "metric", "compression step"}
    assert kinds == models | {"runtime", "exporter", "data format"}


@pytest.mark.parametrize(("kind", "example", "registered", "named"), extension_points())
def test_the_place_is_as_described(kind: str, example: str, registered: str, named: str) -> None:
    file = Path(example.strip("`"))
    assert registered.strip("`") in (ROOT / file).read_text(encoding="utf-8")
    if "register_module" in registered:
        module = ".".join(file.with_suffix("").parts[1:])
        assert f'"{module}"' in (ROOT / "efftasks" / "registry.py").read_text(encoding="utf-8").replace("efftasks.", "")
    table = re.fullmatch(r"`(\w+)` in `([\w./]+)`", named)
    if table is not None:
        text = (ROOT / table[2]).read_text(encoding="utf-8")
        definition = re.search(rf"^{table[1]}\b", text, re.MULTILINE)
        assert definition is not None
        assert file.stem.removeprefix("convert_") in text[definition.start() :].casefold()


def test_readme_starts_with_the_two_commands() -> None:
    readme = ROOT / "README.md"
    if not readme.exists():
        pytest.skip("no README.md yet")
    first = [words for words in commands(readme) if words][:2]
    assert first == [["make", "quickstart"], ["make", "test"]]


def test_the_table_of_the_distillation_tutorial_is_in_percent() -> None:
    """COCO's AP is in 0..1, mmseg's mIoU in percent already."""
    tutorial = runpy.run_path(str(ROOT / "docs" / "tutorials" / "distillation.py"))
    for name, none, taught in (("bccd", 0.5, 0.525), ("camvid", 50.0, 52.5)):
        results = {key: [tutorial["Result"](value, 60.0)] for key, value in (("none", none), ("all", taught))}
        text = tutorial["table"](tutorial["EXPERIMENTS"][name], tutorial["Result"](taught, 60.0), results)
        assert "| all | 52.5 | 52.5 | 2.5 | 0.0 | 1.0 |" in text and ": 52.5 in 1.0 minutes" in text
