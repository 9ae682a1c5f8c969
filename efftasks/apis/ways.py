"""Networks that take one of several ways, as the images say: who can write them, and the verification of each way."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from efftasks.apis.building import fuse
from efftasks.apis.formats import suffix_of
from efftasks.apis.verifying import verify
from efftasks.export.exporters.base import Exporter
from efftasks.export.exporters.table import EXPORTERS
from efftasks.export.verify import JointReport, Report
from efftasks.structures.errors import UserError
from efftasks.structures.protocols import Branches
from efftasks.structures.spec import ArtifactSpec

__all__ = ["check_branches", "joined", "verify_ways"]

_IMAGES = 4  # for each way: the file itself is verified on all


def check_branches(model: Any, exporter: Exporter, precision: str) -> None:
    """Whether the ways of a model can be written.

    Raises:
        UserError: the exporter's files have one way only, or the precision is another than float32.
    """
    ways = _ways(model)
    if not ways:
        return
    reason = f"the network decides between {' and '.join(ways)} for each image"
    if not exporter.branches:
        able = ", ".join(name for name, other in EXPORTERS.items() if other.branches)
        raise UserError(
            f"--backend {exporter.name}: {reason}, expected one of {able}; for others give the number of queries "
            "with --cfg-options model.head.selection.num_queries=N model.head.selection.few_queries=None"
        )
    if precision != "fp32":
        raise UserError(f"--precision: got {precision!r}, expected 'fp32': {reason}, and converters skip such parts")


def verify_ways(
    model: Any, spec: ArtifactSpec, folder: Path, exporter: Exporter, entries: Sequence[dict[str, Any]], opset: int
) -> dict[str, Report]:
    """Verify each way with a file that has all of them and always takes this one, whatever the images say.

    Args:
        model: it stays as it is.
        spec: of the file, with an input of floats.
        folder: for the files.
        exporter: that writes them.
        entries: what there is to verify on.
        opset: of ONNX.

    Returns:
        A report for each way; none for a model that always does the same.
    """
    reports = {}
    for i, way in enumerate(_ways(model)):
        forced = copy.deepcopy(model)
        for part in _parts(forced):
            part.force(way)
        path = folder / f"way{i}{suffix_of(exporter)}"
        exporter.export(fuse(forced), spec, path, opset=opset)
        spec.save(path.with_suffix(".json"))
        reports[way] = verify(forced, path, spec, entries[:_IMAGES], exporter.backend)
    return reports


def joined(report: Report, ways: dict[str, Report]) -> Report:
    """The report of a file and those of its ways as one."""
    return JointReport({"artifact": report, **ways}) if ways else report


def _parts(model: Any) -> list[Any]:
    return [part for part in model.modules() if isinstance(part, Branches) and part.ways]


def _ways(model: Any) -> tuple[str, ...]:
    return tuple(dict.fromkeys(way for part in _parts(model) for way in part.ways))
