"""Run the steps of the Dockerfile in a new environment, where there is no Docker, and predict with it.

    python tests/dockerfile_steps.py [--python python3.12] FOLDER [ARGUMENT ...]

COPY copies what .dockerignore leaves, RUN lines with pip run in the environment, and those of the system (apt-get,
useradd) are printed. Then the entry point runs with ``--version`` and, if there are any, with the arguments.
"""

from __future__ import annotations

import argparse
import fnmatch
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]


class Step(NamedTuple):
    """An instruction, such as RUN, and what stands after it in one line."""

    name: str
    rest: str


def read_steps(text: str) -> list[Step]:
    """The instructions of a Dockerfile, without comments, with continued lines joined."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ").splitlines()
    return [Step(name, " ".join(rest.split())) for name, _, rest in (line.strip().partition(" ") for line in joined)]


def commands(steps: list[Step]) -> Iterator[list[str]]:
    """The commands of RUN, split at ``&&`` into words."""
    for step in steps:
        if step.name == "RUN":
            yield from (shlex.split(part) for part in step.rest.split("&&"))


def copy_context(target: Path) -> None:
    """Copy the tree as ``COPY .`` does, without what .dockerignore names."""
    patterns = [
        line for line in (ROOT / ".dockerignore").read_text().splitlines() if line.strip() and not line.startswith("#")
    ]

    def ignored(folder: str, names: list[str]) -> set[str]:
        parent = Path(folder).relative_to(ROOT)
        return {
            name
            for name in names
            if any(
                fnmatch.fnmatch(name if pattern.startswith("**/") else str(parent / name), pattern.removeprefix("**/"))
                for pattern in patterns
            )
        }

    shutil.copytree(ROOT, target, ignore=ignored)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="is made")
    parser.add_argument("--python", default="python3")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="of efftasks")
    args = parser.parse_args()
    folder = args.folder.resolve()
    folder.mkdir(parents=True)
    sources, programs = folder / "efftasks", folder / "venv" / "bin"
    copy_context(sources)
    subprocess.run([args.python, "-m", "venv", str(folder / "venv")], check=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment = {**kept, "PATH": f"{programs}:{kept['PATH']}", "PYTHONNOUSERSITE": "1"}
    steps = read_steps((ROOT / "Dockerfile").read_text(encoding="utf-8"))
    for words in commands(steps):
        if words[0] == "pip":
            print("running:", shlex.join(words), flush=True)
            subprocess.run([str(programs / words[0]), *words[1:]], check=True, cwd=sources, env=environment)
        else:
            print("of the system, not run:", shlex.join(words), flush=True)
    (entry,) = (step.rest for step in steps if step.name == "ENTRYPOINT")
    program = str(programs / entry.strip('[]"'))
    for arguments in (["--version"], args.arguments):
        if arguments:
            print("running:", shlex.join([program, *arguments]), flush=True)
            subprocess.run([program, *arguments], check=True, cwd=folder, env=environment)


if __name__ == "__main__":
    main()
