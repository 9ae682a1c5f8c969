"""The quick check of label maps and images of a config's data sets."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from efftasks.datasets.findings import Finding
from efftasks.datasets.pixel_depth import quick_check_range
from efftasks.datasets.quick_check_labels import SECONDS, pair_labels, quick_check_pairs
from efftasks.datasets.semantic_files import Pair
from efftasks.structures.errors import UserError
from efftasks.structures.pixel_range import PixelRange

__all__ = ["quick_check_semantic"]


class _LabelScheme(NamedTuple):
    """Classes and their numbers in label maps, as a config states them."""

    classes: tuple[str, ...]
    values: tuple[int, ...] | None
    ignore: int | None


def quick_check_semantic(
    datasets: Sequence[Mapping[str, Any]],
    training: bool,
    pixel_ranges: Sequence[PixelRange | None] | None = None,
    seconds: float = SECONDS,
) -> list[Finding]:
    """Check data sets together; a class that occurs in one of them is not missing.

    Args:
        datasets: linked configs of SemanticFolder or mmseg's data sets; those without label maps or class names are
            skipped.
        training: whether the data is trained on; otherwise it is scored.
        pixel_ranges: of each data set, with which its images are read; None if none states one.
        seconds: time for reading label maps.

    Returns:
        The findings, errors first.
    """
    findings: list[Finding] = []
    groups: dict[_LabelScheme, list[tuple[str, list[Pair]]]] = {}
    for dataset, pixel_range in zip(datasets, pixel_ranges or [None] * len(datasets), strict=True):
        prefix, root = dataset.get("data_prefix") or {}, dataset.get("data_root") or ""
        classes = tuple((dataset.get("metainfo") or {}).get("classes") or ())
        if not classes or not prefix.get("img_path") or not prefix.get("seg_map_path"):
            continue
        images, labels = (Path(root, prefix[name]) for name in ("img_path", "seg_map_path"))
        try:
            pairs, unpaired = pair_labels(
                images, labels, dataset.get("img_suffix") or "", dataset.get("seg_map_suffix") or ""
            )
        except UserError as error:
            findings.append(Finding("error", str(error)))
            continue
        findings += unpaired
        groups.setdefault(_label_scheme(dataset, classes), []).append((str(labels), pairs))
        findings += quick_check_range([pair.image for pair in pairs], pixel_range)
    for scheme, parts in groups.items():
        place = os.path.commonpath([labels for labels, _ in parts]) if len(parts) > 1 else parts[0][0]
        pooled = [pair for _, pairs in parts for pair in pairs]
        try:
            findings += quick_check_pairs(
                pooled, place, scheme.classes, scheme.ignore, training, scheme.values, seconds
            )
        except UserError as error:
            findings.append(Finding("error", str(error)))
    return sorted(findings, key=lambda finding: finding.level != "error")


def _label_scheme(dataset: Mapping[str, Any], classes: tuple[str, ...]) -> _LabelScheme:
    metainfo = dataset["metainfo"]
    values = metainfo.get("label_values")
    if dataset.get("reduce_zero_label"):
        return _LabelScheme(classes, tuple(range(1, len(classes) + 1)), 0)
    return _LabelScheme(classes, tuple(values) if isinstance(values, (list, tuple)) else values, metainfo.get("ignore"))
