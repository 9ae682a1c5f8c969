"""A quick check of a config's data before the first step of a training or a test."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import efftasks.compat  # noqa: F401

# isort: split
from mmengine.config import Config
from mmengine.dist import broadcast_object_list, is_main_process

from efftasks.datasets.check_cache import recall, remember
from efftasks.datasets.findings import Finding
from efftasks.datasets.pixel_depth import range_of
from efftasks.datasets.quick_check import CocoLook, CocoNeeds, judge, look
from efftasks.datasets.quick_check_semantic import quick_check_semantic
from efftasks.linking.data import leaves
from efftasks.structures.errors import UserError
from efftasks.structures.pixel_range import PixelRange

__all__ = ["precheck", "precheck_together"]

_COCO = ("CocoDetection", "CocoTopDown")
_SEMANTIC = ("SemanticFolder", "CityscapesDataset")
_MASK_FLAGS = ("masks", "with_mask")  # of LoadObjects, and of mmdet's LoadAnnotations
_KEYPOINT_FLAGS = ("keypoints",)


def precheck_together(cfg: Config, parts: Sequence[str], logger: Any) -> None:
    """Check in the first of several processes, log each warning once, and stop all of them at an error.

    Args:
        cfg: from :func:`efftasks.config.load_config`.
        parts: of ``train``, ``val``, ``test``: whose data is checked.
        logger: of the warnings.

    Raises:
        UserError: the errors, a sentence each.
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


def precheck(cfg: Config, parts: Sequence[str]) -> list[str]:
    """Look at the annotations that a config trains on or scores, for what it takes from them.

    A COCO file of 10,000 images takes two seconds, and nothing where it has not changed since. Pictures are not read,
    but for a few.

    Args:
        cfg: from :func:`efftasks.config.load_config`.
        parts: of ``train``, ``val``, ``test``: whose data is checked.

    Returns:
        The warnings, a sentence each.

    Raises:
        UserError: the errors, a sentence each.
    """
    findings = [finding for part in parts for finding in _check_part(cfg, part)]
    errors = list(dict.fromkeys(finding.message for finding in findings if finding.level == "error"))
    if errors:
        listed = errors[0] if len(errors) == 1 else "; ".join(f"({i}) {what}" for i, what in enumerate(errors, start=1))
        raise UserError(f"{listed} (--skip-check goes on without this check)")
    return list(dict.fromkeys(finding.message for finding in findings))


def _check_part(cfg: Config, part: str) -> Iterator[Finding]:
    loader = cfg.get(f"{part}_dataloader")
    if not loader or not isinstance(loader["dataset"], Mapping):
        return
    datasets = [dataset for _, dataset in leaves(loader["dataset"])]
    files = [file for leaf in datasets if _kind(leaf) in _COCO for file in _coco_files(cfg, part, leaf)]
    looks = [_look(file) for file in files]
    if len(datasets) > 1:
        looks = _unused_in_all(looks)
        yield from _lacking_in_all(files, looks)
    for file, found in zip(files, looks):
        needs = replace(file.needs, masks=False, keypoints=False) if len(datasets) > 1 else file.needs
        yield from judge(file.path, file.images, found, needs)
    label_maps = [leaf for leaf in datasets if _kind(leaf) in _SEMANTIC]
    yield from quick_check_semantic(label_maps, part == "train")


def _kind(leaf: Mapping[str, Any]) -> str:
    return str(leaf.get("type")).rpartition(".")[2]


@dataclass(frozen=True)
class _CocoFile:
    """A file to look at, and for what."""

    path: str
    images: str
    needs: CocoNeeds
    classes: tuple[str, ...] | None
    keypoints: dict[str, Any] | None
    label_maps: str | None  # where that of an image is, with fields {folder} and {stem}
    pixel_range: PixelRange | None


def _coco_files(cfg: Config, part: str, leaf: Mapping[str, Any]) -> list[_CocoFile]:
    """That of a data set; and where its metric scores another file, that one too."""
    root = leaf.get("data_root") or ""
    paths = [os.path.join(root, str(leaf.get("ann_file", "")))]
    masks, keypoints = _loads(leaf, _MASK_FLAGS), _loads(leaf, _KEYPOINT_FLAGS)
    if part != "train":
        given = cfg.get(f"{part}_evaluator") or []
        metrics = [m for m in ([given] if isinstance(given, Mapping) else given) if _kind(m) == "CocoMetric"]
        kinds = {kind for metric in metrics for kind in metric.get("kinds", ("bbox",))}
        masks, keypoints = "segm" in kinds, "keypoints" in kinds
        paths += [str(metric["ann_file"]) for metric in metrics if metric.get("ann_file")]
    metainfo = leaf.get("metainfo") or {}
    seg_map = leaf.get("seg_map")
    return [
        _CocoFile(
            path=path,
            images=os.path.join(root, (leaf.get("data_prefix") or {}).get("img", "")),
            needs=CocoNeeds(part == "train", masks, keypoints or _kind(leaf) == "CocoTopDown"),
            classes=tuple(metainfo["classes"]) if metainfo.get("classes") else None,
            keypoints=dict(metainfo["keypoints"]) if metainfo.get("keypoints") else None,
            label_maps=None if seg_map is None else os.path.join(root, str(seg_map)),
            pixel_range=range_of(leaf),
        )
        for path in {os.path.normpath(path): path for path in paths}.values()
    ]


def _loads(leaf: Mapping[str, Any], flags: Sequence[str]) -> bool:
    """Whether a pipeline loads what one of these arguments of its transforms asks for."""
    transforms = [t for t in leaf.get("pipeline") or () if isinstance(t, Mapping)]
    return any(t.get(flag) is True for t in transforms for flag in flags)


def _look(file: _CocoFile) -> CocoLook:
    """As :func:`efftasks.datasets.quick_check.look`, or what it gave before."""
    files = (file.path, file.images)
    options = dict(asdict(file), needs=[file.needs.masks, file.needs.keypoints])
    known = recall(files, options)
    if known is not None:
        return CocoLook(**known)
    place = _label_map(file.label_maps)
    found = look(file.path, file.images, file.needs, file.classes, file.keypoints, place, file.pixel_range)
    faults = (found.broken, found.missing, found.missing_label_maps, found.unreadable, found.wrong_sizes)
    if not any((*faults, found.depth_errors, found.depth_warnings)):
        remember(files, options, asdict(found))  # pictures in subfolders may be mended without leaving a trace here
    return found


def _label_map(pattern: str | None) -> Any:
    if pattern is None:
        return None

    def place(name: str) -> Path:
        file = Path(name)
        return Path(pattern.format(folder="/".join(file.parent.parts), stem=file.stem))

    return place


def _unused_in_all(looks: Sequence[CocoLook]) -> list[CocoLook]:
    """A class that another data set of a mixture has objects of is not unused."""
    unused = [set(found.unused_classes) for found in looks if not found.broken]
    in_none = set.intersection(*unused) if unused else set()
    return [
        replace(found, unused_classes=[name for name in found.unused_classes if name in in_none]) for found in looks
    ]


def _lacking_in_all(files: Sequence[_CocoFile], looks: Sequence[CocoLook]) -> Iterator[Finding]:
    """In a mixture a file may lack masks or keypoints, but not each of them."""
    for what in ("masks", "keypoints"):
        numbers = [getattr(found, what) for file, found in zip(files, looks) if getattr(file.needs, what)]
        if numbers and not any(numbers):
            names = ", ".join(file.path for file in files)
            yield Finding("error", f"{names}: no object of any of these files has {what}, which this config needs")
