"""Exported files by name, for what predicts without PyTorch."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import efftasks
from efftasks.structures.errors import UserError, WorkError
from efftasks.zoo.cache import artifact_file
from efftasks.zoo.catalog import find_model, is_name

__all__ = ["artifact_path"]

_LOG = logging.getLogger("efftasks")


def artifact_path(path: str | Path) -> str | Path:
    """The exported file of a name; anything else unchanged.

    The first time it is fetched, converted, exported and verified, by the command in a process of its own: the caller
    stays without PyTorch, and has no memory of it.

    Raises:
        UserError: there is no such name, or PyTorch is not installed.
        WorkError: it could not be fetched, or does not agree with its model.
    """
    if not is_name(path):
        return path
    entry = find_model(str(path))
    file = artifact_file(entry)
    if file.is_file() and file.with_suffix(".json").is_file():
        return file
    # A minute without a word would look like a hang, and what is below a warning is not shown.
    _LOG.warning("%s: it is fetched, converted, exported and verified now, once; that takes a minute", entry.name)
    folder = str(Path(efftasks.__file__).parents[1])
    search = os.pathsep.join(filter(None, (folder, os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-m", "efftasks", "zoo", "get", entry.name, "--export", "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": search})
    try:
        answer = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError) as error:
        raise WorkError(
            f"{entry.name}: the process that converts it ended early (exit code {done.returncode}); run efftasks zoo "
            f"get {entry.name} --export to see why"
        ) from error
    if "error" in answer:
        raise (UserError if done.returncode == 2 else WorkError)(answer["error"])
    return file
