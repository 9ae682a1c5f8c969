"""A quick check of the data of a config before training or testing."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import efftasks.compat  # noqa: F401

# isort: split
from mmengine.dist import broadcast_object_list, is_main_process

from efftasks.datasets.check_cache import recall, remember
from efftasks.datasets.findings import Finding
from efftasks.datasets.quick_check import CocoLook, CocoNeeds, judge, look
from efftasks.datasets.quick_check_semantic import quick_check_semantic
from efftasks.linking.data import leaves
from efftasks.linking.declared import declared, needed_annotations
from efftasks.linking.linked import LinkedConfig
from efftasks.linking.links import walk
from efftasks.linking.pixels import range_of
from efftasks.structures.errors import UserError
from efftasks.structures.pixel_range import PixelRange

__all__ = ["precheck", "precheck_together"]


def precheck_together(cfg: LinkedConfig, parts: Sequence[str], logger: Any) -> None:
    """Run :func:`precheck` in the main process, log its warnings, and raise its errors in all processes.

    Args:
        cfg: from :func:`efftasks.config.load_config`.
        parts: data sets to check, of ``train``, ``val`` and ``test``.
        logger: for the warnings.

    Raises:
        UserError: all errors, one sentence each.
    """
    outcome: list[Any] = [None, []]
    if is_main_process():
        try:
            outcome[1] = precheck(cfg, parts)
        except UserError as error:
            outcome[0] = str(error)
    broadcast_object_list(outcome)
    if outcome[0] is not None:
        raise UserError(outcome[0])
    for sentence in outcome[1]:
        logger.warning(sentence)


def precheck(cfg: LinkedConfig, parts: Sequence[str]) -> list[str]:
    """Check the annotations of a config for what its pipelines and metrics need.

    A COCO file of 10,000 images takes two seconds the first time; the result is cached until the file changes. Only a
    few images are read.

    Args:
        cfg: from :func:`efftasks.config.load_config`.
        parts: data sets to check, of ``train``, ``val`` and ``test``.

    Returns:
        The warnings, one sentence each.

    Raises:
        UserError: all errors, one sentence each.
    """
    findings = [finding for part in parts for finding in _check_part(cfg, part)]
    errors = list(dict.fromkeys(finding.message for finding in findings if finding.level == "error"))
    if errors:
        listed = errors[0] if len(errors) == 1 else "; ".join(f"({i}) {error}" for i, error in enumerate(errors, 1))
        raise UserError(f"{listed} (--skip-check goes on without this check)")
    return list(dict.fromkeys(finding.message for finding in findings))


def _check_part(cfg: LinkedConfig, part: str) -> Iterator[Finding]:
    loader = cfg.get(f"{part}_dataloader")
    if not loader or not isinstance(loader["dataset"], Mapping):
        return
    datasets = [dataset for _, dataset in leaves(loader["dataset"])]
    files = [file for leaf in datasets if _annotations(leaf) == "coco" for file in _coco_files(cfg, part, leaf)]
    looks = [_look(file) for file in files]
    if len(datasets) > 1:
        looks = _unused_in_all(looks)
        yield from _missing_in_all(files, looks)
    for file, summary in zip(files, looks):
        needs = replace(file.needs, masks=False, keypoints=False) if len(datasets) > 1 else file.needs
        yield from judge(file.path, file.images, summary, needs)
    label_maps = [leaf for leaf in datasets if _annotations(leaf) == "label maps"]
    yield from quick_check_semantic(label_maps, part == "train", [range_of(leaf) for leaf in label_maps])


def _annotations(part: Mapping[str, Any]) -> Any:
    """What the annotations of a data set or metric are, as its class declares."""
    return declared(part.get("type"), "annotations")


@dataclass(frozen=True)
class _CocoFile:
    """A COCO file to check, and what a config needs of it."""

    path: str
    images: str
    needs: CocoNeeds
    classes: tuple[str, ...] | None
    keypoints: dict[str, Any] | None
    label_maps: str | None  # pattern of their paths, with fields {folder} and {stem}
    pixel_range: PixelRange | None


def _coco_files(cfg: LinkedConfig, part: str, leaf: Mapping[str, Any]) -> list[_CocoFile]:
    """The annotation file of a data set, and that of its metric if it is another file."""
    root = leaf.get("data_root") or ""
    paths = [os.path.join(root, str(leaf.get("ann_file", "")))]
    readers: list[Mapping[str, Any]]
    if part == "train":
        readers = [transform for _, transform in walk(leaf.get("pipeline"))]
    else:
        evaluators = cfg.get(f"{part}_evaluator") or []
        readers = [evaluators] if isinstance(evaluators, Mapping) else list(evaluators)
        files = [metric.get("ann_file") for metric in readers if _annotations(metric) == "coco"]
        paths += [str(file) for file in files if file]
    needed = set().union(*map(needed_annotations, [leaf, *readers]))
    metainfo = leaf.get("metainfo") or {}
    seg_map = leaf.get("seg_map")
    return [
        _CocoFile(
            path=path,
            images=os.path.join(root, (leaf.get("data_prefix") or {}).get("img", "")),
            needs=CocoNeeds(part == "train", "masks" in needed, "keypoints" in needed),
            classes=tuple(metainfo["classes"]) if metainfo.get("classes") else None,
            keypoints=dict(metainfo["keypoints"]) if metainfo.get("keypoints") else None,
            label_maps=None if seg_map is None else os.path.join(root, str(seg_map)),
            pixel_range=range_of(leaf),
        )
        for path in {os.path.normpath(path): path for path in paths}.values()
    ]


def _look(file: _CocoFile) -> CocoLook:
    """The result of :func:`efftasks.datasets.quick_check.look`, from the cache if the files have not changed."""
    files = (file.path, file.images)
    options = dict(asdict(file), needs=[file.needs.masks, file.needs.keypoints])
    cached = recall(files, options)
    if cached is not None:
        return CocoLook(**cached)
    label_map_of = _label_map_path(file.label_maps)
    summary = look(file.path, file.images, file.needs, file.classes, file.keypoints, label_map_of, file.pixel_range)
    faults = (summary.broken, summary.missing, summary.missing_label_maps, summary.unreadable, summary.wrong_sizes)
    # Files with faults are checked again: repairing images in subfolders does not change what the cache compares.
    if not any((*faults, summary.depth_errors, summary.depth_warnings)):
        remember(files, options, asdict(summary))
    return summary


def _label_map_path(pattern: str | None) -> Any:
    if pattern is None:
        return None

    def path_of(name: str) -> Path:
        file = Path(name)
        return Path(pattern.format(folder="/".join(file.parent.parts), stem=file.stem))

    return path_of


def _unused_in_all(looks: Sequence[CocoLook]) -> list[CocoLook]:
    """In concatenated data sets, only classes without objects in any of them are unused."""
    unused = [set(summary.unused_classes) for summary in looks if not summary.broken]
    unused_in_all = set.intersection(*unused) if unused else set()
    return [
        replace(summary, unused_classes=[name for name in summary.unused_classes if name in unused_in_all])
        for summary in looks
    ]


def _missing_in_all(files: Sequence[_CocoFile], looks: Sequence[CocoLook]) -> Iterator[Finding]:
    """In concatenated data sets, at least one must have the masks or keypoints that are needed."""
    for kind in ("masks", "keypoints"):
        counts = [getattr(summary, kind) for file, summary in zip(files, looks) if getattr(file.needs, kind)]
        if counts and not any(counts):
            names = ", ".join(file.path for file in files)
            yield Finding("error", f"{names}: no object of any of these files has {kind}, which this config needs")
