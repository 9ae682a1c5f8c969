"""Configs: where they are, and what they state once and need in several places."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import efftasks.compat  # noqa: F401

# isort: split
from mmengine.config import Config

from efftasks.datasets.coco import match_classes, read_coco
from efftasks.datasets.coco_keypoints import category_keypoints
from efftasks.datasets.semantic_files import ClassList, read_classes
from efftasks.models.scaling import apply_scale
from efftasks.structures.errors import UserError
from efftasks.structures.keypoints import KeypointFacts, keypoint_facts
from efftasks.structures.pixel_range import PixelRange, checked_range

__all__ = [
    "config_folder",
    "config_path",
    "fit_transform",
    "innermost",
    "load_config",
    "pixel_range",
    "shipped_configs",
]


def _both(*names: str) -> tuple[str, ...]:
    """Names of registered types, as they may be written."""
    return (*names, *(f"efftasks.{name}" for name in names))


_FIT_NAMES = _both("FitImage", "CropBox")  # what brings images to the size of the network input
_SIZED_NAMES = (*_FIT_NAMES, *_both("ObjectMosaic", "RandomWarp"))
_LOAD_NAMES = _both("LoadImage")
_CROP_NAMES = _both("RandomScaledCrop")
_LOADERS = ("train_dataloader", "val_dataloader", "test_dataloader")


def config_folder() -> Path:
    """The folder of the shipped configs: in the installed package, or beside it in a source tree."""
    package = Path(__file__).resolve().parent
    for folder in (package / ".mim" / "configs", package.parent / "configs"):
        if folder.is_dir():
            return folder
    raise UserError("the shipped configs are missing; reinstall efftasks, or give the path of a config file")


def shipped_configs() -> dict[str, Path]:
    """Name (file name without suffix) to path of every shipped config that can be run."""
    folder = config_folder()
    return {path.stem: path for path in sorted(folder.rglob("*.py")) if "_base_" not in path.parts}


def load_config(config: str | Path | Config, options: dict[str, Any] | None = None) -> Config:
    """Read a config and make the links which it states only once.

    Top-level ``data_root`` goes to every dataset, top-level ``classes`` to every dataset and, as their number, to the
    heads; without classes they are those of the training annotations. ``keypoints`` (see
    :func:`efftasks.structures.keypoints.keypoint_facts`) goes to every dataset, and its sigmas to heads that leave
    theirs at None; what it does not say, the training annotations do. ``semantic_classes`` are those of label maps
    beside objects. ``label_values`` is the number of each class in label maps, where that is not its index, and
    ``ignore`` that of pixels without a class: both go to every data set. ``pixel_range``, what is black and white
    in pictures of more than 8 bits, goes to every LoadImage. Top-level ``image_size``
    goes to every transform that leaves its ``size`` at None, and ``crop_size``
    (where it is another) to the crops of training. Top-level ``scale`` (``dict(phi=1.0)``, and ``alpha``, ``beta``,
    ``gamma``) makes depth, width and input size larger together, see :mod:`efftasks.models.scaling`.

    Args:
        config: a path, the name of a shipped config, or a Config.
        options: overrides, keys with dots, as ``--cfg-options`` gives them.

    Raises:
        UserError: there is no such config, it does not parse, or it contradicts the annotations.
    """
    if isinstance(config, Config):
        cfg = config.copy()
    else:
        path = config_path(config)
        try:
            cfg = Config.fromfile(path)
        except UserError:
            raise
        except Exception as error:  # a config is Python: anything can go wrong in it
            raise UserError(f"{path}: the config does not parse ({type(error).__name__}: {error})") from error
    if options:
        cfg.merge_from_dict(options)
    cfg.setdefault("default_scope", "efftasks")
    _link(cfg)
    return cfg


def config_path(config: str | Path) -> Path:
    """The file of a config given by its path or by the name of a shipped one.

    Raises:
        UserError: there is none; the message names the nearest.
    """
    path = Path(config)
    if path.is_file():
        return path
    known = shipped_configs()
    if path.suffix not in ("", ".py") or len(path.parts) > 1 or path.stem not in known:
        near = difflib.get_close_matches(path.stem, known, n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UserError(f"{config}: no such config file, and no shipped config has this name{hint}")
    return known[path.stem]


def innermost(dataset: Any) -> Any:
    """The data set inside wrappers; of a mixture the first."""
    return next(_leaves(dataset))


def fit_transform(cfg: Config) -> dict[str, Any]:
    """The transform of the test pipeline that brings images to the size of the network input.

    Raises:
        UserError: it has none.
    """
    for transform in innermost(cfg.test_dataloader.dataset).pipeline:
        if transform["type"] in _SIZED_NAMES:
            return transform
    raise UserError("test_dataloader.dataset.pipeline has no FitImage, expected one: an artifact repeats its facts")


def pixel_range(cfg: Config) -> PixelRange | None:
    """What is black and white in pictures of more than 8 bits, as the test pipeline of a config loads them."""
    if not cfg.get("test_dataloader"):
        return checked_range(cfg.get("pixel_range"))
    pipeline = innermost(cfg.test_dataloader.dataset).get("pipeline") or ()
    loaders = [step for step in pipeline if step["type"] in _LOAD_NAMES]
    return checked_range(loaders[0].get("pixel_range")) if loaders else None


def _link(cfg: Config) -> None:
    apply_scale(cfg)
    if "image_size" in cfg:
        whole = tuple(cfg.image_size)
        _set_sizes(cfg._cfg_dict, whole, tuple(cfg.get("crop_size", whole)))
        _fill(cfg.model, "input_size", whole)
    if cfg.get("pixel_range") is not None:
        _set_range(cfg)
    datasets = [leaf for name in _LOADERS if cfg.get(name) for leaf in _leaves(cfg[name]["dataset"])]
    if "data_root" in cfg:
        for dataset in datasets:
            dataset.setdefault("data_root", cfg.data_root)
    for part in ("val", "test"):
        _name_the_truth(cfg, part)
    known = _known_classes(cfg)
    if known is None:
        return
    cfg.classes = classes = known["classes"]
    keypoints = _known_keypoints(cfg)
    if keypoints is not None:
        cfg.keypoints = keypoints.to_dict()
    for name in ("keypoints", "semantic_classes", "semantic_palette"):
        if cfg.get(name):
            known[name] = cfg[name]
    for dataset in datasets:
        dataset.setdefault("metainfo", dict(known))
        _state_label_values(cfg, dataset)
    for name in ("head", "decode_head"):
        head = cfg.model.get(name, {})
        if head.get("num_classes") not in (None, len(classes)):
            raise UserError(
                f"model.{name}.num_classes: got {head['num_classes']}, expected {len(classes)}, "
                f"the number of classes {tuple(classes)}"
            )
    if cfg.get("semantic_classes") and cfg.model.get("semantic_head"):
        _fill(cfg.model.semantic_head, "num_classes", len(cfg.semantic_classes))
    _fill(cfg.model, "num_classes", len(classes))
    if keypoints is not None:
        _fill(cfg.model, "sigmas", list(keypoints.sigmas))


def _set_range(cfg: Config) -> None:
    """Give every LoadImage the config's ``pixel_range``.

    Raises:
        UserError: there is none, or one states another.
    """
    stated = checked_range(cfg.pixel_range)
    if not any(_parts([cfg.get(name) for name in _LOADERS], _LOAD_NAMES)):
        raise UserError(f"pixel_range: got {stated}, but no pipeline has a LoadImage, expected one that reads by it")
    for loader in _parts(cfg._cfg_dict, _LOAD_NAMES):
        own = checked_range(loader.get("pixel_range"))
        if own not in (None, stated):
            raise UserError(f"pixel_range: got {stated}, but that of a LoadImage is {own}, expected one of them")
        loader["pixel_range"] = stated


def _parts(node: Any, names: Sequence[str]) -> Iterator[Any]:
    """The configs of parts of these types, wherever they are."""
    if isinstance(node, dict):
        if node.get("type") in names:
            yield node
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for part in node:
            yield from _parts(part, names)


def _state_label_values(cfg: Config, dataset: Any) -> None:
    """Give a data set what the config states about the numbers in label maps.

    Raises:
        UserError: it is one of mmseg's, which have numbers of their own, or states others itself.
    """
    for key in ("label_values", "ignore"):
        stated = cfg.get(key)
        if stated is None:
            continue
        if dataset.type.startswith("mmseg."):
            raise UserError(f"{key}: got {stated!r} for {dataset.type}, which has its own; expected a SemanticFolder")
        stated = tuple(stated) if isinstance(stated, list) else stated
        own = dataset.metainfo.setdefault(key, stated)
        if (tuple(own) if isinstance(own, list) else own) != stated:
            raise UserError(f"{key}: got {stated!r}, but metainfo.{key} of a data set is {own!r}, expected one of them")


def _leaves(dataset: Any) -> Iterator[Any]:
    """The configs of data sets inside wrappers and mixtures."""
    if "dataset" in dataset:
        yield from _leaves(dataset["dataset"])
    elif "datasets" in dataset:
        for part in dataset["datasets"]:
            yield from _leaves(part)
    else:
        yield dataset


def _name_the_truth(cfg: Config, part: str) -> None:
    """Give the metrics that leave their ``ann_file`` open that of the data they score."""
    found = cfg.get(f"{part}_evaluator") or []
    for evaluator in [found] if isinstance(found, dict) else found:
        if "ann_file" in evaluator and evaluator["ann_file"] is None:
            dataset = innermost(cfg[f"{part}_dataloader"]["dataset"])
            evaluator["ann_file"] = str(Path(dataset.get("data_root", ""), dataset["ann_file"]))


def _fill(node: Any, key: str, value: Any) -> None:
    """Give a value to every part that leaves it open; an auxiliary head may count something else."""
    if isinstance(node, dict):
        if key in node and node[key] is None:
            node[key] = value
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for part in node:
            _fill(part, key, value)


def _is_open(node: Any, key: str) -> bool:
    """Whether some part leaves a value open."""
    if isinstance(node, dict):
        return (key in node and node[key] is None) or any(_is_open(part, key) for part in node.values())
    return isinstance(node, (list, tuple)) and any(_is_open(part, key) for part in node)


def _set_sizes(node: Any, whole: tuple[int, int], crop: tuple[int, int]) -> None:
    """Give transforms without a size the config's, in pipelines wherever they are."""
    if isinstance(node, dict):
        if node.get("type") in _SIZED_NAMES and node.get("size") is None:
            node["size"] = whole
        if node.get("type") in _CROP_NAMES and node.get("size") is None:
            node["size"] = crop
            if node.get("fit") is None:
                node["fit"] = whole
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for part in node:
            _set_sizes(part, whole, crop)


def _known_classes(cfg: Config) -> dict[str, Any] | None:
    """Names of the classes, and what is said of them beside: the config's, or the training data's."""
    if cfg.get("classes"):
        stated = dict(classes=tuple(cfg.classes), **({"palette": cfg.palette} if cfg.get("palette") else {}))
        return {**_facts_of_file(cfg, stated["classes"]), **stated}
    if not cfg.get("train_dataloader"):
        return None
    dataset = innermost(cfg.train_dataloader.dataset)
    if dataset.get("metainfo", {}).get("classes"):
        return dict(dataset.metainfo)
    root = dataset.get("data_root", "")
    if "ann_file" in dataset:
        path = Path(root, dataset.ann_file)
        return dict(classes=tuple(match_classes(path, read_coco(path)["categories"], None)))
    path = Path(root, "classes.json")
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected it, or the names of the classes as `classes` in the config")
    return _facts(read_classes(path))


def _facts(classes: ClassList) -> dict[str, Any]:
    """What a file states about classes, as metainfo of a data set."""
    facts = dict(classes=classes.names, palette=classes.palette, ignore=classes.ignore, label_values=classes.values)
    return {key: value for key, value in facts.items() if value is not None}


def _facts_of_file(cfg: Config, names: tuple[str, ...]) -> dict[str, Any]:
    """What the file beside the training data states, where it is about classes of these names."""
    if not cfg.get("train_dataloader"):
        return {}
    dataset = innermost(cfg.train_dataloader.dataset)
    path = Path(dataset.get("data_root", ""), "classes.json")
    if dataset.type not in _both("SemanticFolder") or not path.is_file():
        return {}
    classes = read_classes(path)
    return _facts(classes) if classes.names == names else {}


def _known_keypoints(cfg: Config) -> KeypointFacts | None:
    """Those of the config, completed by the training data's; None where no head asks for them."""
    said = cfg.get("keypoints") or {}
    if not _is_open(cfg.model, "sigmas"):
        return None
    if said.get("names"):
        return keypoint_facts(said)
    dataset = innermost(cfg.train_dataloader.dataset)
    path = Path(dataset.get("data_root", ""), dataset.ann_file)
    used = [category for category in read_coco(path)["categories"] if category["name"] in cfg.classes]
    found = category_keypoints(path, used, said)
    if found is None:
        raise UserError(f"{path}: no category has keypoints; expected some, or `keypoints.names` in the config")
    return found
