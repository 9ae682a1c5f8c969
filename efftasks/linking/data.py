"""`data_root`, classes and keypoints: from the top of a config, or the annotations, to data sets, heads and metrics."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config

from efftasks.datasets.coco import match_classes, read_coco
from efftasks.datasets.coco_keypoints import category_keypoints
from efftasks.datasets.semantic_files import ClassList, read_classes
from efftasks.linking.declared import declared, registered
from efftasks.linking.links import Links, Place, walk
from efftasks.structures.errors import UserError
from efftasks.structures.keypoints import KeypointMetadata, keypoint_metadata

__all__ = ["DERIVED", "LOADERS", "METAINFO", "is_open", "leaves", "link_classes", "link_data_root", "open_facts"]

LOADERS = ("train_dataloader", "val_dataloader", "test_dataloader")
DERIVED = ("classes", "palette", "ignore", "label_values", "keypoints")  # top-level keys that the data's files may fill
METAINFO = ("classes", "palette", "ignore", "label_values", "keypoints", "semantic_classes", "semantic_palette")
_HEADS = ("head", "decode_head")


def leaves(dataset: Any, place: Place = ()) -> Iterator[tuple[Place, Any]]:
    """The configs of data sets inside wrappers and mixtures, with their places."""
    if "dataset" in dataset:
        yield from leaves(dataset["dataset"], (*place, "dataset"))
    elif "datasets" in dataset:
        for i, part in enumerate(dataset["datasets"]):
            yield from leaves(part, (*place, "datasets", i))
    else:
        yield place, dataset


def link_data_root(cfg: Config, links: Links) -> None:
    """Fill the data sets' ``data_root``, and the ``ann_file`` of metrics that leave theirs at None."""
    if cfg.get("data_root") is not None:
        for place, dataset in _datasets(cfg):
            if dataset.get("data_root") is None:
                links.fill((*place, "data_root"), cfg.data_root, "data_root")
    for part in ("val", "test"):
        given = cfg.get(f"{part}_evaluator") or []
        loader = cfg.get(f"{part}_dataloader")
        for i, evaluator in enumerate([given] if isinstance(given, dict) else given):
            if loader and "ann_file" in evaluator and evaluator["ann_file"] is None:
                where: Place = (f"{part}_evaluator",) if isinstance(given, dict) else (f"{part}_evaluator", i)
                dataset = next(leaves(loader["dataset"]))[1]
                if dataset.get("ann_file"):
                    links.fill((*where, "ann_file"), _under_root(dataset, dataset["ann_file"]), "data_root")


def link_classes(cfg: Config, links: Links) -> None:
    """Fill classes and what is known beside them; those of the training annotations where the config states none.

    Annotations that are not there leave them open, see :func:`open_facts`: who brings a checkpoint has its classes.

    Raises:
        UserError: the annotations are there and cannot be used, or contradict the config.
    """
    _link_semantic_classes(cfg, links)
    _link_label_values(cfg, links)
    known = _stated_classes(cfg)
    if known is None:
        path = _source_of_classes(cfg)
        if path is None or not path.is_file():
            return
        known = _read_facts(cfg, path)
    for name in ("classes", "palette", "ignore", "label_values"):
        if cfg.get(name) is None and name in known:
            links.fill((name,), known[name], "data_root")
    classes = known["classes"]
    keypoints = _keypoints(cfg)
    if keypoints is not None and keypoints.to_dict() != cfg.get("keypoints"):
        links.fill(("keypoints",), keypoints.to_dict(), "keypoints")
    known.update({name: cfg[name] for name in METAINFO if cfg.get(name) is not None})
    for place, dataset in _datasets(cfg):
        if dataset.get("metainfo") is None:
            links.fill((*place, "metainfo"), dict(known), "classes")
    _check_heads(cfg, classes)
    _fill_open(cfg, links, "num_classes", len(classes), "classes")
    if keypoints is not None:
        _fill_open(cfg, links, "sigmas", list(keypoints.sigmas), "keypoints")


def open_facts(cfg: Config) -> str | None:
    """Why a model cannot be built of a linked config: what is open, and where it was looked for; None where it can."""
    missing = [name for name, key in (("classes", "num_classes"), ("keypoints", "sigmas")) if is_open(cfg.model, key)]
    if not missing:
        return None
    path = _source_of_classes(cfg)
    if path is None:
        return f"{missing[0]}: the config states none, and has no training data to take them from"
    state = f"has no {missing[0]}" if path.is_file() else "cannot be read (no such file)"
    return f"{path}: {state}, and the config takes its {missing[0]} from it; give data_root, or state {missing[0]}"


def is_open(node: Any, key: str) -> bool:
    """Whether some part leaves a value at None."""
    return any(key in part and part[key] is None for _, part in walk(node))


def _datasets(cfg: Config) -> list[tuple[Place, Any]]:
    loaders = [name for name in LOADERS if cfg.get(name) and cfg[name].get("dataset")]
    return [found for name in loaders for found in leaves(cfg[name]["dataset"], (name, "dataset"))]


def _under_root(dataset: Any, path: str) -> str:
    return str(Path(dataset.get("data_root") or "", path))


def _fill_open(cfg: Config, links: Links, key: str, value: Any, source: str) -> None:
    """Give a value to every part of the model that leaves it open; an auxiliary head may count something else."""
    for place, part in walk(cfg.model, ("model",)):
        if key in part and part[key] is None:
            links.fill((*place, key), value, source)


def _link_semantic_classes(cfg: Config, links: Links) -> None:
    """The number of classes of label maps beside objects."""
    head = cfg.get("model", {}).get("semantic_head")
    if cfg.get("semantic_classes") and head and head.get("num_classes") is None:
        links.fill(("model", "semantic_head", "num_classes"), len(cfg.semantic_classes), "semantic_classes")


def _check_heads(cfg: Config, classes: tuple[str, ...]) -> None:
    for name in _HEADS:
        count = (cfg.model.get(name) or {}).get("num_classes")
        if count not in (None, len(classes)):
            raise UserError(
                f"model.{name}.num_classes: got {count}, expected {len(classes)}, the number of classes {classes}"
            )


def _link_label_values(cfg: Config, links: Links) -> None:
    """What the config states about the numbers in label maps, for data sets that have a ``metainfo`` of their own.

    Raises:
        UserError: it is one of mmseg's, which have numbers of their own, or states others itself.
    """
    for key in ("label_values", "ignore"):
        stated = cfg.get(key)
        if stated is None:
            continue
        for place, dataset in _datasets(cfg):
            if registered(dataset.get("type")) is None:
                raise UserError(
                    f"{key}: got {stated!r} for {dataset.type}, which has its own; expected a SemanticFolder"
                )
            metainfo = dataset.get("metainfo")
            if metainfo is None:
                continue
            own = metainfo.get(key)
            if own is None:
                links.fill((*place, "metainfo", key), stated, key)
            elif _plain(own) != _plain(stated):
                raise UserError(
                    f"{key}: got {stated!r}, but metainfo.{key} of a data set is {own!r}, expected one of them"
                )


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _stated_classes(cfg: Config) -> dict[str, Any] | None:
    """Classes of the config or of its training data's ``metainfo``, with what is said of them there."""
    if cfg.get("classes"):
        return {**_facts_of_file(cfg, tuple(cfg.classes)), "classes": tuple(cfg.classes)}
    if not cfg.get("train_dataloader"):
        return None
    metainfo = dict(next(leaves(cfg.train_dataloader["dataset"]))[1].get("metainfo") or {})
    return dict(metainfo, classes=tuple(metainfo["classes"])) if metainfo.get("classes") else None


def _source_of_classes(cfg: Config) -> Path | None:
    """The file with the classes of the training data."""
    if not cfg.get("train_dataloader"):
        return None
    dataset = next(leaves(cfg.train_dataloader["dataset"]))[1]
    return Path(_under_root(dataset, dataset.get("ann_file") or "classes.json"))


def _read_facts(cfg: Config, path: Path) -> dict[str, Any]:
    if next(leaves(cfg.train_dataloader["dataset"]))[1].get("ann_file"):
        return dict(classes=tuple(match_classes(path, read_coco(path)["categories"], None)))
    return _facts(read_classes(path))


def _facts(listed: ClassList) -> dict[str, Any]:
    """What a file states about classes, as metainfo of a data set."""
    facts = dict(classes=listed.names, palette=listed.palette, ignore=listed.ignore, label_values=listed.values)
    return {key: value for key, value in facts.items() if value is not None}


def _facts_of_file(cfg: Config, names: tuple[str, ...]) -> dict[str, Any]:
    """What the file beside the label maps of the training data states, where it is about classes of these names."""
    if not cfg.get("train_dataloader"):
        return {}
    dataset = next(leaves(cfg.train_dataloader["dataset"]))[1]
    name = declared(dataset.get("type"), "class_file")
    path = Path(_under_root(dataset, name or ""))
    if not name or not path.is_file():
        return {}
    listed = read_classes(path)
    return _facts(listed) if listed.names == names else {}


def _keypoints(cfg: Config) -> KeypointMetadata | None:
    """Those of the config, completed by the training data's; None where no head asks for them, or nobody knows them.

    Raises:
        UserError: the annotations are there and have none.
    """
    stated = cfg.get("keypoints") or {}
    if not is_open(cfg.model, "sigmas"):
        return None
    if stated.get("names"):
        return keypoint_metadata(stated)
    path = _source_of_classes(cfg)
    if path is None or not path.is_file():
        return None
    used = [category for category in read_coco(path)["categories"] if category["name"] in (cfg.get("classes") or ())]
    metadata = category_keypoints(path, used, stated)
    if metadata is None:
        raise UserError(f"{path}: no category has keypoints; expected some, or `keypoints.names` in the config")
    return metadata
