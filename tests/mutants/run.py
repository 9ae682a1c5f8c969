"""Break one line at a time and see whether a test notices: ``make mutants``.

The tree is copied to a temporary folder. There each mutant of ``mutants.yml`` replaces one piece of text in one file,
and the test files named with it run, without the slow ones. A mutant that they do not notice survives: a test is
missing.
"""

from __future__ import annotations

import argparse
import importlib
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT = -1
OUTCOMES = {0: "SURVIVED", 1: "killed", TIMEOUT: "TIMEOUT"}
COPIED = ("configs", "docs", "efftasks", "requirements", "tests", "tools")
PRELOADED = (
    "efftasks.compat",
    "mmdet.models",
    "mmseg.models",
    "mmengine.runner",
    "scipy.optimize",
    "onnx",
    "onnxruntime",
)


class Mutant(NamedTuple):
    """One behavior broken."""

    name: str
    file: str  # below efftasks/
    old: str  # occurs once in the file
    new: str
    tests: tuple[str, ...]  # files below tests/ that must notice


class Result(NamedTuple):
    """What became of a mutant."""

    mutant: Mutant
    outcome: str  # of OUTCOMES, or BROKEN: the tests did not run
    seconds: float
    by: str  # the test that failed first


def read_mutants() -> list[Mutant]:
    """The list; ``tests`` has several files in a row."""
    rows = yaml.safe_load(Path(__file__).with_name("mutants.yml").read_text(encoding="utf-8"))
    return [Mutant(**{**row, "tests": tuple(row["tests"].split())}) for row in rows]


def copy_tree(folder: Path) -> None:
    """What tests need of the project."""
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, folder)
    for name in COPIED:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))


def preload(folder: Path) -> None:
    """Import what tests need and no mutant touches, once: it takes longer than most tests."""
    sys.path.insert(0, str(folder))
    for name in PRELOADED:
        importlib.import_module(name)


def run_tests(folder: Path, tests: Iterable[str], timeout: float) -> tuple[int, float, str]:
    """(pytest's exit code, or TIMEOUT; seconds; the first test that failed)."""
    options = ["-x", "-q", "-rfE", "--no-header", "-m", "not slow", *(f"tests/{name}" for name in tests)]
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as output:
        child = multiprocessing.get_context("fork").Process(target=_pytest, args=(folder, options, output.fileno()))
        child.start()
        child.join(timeout)
        seconds = time.perf_counter() - start
        if child.is_alive():
            child.kill()
            child.join()
            return TIMEOUT, seconds, f"more than {timeout:g} s"
        output.seek(0)
        text = output.read()
    lines = [line for line in text.splitlines() if line.startswith(("FAILED ", "ERROR "))]
    first = lines[0].split(" ", 1)[1].split(" - ")[0] if lines else ""
    if child.exitcode not in (0, 1):
        print(text[-3000:])
    return child.exitcode or 0, seconds, first


def _pytest(folder: Path, options: list[str], output: int) -> None:
    os.chdir(folder)
    for stream in (1, 2):
        os.dup2(output, stream)
    sys.stdout, sys.stderr = (os.fdopen(stream, "w", buffering=1, closefd=False) for stream in (1, 2))
    code = int(pytest.main(options))
    sys.stdout.flush()
    os._exit(code)  # what the parent has imported is not to be torn down here


def try_mutant(folder: Path, mutant: Mutant, timeout: float) -> Result:
    """Break the copy, run the tests, mend it."""
    file = folder / "efftasks" / mutant.file
    text = file.read_text(encoding="utf-8")
    if text.count(mutant.old) != 1:
        raise SystemExit(f"{mutant.name}: {mutant.file} has {mutant.old!r} {text.count(mutant.old)} times, expected 1")
    file.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
    try:
        code, seconds, first = run_tests(folder, mutant.tests, timeout)
    finally:
        file.write_text(text, encoding="utf-8")
    return Result(mutant, OUTCOMES.get(code, "BROKEN"), seconds, first)


def table(results: Sequence[Result]) -> str:
    """As Markdown."""
    rows = ["| package | mutant | outcome | s | by |", "|---|---|---|---|---|"]
    for result in results:
        package = result.mutant.file.rpartition("/")[0] or result.mutant.file
        by = f"`{result.by.split('[')[0].rpartition('::')[2]}`" if result.by else ""
        rows.append(f"| `{package}` | {result.mutant.name} | {result.outcome} | {result.seconds:.0f} | {by} |")
    return "\n".join(rows) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the chosen mutants; 1 where one survived or could not be tried."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("only", nargs="*", help="parts of names or files of mutants; default: all")
    parser.add_argument("--list", action="store_true", help="print the names and stop")
    parser.add_argument("--no-baseline", action="store_true", help="do not run the tests on the unbroken copy first")
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds for the tests of one mutant")
    parser.add_argument("--out", type=Path, help="write the table here, as Markdown")
    args = parser.parse_args(arguments)
    chosen = [m for m in read_mutants() if not args.only or any(part in m.name or part in m.file for part in args.only)]
    if args.list or not chosen:
        print(*(f"{mutant.name:45} {mutant.file}" for mutant in chosen), sep="\n")
        return 0 if chosen else 2
    # A compiled file counts as up to date for a second: none is written, here and in what tests start.
    sys.dont_write_bytecode = True
    os.environ.update(PYTHONDONTWRITEBYTECODE="1")
    results = []
    with tempfile.TemporaryDirectory(prefix="mutants-") as name:
        folder = Path(name)
        copy_tree(folder)
        os.environ["PYTHONPATH"] = str(folder)
        preload(folder)
        if not args.no_baseline:
            code, seconds, first = run_tests(folder, sorted({t for m in chosen for t in m.tests}), timeout=3600)
            print(f"unbroken: {'passed' if code == 0 else f'FAILED {first}'} in {seconds:.0f} s", flush=True)
            if code != 0:
                return 1
        for mutant in chosen:
            results.append(try_mutant(folder, mutant, args.timeout))
            _, outcome, seconds, by = results[-1]
            print(f"{outcome:8} {seconds:6.1f} s  {mutant.name:45} {by}", flush=True)
    alive = [result for result in results if result.outcome != "killed"]
    print(f"{len(results) - len(alive)} of {len(results)} killed in {sum(r.seconds for r in results):.0f} s")
    if args.out is not None:
        args.out.write_text(table(results), encoding="utf-8")
    return 1 if alive else 0


if __name__ == "__main__":
    sys.exit(main())
