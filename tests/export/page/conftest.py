"""Runs the JavaScript of the page under node."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ASSETS = Path(__file__).resolve().parents[3] / "efftasks" / "export" / "page" / "assets"

RunJs = Callable[[str, Any], Any]


@pytest.fixture(scope="session")
def run_js(tmp_path_factory: pytest.TempPathFactory) -> RunJs:
    """Run a body of JavaScript: it has ``input``, may import modules of the page, and returns what JSON can hold."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    folder = tmp_path_factory.mktemp("page")
    shutil.copytree(ASSETS / "js", folder / "js")
    (folder / "package.json").write_text('{"type": "module"}')  # a browser takes them for modules by themselves

    def run(body: str, data: Any) -> Any:
        script = (
            'import { readFileSync } from "node:fs";\n'
            'const input = JSON.parse(readFileSync(0, "utf8"));\n'
            f"const result = await (async () => {{ {body} }})();\n"
            "const plain = (_, value) => ArrayBuffer.isView(value) ? Array.from(value) : value;\n"
            "console.log(JSON.stringify(result, plain));\n"
        )
        command = [node, "--input-type=module", "-e", script]
        done = subprocess.run(command, input=json.dumps(data), capture_output=True, text=True, cwd=folder, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run
