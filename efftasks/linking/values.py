"""Checks and normalizes the values that a config states, with an error of one sentence that names the key."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mmengine.config import Config

from efftasks.linking.data import LOADERS
from efftasks.linking.forms import check_forms
from efftasks.structures.errors import UserError
from efftasks.structures.quantization import QuantizationSettings

__all__ = ["as_size", "check_to_train", "normalize_values"]

_NAME_LISTS = ("classes", "semantic_classes", "keypoints.names")


def normalize_values(cfg: Config) -> None:
    """Turn sizes into (height, width) and lists of names into tuples, in place, and check the most common numbers.

    Raises:
        UserError: a value has the wrong type or is out of range; the message names the key.
    """
    for key in ("image_size", "crop_size"):
        if cfg.get(key) is not None:
            cfg[key] = as_size(key, cfg[key])
    check_forms(cfg)
    QuantizationSettings.from_config(cfg.get("quantization"))
    for key in _NAME_LISTS:
        _convert(cfg, key, _as_names)
    for key, names in (("palette", "classes"), ("semantic_palette", "semantic_classes")):
        if cfg.get(key) is not None:
            _check_palette(key, cfg[key], cfg.get(names))
    for key in ("max_epochs", "train_cfg.max_epochs", "train_cfg.val_interval"):
        _check_number(cfg, key, int, 1)
    for loader in LOADERS:
        _check_number(cfg, f"{loader}.batch_size", int, 1)
        _check_number(cfg, f"{loader}.num_workers", int, 0)
        if cfg.get(loader) and cfg[loader].get("num_workers") == 0:
            cfg[loader]["persistent_workers"] = False  # torch requires workers for it
    for name in ("lr", "muon_lr", "weight_decay", "momentum"):
        _check_number(cfg, f"optim_wrapper.optimizer.{name}", float, 0)


def check_to_train(cfg: Config) -> None:
    """Check that a config has all parts that training needs.

    Raises:
        UserError: a part is missing; the message names it.
    """
    for key in ("model", "train_dataloader", "train_cfg", "optim_wrapper"):
        if not cfg.get(key):
            raise UserError(f"{key}: the config has none, expected one to train")
    if not cfg.train_dataloader.get("dataset"):
        raise UserError("train_dataloader.dataset: the config has none, expected one to train")
    validation = {key: bool(cfg.get(key)) for key in ("val_dataloader", "val_evaluator", "val_cfg")}
    if any(validation.values()) and not all(validation.values()):
        missing = [key for key, is_set in validation.items() if not is_set]
        raise UserError(
            f"{', '.join(missing)}: the config has none, expected all of {', '.join(validation)}, or none of them"
        )


def _get(cfg: Config, key: str) -> Any:
    node: Any = cfg
    for part in key.split("."):
        node = node.get(part) if isinstance(node, (dict, Config)) else None
    return node


def _convert(cfg: Config, key: str, convert: Callable[[str, Any], Any]) -> None:
    value = _get(cfg, key)
    if value is not None:
        *outer, last = key.split(".")
        node = _get(cfg, ".".join(outer)) if outer else cfg
        node[last] = convert(key, value)


def as_size(key: str, value: Any) -> tuple[int, int]:
    """A size as (height, width); one number stands for a square. ``key`` is for the message of the UserError."""
    sides = [value, value] if isinstance(value, int) else value
    is_pair = isinstance(sides, (list, tuple)) and len(sides) == 2 and all(_is_number(side, int) for side in sides)
    if not is_pair or min(sides) < 1:
        raise UserError(f"{key}: got {value!r}, expected (height, width) in pixels, or one number for a square")
    return int(sides[0]), int(sides[1])


def _as_names(key: str, value: Any) -> tuple[str, ...]:
    """Names as a tuple; a string is one name."""
    names = (value,) if isinstance(value, str) else value
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) and name for name in names):
        raise UserError(f"{key}: got {value!r}, expected names, such as ['a', 'b']")
    duplicates = sorted({name for name in names if names.count(name) > 1})
    if duplicates:
        raise UserError(f"{key}: {', '.join(map(repr, duplicates))} occurs twice, expected each name once")
    return tuple(names)


def _check_palette(key: str, value: Any, names: Sequence[str] | None) -> None:
    rows = value if isinstance(value, (list, tuple)) else [value]
    are_colors = all(
        isinstance(row, (list, tuple)) and len(row) == 3 and all(_is_number(x, int) and 0 <= x <= 255 for x in row)
        for row in rows
    )
    if not are_colors:
        raise UserError(f"{key}: got {value!r}, expected the RGB of each class, such as [[255, 0, 0], [0, 0, 255]]")
    if names and len(rows) != len(names):
        raise UserError(f"{key}: got {len(rows)} colors, expected {len(names)}, one for each class")


def _check_number(cfg: Config, key: str, kind: type, minimum: float) -> None:
    value = _get(cfg, key)
    if value is not None and (not _is_number(value, kind) or value < minimum):
        expected = "a whole number" if kind is int else "a number"
        raise UserError(f"{key}: got {value!r}, expected {expected} from {minimum}")


def _is_number(value: Any, kind: type) -> bool:
    return isinstance(value, (int, kind)) and not isinstance(value, bool)
