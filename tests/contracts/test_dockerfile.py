"""The Dockerfile does what the README says: the same extras, constraints and entry point, and copies what it needs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "Dockerfile").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def dockerfile(module_at: Callable[[Path], ModuleType]) -> ModuleType:
    return module_at(ROOT / "tests" / "dockerfile_steps.py")


@pytest.fixture(scope="module")
def commands(dockerfile: ModuleType) -> list[list[str]]:
    return list(dockerfile.commands(dockerfile.read_steps(TEXT)))


def test_continued_lines_and_comments(dockerfile: ModuleType) -> None:
    text = "# no\nFROM a\nRUN one 'two three' \\\n && four\n"
    assert dockerfile.read_steps(text) == [("FROM", "a"), ("RUN", "one 'two three' && four")]
    assert list(dockerfile.commands(dockerfile.read_steps(text))) == [["one", "two three"], ["four"]]


def test_installs_what_the_readme_and_the_makefile_install(commands: list[list[str]]) -> None:
    (pip,) = (words for words in commands if words[0] == "pip")
    readme = re.findall(r'pip install "\.\[([\w,]+)\]" -c (\S+)', (ROOT / "README.md").read_text())
    (quickstart,) = re.findall(r'-e "\.\[(train,export)\]" -c (\S+)', (ROOT / "Makefile").read_text())
    ((extras,),) = ([re.fullmatch(r"\.\[([\w,]+)\]", word)[1]] for word in pip if word.startswith("."))  # type: ignore[index]
    assert (extras, pip[pip.index("-c") + 1]) == quickstart
    assert readme
    assert set(readme) == {quickstart}
    index = pip[pip.index("--extra-index-url") + 1]
    assert f"--extra-index-url {index}" in (ROOT / "Makefile").read_text()


def test_python_is_a_supported_one() -> None:
    (version,) = re.findall(r"^FROM python:3\.(\d+)-slim-bookworm$", TEXT, re.MULTILINE)
    low, high = re.findall(r'requires-python = ">=3\.(\d+),<3\.(\d+)"', (ROOT / "pyproject.toml").read_text())[0]
    assert int(low) <= int(version) < int(high)


def test_entry_point_is_the_command_and_the_user_is_not_root(dockerfile: ModuleType) -> None:
    steps = dockerfile.read_steps(TEXT)
    (entry,) = (json.loads(step.rest) for step in steps if step.name == "ENTRYPOINT")
    scripts = (ROOT / "pyproject.toml").read_text().partition("[project.scripts]")[2]
    assert [f"{name} = " in scripts for name in entry] == [True]
    names = [step.name for step in steps]
    assert "USER" in names[names.index("RUN") :]
    assert names.index("USER") < names.index("ENTRYPOINT")
    assert all(step.rest != "root" for step in steps if step.name == "USER")


def test_build_context_has_what_the_build_reads(dockerfile: ModuleType, tmp_path: Path) -> None:
    target = tmp_path / "context"
    dockerfile.copy_context(target)
    included = {path.name for path in target.iterdir()}
    assert {
        "pyproject.toml",
        "setup.py",
        "README.md",
        "LICENSE",
        "MANIFEST.in",
        "configs",
        "tools",
        "efftasks",
    } <= included
    assert (target / "requirements" / "constraints.txt").is_file()
    assert not included & {".git", ".venv", "tests", "work_dirs"}
    assert not list(target.rglob("__pycache__"))
    expected = {path.relative_to(ROOT) for path in (ROOT / "efftasks").rglob("*") if "__pycache__" not in path.parts}
    assert expected == {path.relative_to(target) for path in (target / "efftasks").rglob("*")}


def test_libraries_of_opencv_are_installed(commands: list[list[str]]) -> None:
    # The shared libraries that the wheel of opencv-python 4.12 links, is not shipped with, and slim images lack
    # (readelf -d): libGL.so.1, libglib-2.0.so.0 and libgthread-2.0.so.0, in these packages of Debian 12.
    (install,) = (words for words in commands if words[:2] == ["apt-get", "install"])
    assert {word for word in install[2:] if not word.startswith("-")} == {"libgl1", "libglib2.0-0"}
