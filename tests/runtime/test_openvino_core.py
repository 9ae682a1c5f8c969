"""OpenVINO changes the stack that signals of a thread are handled on, and frees it with its core."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

CODE = """
import os, signal, sys
from efftasks.runtime.artifact import Artifact
first, second = Artifact(sys.argv[1], "openvino"), Artifact(sys.argv[1], "openvino")
del first  # before the one that came after it
del second
signal.signal(signal.SIGCHLD, lambda *arguments: None)  # data loaders of PyTorch have such a handler
child = os.fork()
if child == 0:
    os._exit(0)
os.waitpid(child, 0)
print("alive")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="has no such signals")
def test_a_process_outlives_the_files_that_it_ran(write_sized: Callable[..., Path], tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    path = write_sized(tmp_path / "model.onnx", 64)
    done = subprocess.run([sys.executable, "-c", CODE, str(path)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr
