"""Work in a new process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from efftasks.bench.engines import file_call
from efftasks.bench.processes import in_new_process
from efftasks.structures.errors import UserError, WorkError

ROOT = Path(__file__).resolve().parents[2]


def test_the_result_comes_back_from_another_process(capfd: pytest.CaptureFixture[str]) -> None:
    assert in_new_process("sum", sum, [1, 2, 3]) == 6
    assert in_new_process("pid", os.getpid) not in (os.getpid(), os.getppid())
    assert in_new_process("path", os.path.abspath, "x") == os.path.abspath("x")
    assert in_new_process("print", print, "noise") is None
    assert in_new_process("write", os.write, 1, b"noise") == 5
    assert "noise" not in "".join(capfd.readouterr())


def test_errors_come_back_and_a_process_that_ends_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.onnx: no such file"):
        in_new_process("file", file_call, "onnxruntime", str(tmp_path / "none.onnx"), (8, 8))
    with pytest.raises(WorkError, match=r"exit: the process that measures it ended early \(exit code 7\)"):
        in_new_process("exit", os._exit, 7)


def test_the_last_words_of_a_process_are_in_the_message() -> None:
    program = "import os, sys; print('noise'); print('out of memory', file=sys.stderr, flush=True); os._exit(9)"
    with pytest.raises(WorkError, match=r"exec: .*\(exit code 9\); out of memory$") as error:
        in_new_process("exec", exec, program)
    assert "\n" not in str(error.value)


def test_a_script_without_a_guard_does_not_run_again(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from efftasks.bench.processes import in_new_process\n"
        "print('begins')\n"
        "print(in_new_process('sum', sum, [1, 2]))\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert done.stdout.split() == ["begins", "3"], done.stderr
