"""What can be exported with what, as Markdown tables: ``efftasks export --list``, and the docs. Needs no PyTorch."""

from __future__ import annotations

from efftasks.apis.export_settings import NO_EXIT
from efftasks.bench.table import Footnotes, to_markdown
from efftasks.export.exporters.base import Exporter
from efftasks.export.exporters.table import EXPORTERS
from efftasks.export.families import FAMILIES
from efftasks.runtime.backends.table import BACKENDS

__all__ = ["exporters_table", "families_table", "missing_here"]


def exporters_table() -> str:
    """A row for each exporter: what it writes, what verifies it, and what installs both."""
    rows = [
        {
            "--backend": exporter.name,
            "files": ", ".join(BACKENDS[exporter.backend].files),
            "--precision": ", ".join(exporter.precisions),
            "batch and size": "one image of one size" if exporter.fixed_size else "any",
            "decoder": "in the runtime" if exporter.undecoded else "in the file",
            "--exit": ", ".join((*_exit_forms(exporter), NO_EXIT)),
            "verified in": exporter.backend,
            "pip install": f"efftasks[{exporter.extra}]",
        }
        for exporter in EXPORTERS.values()
    ]
    return to_markdown(rows, list(rows[0]))


def _exit_forms(exporter: Exporter) -> tuple[str, ...]:
    """How it writes early exits in its default precision."""
    return () if exporter.exits is None else exporter.exits.forms[exporter.precisions[0]]


def families_table() -> str:
    """A row for each family of models, a column for each exporter; the reasons of those that are refused below."""
    notes = Footnotes()
    rows = []
    for family in FAMILIES.values():
        row = {"family": family.name, "task": family.task}
        for exporter in EXPORTERS.values():
            reason = exporter.refuses.get(family.name)
            row[exporter.name] = notes.mark("yes" if reason is None else "no", reason)
        rows.append(row)
    return f"{to_markdown(rows, list(rows[0]))}\n\n{notes}"


def missing_here() -> tuple[str, ...]:
    """A sentence for each exporter that cannot run in this Python."""
    return tuple(_missing(exporter) for exporter in EXPORTERS.values() if not exporter.available)


def _missing(exporter: Exporter) -> str:
    return f"--backend {exporter.name} needs {' and '.join(exporter.missing)}: pip install 'efftasks[{exporter.extra}]'"
