"""Reading configs, and linking the values that they state once."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import efftasks.compat  # noqa: F401

# isort: split
from mmengine.config import Config

from efftasks.linking.data import DERIVED, METAINFO, describe_missing, leaves, link_classes, link_data_root
from efftasks.linking.declared import declared, fit_of
from efftasks.linking.hooks import link_freeze, link_hooks
from efftasks.linking.linked import LinkedConfig
from efftasks.linking.links import Links, unshared_copy
from efftasks.linking.overrides import check_used, merge_options
from efftasks.linking.pixels import link_pixel_range, range_of
from efftasks.linking.renames import rename_arguments
from efftasks.linking.scaling import apply_scale
from efftasks.linking.schedule import link_schedule
from efftasks.linking.sizes import link_sizes
from efftasks.linking.teachers import link_class_names, link_teacher
from efftasks.linking.values import as_size, normalize_values
from efftasks.structures.errors import UserError
from efftasks.structures.image_fit import ImageFit
from efftasks.structures.pixel_range import PixelRange, checked_range

__all__ = [
    "check_complete",
    "class_metainfo",
    "config_folder",
    "config_of_checkpoint",
    "config_path",
    "fit_transform",
    "image_fit",
    "innermost",
    "linked_config",
    "load_config",
    "pixel_range",
    "shipped_configs",
]

# Overrides of these keys make the classes be read again from the training data.
_DATA_KEYS = ("data_root", "train_dataloader", "classes", "keypoints", "palette", "ignore", "label_values")


def config_folder() -> Path:
    """The folder of the shipped configs: inside the installed package, or beside it in a source tree."""
    package = Path(__file__).resolve().parent
    for folder in (package / ".mim" / "configs", package.parent / "configs"):
        if folder.is_dir():
            return folder
    raise UserError("the shipped configs are missing; reinstall efftasks, or give the path of a config file")


def shipped_configs() -> dict[str, Path]:
    """All shipped configs that can be run: name (file name without suffix) -> path."""
    folder = config_folder()
    return {path.stem: path for path in sorted(folder.rglob("*.py")) if "_base_" not in path.parts}


def load_config(config: str | Path | Config, options: dict[str, Any] | None = None) -> LinkedConfig:
    """Read and link a config: values that it states once are filled in where they are needed, see docs/configs.md.

    A linked config is linked again: filled values are computed from the current ones, and values that were set since
    then stay. The record of the filled values is the config's ``linked``, also in a dumped file.

    If the annotations do not exist, the classes stay None, because a checkpoint can be loaded without annotations and
    has its own classes. :func:`check_complete` reports missing values.

    Args:
        config: a path, the name of a shipped config, or a Config, which is not changed.
        options: overrides, keys with dots, as ``--cfg-options`` gives them.

    Raises:
        UserError: there is no such config, it does not parse, it contradicts itself or the annotations, or an override
            would have no effect.
    """
    options = options or {}
    cfg = _read(config)
    links = Links(cfg)
    rereads_data = any(key.split(".")[0] in _DATA_KEYS for key in options)
    links.undo(keep=frozenset(() if rereads_data else DERIVED))
    before = {key: as_size(key, cfg[key]) for key in ("image_size", "crop_size") if cfg.get(key) is not None}
    merge_options(cfg, options)
    _link(cfg, links)
    check_used(cfg, links, options, before)
    return LinkedConfig.of(cfg)


def linked_config(config: str | Path | Config) -> LinkedConfig:
    """A LinkedConfig unchanged; another config, or its path or name, is read and linked."""
    return config if isinstance(config, LinkedConfig) else load_config(config)


def config_of_checkpoint(config: str | Path | Config, trained_on: Mapping[str, Any]) -> LinkedConfig:
    """As :func:`load_config`, with the classes and keypoints of a checkpoint's training data.

    If ``trained_on`` is empty, a LinkedConfig is returned unchanged.

    Args:
        config: as for :func:`load_config`.
        trained_on: ``meta.dataset_meta`` of the checkpoint; may be empty.
    """
    if isinstance(config, LinkedConfig) and not trained_on:
        return config
    cfg = _read(config)
    links = Links(cfg)
    links.undo(keep=frozenset(() if trained_on else DERIVED))
    for name in ("classes", "semantic_classes", "keypoints", "ignore", "label_values"):
        if trained_on.get(name) is not None:
            cfg[name] = trained_on[name]
    if trained_on and cfg.get("palette") and len(cfg.palette) != len(cfg.get("classes") or ()):
        cfg.palette = None  # it belongs to other classes
    _link(cfg, links)
    return LinkedConfig.of(cfg)


def check_complete(cfg: LinkedConfig) -> None:
    """Check that a linked config has all values that its model needs.

    Raises:
        UserError: the classes or keypoints are missing; the message names the file that should state them.
    """
    missing = describe_missing(cfg)
    if missing is not None:
        raise UserError(missing)


def class_metainfo(cfg: LinkedConfig) -> dict[str, Any]:
    """The classes of a linked config as the metainfo of data sets and checkpoints; empty if it has none."""
    return {name: cfg[name] for name in METAINFO if cfg.get(name) is not None} if cfg.get("classes") else {}


def config_path(config: str | Path) -> Path:
    """The file of a config given by its path or by the name of a shipped one.

    Raises:
        UserError: there is none; the message suggests the most similar name.
    """
    path = Path(config)
    if path.is_file():
        return path
    shipped = shipped_configs()
    if path.suffix not in ("", ".py") or len(path.parts) > 1 or path.stem not in shipped:
        near = difflib.get_close_matches(path.stem, shipped, n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UserError(f"{config}: no such config file, and no shipped config has this name{hint}")
    return shipped[path.stem]


def innermost(dataset: Any) -> Any:
    """The data set inside wrappers; the first of concatenated ones."""
    return next(leaves(dataset))[1]


def fit_transform(cfg: LinkedConfig) -> dict[str, Any]:
    """The transform of the test pipeline that resizes images to the network input, such as FitImage.

    Its class has ``fits_input = True``.

    Raises:
        UserError: the pipeline has none.
    """
    loader = cfg.get("test_dataloader")
    if not loader or not loader.get("dataset"):
        raise UserError(
            "test_dataloader: the config has none, expected one: its pipeline states how images are resized"
        )
    for transform in innermost(loader["dataset"]).get("pipeline") or ():
        if declared(transform.get("type"), "fits_input"):
            return transform
    raise UserError("test_dataloader.dataset.pipeline has no FitImage, expected one: an artifact states its settings")


def image_fit(cfg: LinkedConfig) -> ImageFit:
    """How the test pipeline of a config resizes images to the network input.

    Raises:
        UserError: no transform does, or its class does not describe it.
    """
    transform = fit_transform(cfg)
    fit = fit_of(transform)
    if fit is None:
        raise UserError(f"{transform['type']}: has fits_input without how_it_fits, expected both")
    return fit


def pixel_range(cfg: LinkedConfig) -> PixelRange | None:
    """The values of black and white in images of more than 8 bits, as the test pipeline of a config loads them."""
    if not cfg.get("test_dataloader"):
        return checked_range(cfg.get("pixel_range"))
    return range_of(innermost(cfg.test_dataloader["dataset"]))


def _read(config: str | Path | Config) -> Config:
    """A copy of a config in which no two places share a dict."""
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
    for key in list(cfg):
        cfg[key] = unshared_copy(cfg[key])
    return cfg


def _link(cfg: Config, links: Links) -> None:
    cfg.setdefault("default_scope", "efftasks")
    rename_arguments(cfg)
    normalize_values(cfg)
    apply_scale(cfg)
    link_teacher(cfg, links, _teacher_config)
    link_hooks(cfg, links)
    link_freeze(cfg, links)
    link_schedule(cfg, links)
    size = cfg.get("image_size")
    link_sizes(cfg, links, None if size is None else tuple(size))
    link_pixel_range(cfg, links)
    visualizer = cfg.get("visualizer") or {}
    if cfg.get("vis_backends") is not None and visualizer.get("vis_backends") is None and visualizer:
        links.fill(("visualizer", "vis_backends"), unshared_copy(cfg.vis_backends), "vis_backends")
    link_data_root(cfg, links)
    if cfg.get("model"):
        link_classes(cfg, links)
        link_class_names(cfg, links)
    links.save()


def _teacher_config(config: str) -> LinkedConfig:
    """A linked config without a guide: the teacher's own teacher is not needed."""
    cfg = _read(config)
    (cfg.get("model") or {}).pop("guide", None)
    return load_config(cfg)
