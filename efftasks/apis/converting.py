"""Conversion of published checkpoints: find the config that fits, map every tensor, and name the classes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

import efftasks
from efftasks.apis.building import build
from efftasks.checkpoints.atomic import whole_or_nothing
from efftasks.checkpoints.files import read_checkpoint, weights_of
from efftasks.config import load_config, shipped_configs
from efftasks.datasets.coco import match_classes, read_coco
from efftasks.linking.declared import registered
from efftasks.models.det_heads.query_head import QueryHead
from efftasks.models.pose_heads.detrpose_head import DETRPoseHead
from efftasks.models.published import checkpoint as foreign_files
from efftasks.models.published.rules import Conversion, Layout, convert
from efftasks.structures.errors import UserError

__all__ = ["Published", "read_published", "write_published"]


_Named = tuple[tuple[str, ...], tuple[int, ...], tuple[int, ...]]  # names, category ids, and labels in the file


@dataclass(frozen=True)
class Published:
    """A published checkpoint, mapped to a model of this package."""

    family: str
    file: str
    config: str  # name or path of the config that fits
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    rows: tuple[int, ...]  # label in the file of each class
    class_rows: dict[str, int]  # tensor of the model -> the number of its first rows that belong to classes
    conversion: Conversion
    metainfo: Mapping[str, Any] = field(default_factory=dict)  # of the checkpoint, beside classes and ids


def read_published(
    family: str,
    source: str | Path,
    config: str | None = None,
    categories: str | Path | None = None,
    plain_ids: bool = False,
) -> Published:
    """Read a published checkpoint and find the config that fits.

    Args:
        family: dfine, deim, deimv2, rtdetrv2, detrpose or mmseg.
        source: the authors' ``.pth``, or ``.safetensors`` or ``.bin`` of transformers (its ``config.json`` beside it
            names the classes). The classes of segmentors are those of the config.
        config: path or name of the config; None searches the shipped ones.
        categories: a COCO annotation file whose categories become the classes, matched by id.
        plain_ids: the labels of the file are category ids, as in the authors' code for custom data. This is assumed of
            files that do not have 80 classes.

    Raises:
        UserError: no size of the family fits the file, or its classes are unknown.
    """
    if family not in foreign_files.FAMILIES:
        raise UserError(f"--from: got {family!r}, allowed {', '.join(foreign_files.FAMILIES)}")
    tensors = weights_of(read_checkpoint(source), source)
    tensors, placeholders = foreign_files.without_placeholders(tensors)
    layout = foreign_files.layout_of(tensors, family)
    count = foreign_files.class_count(tensors)
    fit = _best_fit(family, tensors, layout, count, config)
    fit.conversion.unused += placeholders
    if family == foreign_files.MMSEG:
        named = _segmentor_classes(Path(source), count, categories, fit.config)
    elif family == foreign_files.POSE and categories is None:
        named = _pose_classes(Path(source), count, fit.config)
    else:
        named = _classes(Path(source), count, categories, plain_ids)
    cfg = load_config(fit.config)
    metainfo = {"keypoints": cfg.keypoints.to_dict()} if family == foreign_files.POSE else {}
    names, ids, rows = named
    return Published(family, Path(source).name, fit.config, names, ids, rows, fit.class_rows, fit.conversion, metainfo)


def _segmentor_classes(source: Path, count: int, categories: str | Path | None, config: str) -> _Named:
    """The classes of a segmentor are the config's."""
    if categories is not None:
        raise UserError(f"--categories: got {categories}, but label maps have no category ids; leave it out")
    classes = tuple(load_config(config).get("classes") or ())
    if len(classes) != count:
        raise UserError(
            f"{source}: it has {count} classes, and {config} names {len(classes)}; give the config it was trained with "
            "by --config"
        )
    return classes, (), tuple(range(count))


def _pose_classes(source: Path, count: int, config: str) -> _Named:
    """The classes of a pose estimator are the config's, the first ones of COCO; its labels are their ids."""
    classes = tuple(load_config(config).classes)
    ids = foreign_files.COCO_IDS[: len(classes)]
    if count != ids[-1] + 1:
        raise UserError(
            f"{source}: it has labels 0 to {count - 1}, expected 0 to {ids[-1]} for {', '.join(classes)} of {config}; "
            "give a COCO annotation file with its categories by --categories"
        )
    return classes, ids, ids


def write_published(published: Published, out: str | Path, allow_unmapped: bool = False) -> None:
    """Write a published checkpoint as a checkpoint of this package.

    Args:
        published: from :func:`read_published`.
        out: the file to write.
        allow_unmapped: write the file even if tensors are unknown, missing or of another shape.

    Raises:
        UserError: a tensor could not be mapped.
        WorkError: the file could not be written.
    """
    conversion = published.conversion
    if not (conversion.complete or allow_unmapped):
        raise UserError(
            f"{published.file}: not every tensor has its place in {published.config} ({conversion.summary()}; first "
            f"{_first(conversion)}); --list shows all, --allow-unmapped writes it all the same"
        )
    ids = {"category_ids": list(published.category_ids)} if published.category_ids else {}
    meta = dict(
        dataset_meta={**published.metainfo, "classes": list(published.classes), **ids},
        efftasks_version=efftasks.__version__,
        published=dict(family=published.family, file=published.file, config=published.config),
    )
    state = foreign_files.take_rows(conversion.state, published.rows, published.class_rows)
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    with whole_or_nothing(Path(out)) as draft:
        torch.save(dict(state_dict=state, meta=meta), draft)


class _Fit(NamedTuple):
    """A config, the conversion of a checkpoint to its model, and that model's ``class_rows``."""

    config: str
    conversion: Conversion
    class_rows: dict[str, int]


def _best_fit(family: str, tensors: Mapping[str, Tensor], layout: Layout, count: int, config: str | None) -> _Fit:
    """The given config, or the shipped one of the family that all tensors fit."""
    scale = foreign_files.regression_scale(tensors)
    names = [config] if config is not None else _configs_of(family)
    tried: list[tuple[int, _Fit]] = []
    for name in names:
        model = _empty_model(name, count, family)
        conversion = convert(tensors, model.state_dict(), layout)
        class_rows = {}
        if family != foreign_files.MMSEG:
            model_scale = model.head.reg_scale
            if scale is not None and model_scale is not None and model_scale != scale:
                conversion.mismatched.append(f"reg_scale {scale} for {model_scale}")
            class_rows = {f"head.{parameter}": count for parameter in model.head.class_rows()}
        fit = _Fit(name, conversion, class_rows)
        if conversion.complete:
            return fit
        wrong = len(conversion.unknown) + len(conversion.missing) + len(conversion.mismatched)
        tried.append((wrong, fit))
    if config is None and len(tried) > 1:
        tried.sort(key=lambda item: item[0])
        ranked = ", ".join(f"{fit.config} ({wrong} wrong)" for wrong, fit in tried[:3])
        best = tried[0][1].conversion
        raise UserError(
            f"the checkpoint is of no shipped size of {family}; nearest are {ranked}, first {_first(best)}; "
            "give the config it was trained with by --config"
        )
    return tried[0][1]


def _configs_of(family: str) -> list[str]:
    segmentors = family == foreign_files.MMSEG
    families = foreign_files.MMSEG_FAMILIES if segmentors else (family,)
    data = "_cityscapes-" if segmentors else "_coco-"
    return [name for name in shipped_configs() if name.split("-")[0] in families and data in name]


def _empty_model(config: str, count: int, family: str) -> Any:
    """The model of a config with ``count`` classes, on the meta device."""
    cfg = load_config(config, {"classes": [f"class {i}" for i in range(count)]})
    kind = (cfg.model.get("head") or {}).get("type")
    if family == foreign_files.MMSEG:
        if not cfg.model.get("decode_head"):
            raise UserError(f"--config: {config} has no decode_head, expected the config of a segmentor")
    elif not issubclass(registered(kind) or object, DETRPoseHead if family == foreign_files.POSE else QueryHead):
        raise UserError(f"--config: {config} has a head of type {kind}, expected the config of a model of {family}")
    with torch.device("meta"):
        return build(cfg)


def _first(conversion: Conversion) -> str:
    for kind in ("unknown", "missing", "mismatched"):
        names = getattr(conversion, kind)
        if names:
            return f"{kind} {names[0]}"
    return "none"


def _classes(source: Path, count: int, categories: str | Path | None, plain_ids: bool) -> _Named:
    """Names and category ids of the classes, and their labels in the file."""
    named = _named_classes(source, count)
    if categories is None:
        if named is None:
            raise UserError(
                f"{source}: it has {count} classes and does not name them, and only 80 are taken for COCO's; give a "
                "COCO annotation file with its categories by --categories"
            )
        names, ids = zip(*named)
        return names, ids, tuple(range(count))
    id_of = match_classes(categories, read_coco(categories)["categories"], None)
    plain = plain_ids or named is None
    label_of = {i: i for i in range(count)} if plain else {id_: i for i, (_, id_) in enumerate(named or [])}
    missing = [f"{name!r} (id {id_})" for name, id_ in id_of.items() if id_ not in label_of]
    if missing:
        raise UserError(
            f"{categories}: the checkpoint has no class with the id of {', '.join(missing[:3])}; it has "
            f"{count} classes, whose ids are {'their labels' if plain else 'those of COCO'}"
        )
    return tuple(id_of), tuple(id_of.values()), tuple(label_of[id_] for id_ in id_of.values())


def _named_classes(source: Path, count: int) -> list[tuple[str, int]] | None:
    """Name and category id of each label: of transformers' config, or of COCO for 80 classes; None if unknown."""
    coco = load_config(_configs_of("dfine")[0]).classes
    config = source.with_name("config.json")
    if config.is_file():
        names = _labels(config)
        if len(names) == count and not _are_placeholders(names):
            if sorted(names) == sorted(coco):
                ids = dict(zip(coco, foreign_files.COCO_IDS))
                return [(name, ids[name]) for name in names]
            return [(name, i) for i, name in enumerate(names)]
    if count == len(coco):
        return list(zip(coco, foreign_files.COCO_IDS))
    return None


def _labels(path: Path) -> list[str]:
    """The label names of a ``config.json`` of transformers, in order; empty if it has none."""
    try:
        labels = json.loads(path.read_text(encoding="utf-8")).get("id2label") or {}
        return [str(labels[key]) for key in sorted(labels, key=int)]
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path}: id2label: cannot be read ({error}), expected a JSON object of label numbers and names"
        ) from error


def _are_placeholders(names: Sequence[str]) -> bool:
    return all(name == f"LABEL_{i}" for i, name in enumerate(names))
