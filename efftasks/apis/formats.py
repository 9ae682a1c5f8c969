"""What joins exporters and runtimes: the files that one writes and the other reads. Needs no PyTorch."""

from __future__ import annotations

from pathlib import Path

from efftasks.export.exporters.base import Exporter
from efftasks.export.exporters.table import EXPORTERS
from efftasks.runtime.backends.table import BACKENDS
from efftasks.structures.errors import UserError
from efftasks.structures.spec import ArtifactSpec
from efftasks.structures.suffixes import second_part

__all__ = ["exporter_for", "find_exporter", "move_artifact", "parts_of", "suffix_of"]


def find_exporter(name: str, precision: str | None = None) -> Exporter:
    """The exporter of this name, if it can write this precision (None: its default) here.

    Raises:
        UserError: it cannot, or there is none.
    """
    if name not in EXPORTERS:
        raise UserError(f"--backend: got {name!r}, expected one of {', '.join(EXPORTERS)}")
    EXPORTERS[name].check(precision or EXPORTERS[name].precisions[0])
    return EXPORTERS[name]


def suffix_of(exporter: Exporter) -> str:
    """The suffix of the file it writes, with the dot."""
    return BACKENDS[exporter.backend].suffix


def exporter_for(backend: str) -> Exporter:
    """An exporter of files that a runtime reads, of its own ones if there is such an exporter.

    Raises:
        UserError: there is none, or no such runtime.
    """
    if backend not in BACKENDS:
        raise UserError(f"backend: got {backend!r}, expected one of {', '.join(BACKENDS)}")
    reads = BACKENDS[backend].reads
    exporters = sorted(
        (exporter for exporter in EXPORTERS.values() if suffix_of(exporter) in reads),
        key=lambda exporter: reads.index(suffix_of(exporter)),
    )
    if not exporters:
        raise UserError(f"--backend: got {backend!r}, but nothing exports files for it on the way; give it a file")
    exporters[0].check(exporters[0].precisions[0])
    return exporters[0]


def parts_of(path: Path, spec: ArtifactSpec) -> tuple[Path, ...]:
    """The files of an artifact that a runtime opens, the given one first: two of a network that is split at its exit.

    Args:
        path: of the first one.
        spec: its description.
    """
    is_split = spec.early_exit is not None and spec.early_exit.form == "split"
    return (path, second_part(path)) if is_split else (path,)


def move_artifact(source: Path, target: Path, exporter: Exporter, end: str = "") -> Path:
    """Move all files of an artifact in place of those that are there, the one that is opened last.

    Args:
        source: the file that is opened, as the exporter wrote it.
        target: where it is going to be; the others get its stem.
        exporter: that wrote it.
        end: appended to the names of all files, so that no runtime takes them for an artifact.

    Returns:
        The target, with the end.
    """
    for suffix in reversed(BACKENDS[exporter.backend].files):
        source.with_suffix(suffix).replace(f"{target.with_suffix(suffix)}{end}")
    return Path(f"{target}{end}")
