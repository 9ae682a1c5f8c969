"""A page that runs the model in a browser: the file of the ONNX exporter, and beside it what shows it."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from efftasks.export.exporters import onnx
from efftasks.export.exporters.base import Page, PageOptions
from efftasks.export.page.npm_package import ORT_WEB, cached, check_folder, download
from efftasks.export.page.writing import write_folder, write_single_file
from efftasks.structures.errors import UserError

if TYPE_CHECKING:
    from efftasks.structures.spec import ArtifactSpec

__all__ = ["EXPORTER"]


def _check(spec: ArtifactSpec, options: PageOptions) -> None:
    """Whether there can be a page: before anything is exported."""
    if spec.input.resize == "crop":
        raise UserError(
            f"--backend {EXPORTER.name}: got a model for {spec.task}, expected one that takes whole images: "
            f"{EXPORTER.refuses['simcc']}"
        )
    if spec.decode == "outside":
        raise UserError(
            f"--backend {EXPORTER.name}: got --decode outside, expected inside: the page takes finished predictions"
        )
    _runtime(options)


def _write(path: Path, spec: ArtifactSpec, options: PageOptions) -> Path:
    """Write the page beside a verified file."""
    runtime, names = _runtime(options), tuple(file.name for file in ORT_WEB.files)
    if options.single_file:
        return write_single_file(path.parent, spec, runtime, names)
    return write_folder(path.parent, runtime, names)


def _runtime(options: PageOptions) -> Path:
    """Folder of the runtime's files: the user's, or from npm into the user's cache."""
    if options.runtime is not None:
        return check_folder(options.runtime, ORT_WEB)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "efftasks")
    return cached(cache, ORT_WEB) or download(cache, ORT_WEB)


EXPORTER = replace(
    onnx.EXPORTER,
    name="web",
    branches=False,
    page=Page(_check, _write),
    exits=None,  # the page runs one file, with one input
    refuses={"simcc": "a page runs one model, and a top-down estimator needs the boxes of another"},
)
