"""The list of mutants cannot rot: each breaks a line that is there, and names tests that are."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

TESTS = Path(__file__).resolve().parents[1]
PACKAGES = (
    *("annotations", "apis", "bench", "checkpoints", "cli", "codecs", "datasets", "datasets/transforms", "engine"),
    *("engine/hooks", "evaluation", "export", "imaging", "linking", "models", "models/assigners", "models/backbones"),
    *(
        "models/det_heads",
        "models/guides",
        "models/insseg_heads",
        "models/layers",
        "models/losses",
        "models/pose_heads",
        "ops",
    ),
    *("compression", "compression/quantization", "compression/pruning", "export/quantization", "runtime", "structures"),
)


@pytest.fixture(scope="module")
def runner(module_at: Callable[[Path], ModuleType]) -> ModuleType:
    return module_at(TESTS / "mutants" / "run.py")


def test_each_breaks_one_place_and_names_its_tests(runner: ModuleType) -> None:
    wrong = []
    for mutant in runner.read_mutants():
        file = TESTS.parent / "efftasks" / mutant.file
        count = file.read_text(encoding="utf-8").count(mutant.old) if file.is_file() else 0
        if count != 1 or mutant.old == mutant.new:
            wrong.append(f"{mutant.name}: {mutant.old!r} is {count} times in {mutant.file}, expected once")
        missing = [name for name in mutant.tests if not (TESTS / name.split("::")[0]).is_file()]
        wrong += [f"{mutant.name}: no test file {name}" for name in missing]
    assert wrong == []


def test_there_are_enough_of_every_package(runner: ModuleType) -> None:
    mutants = runner.read_mutants()
    assert len(mutants) >= 60
    names = Counter(mutant.name for mutant in mutants)
    assert [name for name, count in names.items() if count > 1] == []
    assert set(PACKAGES) <= {mutant.file.rpartition("/")[0] for mutant in mutants}


def test_a_mutant_is_killed_by_a_test_that_fails_and_survives_one_that_passes(tmp_path: Path) -> None:
    """On a tree of its own: one mutant that a test notices, one that it does not, and one whose tests do not run."""
    (tmp_path / "efftasks").mkdir()
    (tmp_path / "efftasks" / "sums.py").write_text("A = 1 + 1\nB = 2 + 2\n")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_sums.py").write_text(
        "import runpy\n\n\ndef test_a():\n    assert runpy.run_path('efftasks/sums.py')['A'] == 2\n"
    )
    program = f"""if True:
        import sys
        sys.path.insert(0, {str(TESTS / "mutants")!r})
        from pathlib import Path
        from run import Mutant, try_mutant
        for old, new, test in (
            ("1 + 1", "1 - 1", "test_sums.py"), ("2 + 2", "2 - 2", "test_sums.py"), ("2 + 2", "4", "test_nothing.py"),
            ("3", "4", "test_sums.py"),
        ):
            print(try_mutant(Path("."), Mutant("m", "sums.py", old, new, (test,)), timeout=60).outcome)
    """
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    outcomes = [line for line in done.stdout.splitlines() if line in ("killed", "SURVIVED", "BROKEN")]
    assert outcomes == ["killed", "SURVIVED", "BROKEN"], done.stdout + done.stderr
    assert "'3' 0 times, expected 1" in done.stderr
    assert (tmp_path / "efftasks" / "sums.py").read_text() == "A = 1 + 1\nB = 2 + 2\n"
