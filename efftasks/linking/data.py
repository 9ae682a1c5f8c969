"""Links `data_root`, classes and keypoints, of the config or the annotations, to data sets, heads and metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from efftasks.datasets.coco import match_classes, read_coco
from efftasks.datasets.coco_keypoints import category_keypoints
from efftasks.datasets.semantic_files import ClassList, read_classes
from efftasks.linking.declared import declared
from efftasks.linking.links import Links, Place, walk
from efftasks.structures.errors import UserError
from efftasks.structures.keypoints import KeypointMetadata, keypoint_metadata

__all__ = [
    "DERIVED",
    "LOADERS",
    "METAINFO",
    "describe_missing",
    "leaves",
    "link_classes",
    "link_data_root",
    "metainfo_arguments",
]

LOADERS = ("train_dataloader", "val_dataloader", "test_dataloader")
DERIVED = ("classes", "palette", "ignore", "label_values", "keypoints")  # top-level keys that annotations may fill
METAINFO = ("classes", "palette", "ignore", "label_values", "keypoints", "semantic_classes", "semantic_palette")
_HEADS = ("head", "decode_head")


def leaves(dataset: Any, place: Place = ()) -> Iterator[tuple[Place, Any]]:
    """The configs of the data sets inside wrappers and concatenations, each with its place."""
    if "dataset" in dataset:
        yield from leaves(dataset["dataset"], (*place, "dataset"))
    elif "datasets" in dataset:
        for i, part in enumerate(dataset["datasets"]):
            yield from leaves(part, (*place, "datasets", i))
    else:
        yield place, dataset


def link_data_root(cfg: Config, links: Links) -> None:
    """Fill ``data_root`` of data sets and ``ann_file`` of metrics where they are None."""
    if cfg.get("data_root") is not None:
        for place, dataset in _datasets(cfg):
            if dataset.get("data_root") is None:
                links.fill((*place, "data_root"), cfg.data_root, "data_root")
    for part in ("val", "test"):
        evaluators = cfg.get(f"{part}_evaluator") or []
        loader = cfg.get(f"{part}_dataloader")
        is_single = isinstance(evaluators, dict)
        for i, evaluator in enumerate([evaluators] if is_single else evaluators):
            if loader and "ann_file" in evaluator and evaluator["ann_file"] is None:
                place = (f"{part}_evaluator",) if is_single else (f"{part}_evaluator", i)
                dataset = next(leaves(loader["dataset"]))[1]
                if dataset.get("ann_file"):
                    links.fill((*place, "ann_file"), _under_root(dataset, dataset["ann_file"]), "data_root")


def link_classes(cfg: Config, links: Links) -> None:
    """Fill the classes and their metainfo. Where the config states none, they are read from the training annotations.

    If those do not exist either, the values stay None: a checkpoint may bring them, see :func:`describe_missing`.

    Raises:
        UserError: the annotations exist but cannot be used, or contradict the config.
    """
    _link_semantic_classes(cfg, links)
    _link_label_values(cfg, links)
    metainfo = _stated_metainfo(cfg)
    if metainfo is None:
        path = _class_source(cfg)
        if path is None or not path.is_file():
            return
        metainfo = _read_metainfo(cfg, path)
    for name in ("classes", "palette", "ignore", "label_values"):
        if cfg.get(name) is None and name in metainfo:
            links.fill((name,), metainfo[name], "data_root")
    classes = metainfo["classes"]
    keypoints = _keypoints(cfg)
    if keypoints is not None and keypoints.to_dict() != cfg.get("keypoints"):
        links.fill(("keypoints",), keypoints.to_dict(), "keypoints")
    metainfo.update({name: cfg[name] for name in METAINFO if cfg.get(name) is not None})
    for place, dataset in _datasets(cfg):
        if dataset.get("metainfo") is None:
            links.fill((*place, "metainfo"), dict(metainfo), "classes")
    _check_num_classes(cfg, classes)
    for place in _open_places(cfg, "num_classes"):
        links.fill(place, len(classes), "classes")
    if keypoints is not None:
        for place in _open_places(cfg, "sigmas"):
            links.fill(place, list(keypoints.sigmas), "keypoints")


def describe_missing(cfg: Config) -> str | None:
    """Why no model can be built of a linked config: the missing metainfo and its source. None if one can be built."""
    missing = [name for name, key in (("classes", "num_classes"), ("keypoints", "sigmas")) if _open_places(cfg, key)]
    if not missing:
        return None
    path = _class_source(cfg)
    if path is None:
        return f"{missing[0]}: the config states none, and has no training data to take them from"
    state = f"has no {missing[0]}" if path.is_file() else "cannot be read (no such file)"
    return f"{path}: {state}, and the config takes its {missing[0]} from it; give data_root, or state {missing[0]}"


def metainfo_arguments(part: Mapping[str, Any], key: str) -> list[str]:
    """The arguments of a model's part that take ``num_classes`` or ``sigmas``: by name, or as its class declares."""
    linked = declared(part.get("type"), "linked_metainfo")
    return [argument for argument in part if linked.get(argument, argument) == key]


def _open_places(cfg: Config, key: str) -> list[Place]:
    """The arguments that take a value and are None; an auxiliary head may state another number of classes."""
    parts = walk(cfg.model, ("model",))
    return [(*place, name) for place, part in parts for name in metainfo_arguments(part, key) if part[name] is None]


def _datasets(cfg: Config) -> list[tuple[Place, Any]]:
    loaders = [name for name in LOADERS if cfg.get(name) and cfg[name].get("dataset")]
    return [leaf for name in loaders for leaf in leaves(cfg[name]["dataset"], (name, "dataset"))]


def _under_root(dataset: Any, path: str) -> str:
    return str(Path(dataset.get("data_root") or "", path))


def _link_semantic_classes(cfg: Config, links: Links) -> None:
    """Fill the number of classes of a semantic head that a detector has."""
    head = cfg.get("model", {}).get("semantic_head")
    if cfg.get("semantic_classes") and head and head.get("num_classes") is None:
        links.fill(("model", "semantic_head", "num_classes"), len(cfg.semantic_classes), "semantic_classes")


def _check_num_classes(cfg: Config, classes: tuple[str, ...]) -> None:
    for name in _HEADS:
        count = (cfg.model.get(name) or {}).get("num_classes")
        if count not in (None, len(classes)):
            raise UserError(
                f"model.{name}.num_classes: got {count}, expected {len(classes)}, the number of classes {classes}"
            )


def _link_label_values(cfg: Config, links: Links) -> None:
    """Fill ``label_values`` and ``ignore`` of the config into data sets that state a ``metainfo``.

    Raises:
        UserError: a data set is one of mmseg's, whose values are fixed, or states other values.
    """
    for key in ("label_values", "ignore"):
        stated = cfg.get(key)
        if stated is None:
            continue
        for place, dataset in _datasets(cfg):
            if key not in declared(dataset.get("type"), "linked_values"):
                raise UserError(
                    f"{key}: got {stated!r} for {dataset.type}, which does not take it; expected a SemanticFolder"
                )
            metainfo = dataset.get("metainfo")
            if metainfo is None:
                continue
            value = metainfo.get(key)
            if value is None:
                links.fill((*place, "metainfo", key), stated, key)
            elif _as_tuple(value) != _as_tuple(stated):
                raise UserError(
                    f"{key}: got {stated!r}, but metainfo.{key} of a data set is {value!r}, expected one of them"
                )


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _stated_metainfo(cfg: Config) -> dict[str, Any] | None:
    """The classes that the config or the ``metainfo`` of its training data states, with their metainfo; or None."""
    if cfg.get("classes"):
        return {**_class_file_metainfo(cfg, tuple(cfg.classes)), "classes": tuple(cfg.classes)}
    if not cfg.get("train_dataloader"):
        return None
    metainfo = dict(next(leaves(cfg.train_dataloader["dataset"]))[1].get("metainfo") or {})
    return dict(metainfo, classes=tuple(metainfo["classes"])) if metainfo.get("classes") else None


def _class_source(cfg: Config) -> Path | None:
    """The file that states the classes of the training data."""
    if not cfg.get("train_dataloader"):
        return None
    dataset = next(leaves(cfg.train_dataloader["dataset"]))[1]
    return Path(_under_root(dataset, dataset.get("ann_file") or "classes.json"))


def _read_metainfo(cfg: Config, path: Path) -> dict[str, Any]:
    if next(leaves(cfg.train_dataloader["dataset"]))[1].get("ann_file"):
        return dict(classes=tuple(match_classes(path, read_coco(path)["categories"], None)))
    return _class_list_metainfo(read_classes(path))


def _class_list_metainfo(listed: ClassList) -> dict[str, Any]:
    """A list of classes as metainfo of a data set."""
    metainfo = dict(classes=listed.names, palette=listed.palette, ignore=listed.ignore, label_values=listed.values)
    return {key: value for key, value in metainfo.items() if value is not None}


def _class_file_metainfo(cfg: Config, names: tuple[str, ...]) -> dict[str, Any]:
    """The metainfo in the class file of the training data; empty if there is none, or its classes are others."""
    if not cfg.get("train_dataloader"):
        return {}
    dataset = next(leaves(cfg.train_dataloader["dataset"]))[1]
    name = declared(dataset.get("type"), "class_file")
    path = Path(_under_root(dataset, name or ""))
    if not name or not path.is_file():
        return {}
    listed = read_classes(path)
    return _class_list_metainfo(listed) if listed.names == names else {}


def _keypoints(cfg: Config) -> KeypointMetadata | None:
    """The config's keypoints, completed from the training annotations; None if no head needs them or neither has them.

    Raises:
        UserError: the annotations exist but have no keypoints.
    """
    stated = cfg.get("keypoints") or {}
    if not _open_places(cfg, "sigmas"):
        return None
    if stated.get("names"):
        return keypoint_metadata(stated)
    path = _class_source(cfg)
    if path is None or not path.is_file():
        return None
    used = [category for category in read_coco(path)["categories"] if category["name"] in (cfg.get("classes") or ())]
    metadata = category_keypoints(path, used, stated)
    if metadata is None:
        raise UserError(f"{path}: no category has keypoints; expected some, or `keypoints.names` in the config")
    return metadata
