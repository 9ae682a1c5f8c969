"""Overrides of a config's values: one without effect is an error."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config
from mmengine.runner import Runner

from efftasks.linking.data import metainfo_arguments
from efftasks.linking.links import KEY, Links, Place, walk
from efftasks.linking.schedule import is_by_name, scheduler_names
from efftasks.linking.sizes import dotted, measures, size_places
from efftasks.structures.errors import UserError

__all__ = ["LINKED_KEYS", "check_used", "merge_options"]

# Top-level keys whose values linking fills in elsewhere.
LINKED_KEYS = (
    *("data_root", "classes", "keypoints", "semantic_classes", "palette", "semantic_palette", "ignore"),
    *("label_values", "pixel_range"),
    *("image_size", "crop_size", "scale", "max_epochs", "schedule", "vis_backends", "teacher_weights", "freeze"),
)
# Keys that mmengine's runner reads from the config besides its arguments, and those that `apis` reads.
_OTHER_KEYS = (
    *("model_wrapper_cfg", "sync_bn", "find_unused_parameters", "activation_checkpointing", "efficient_conv_bn_eval"),
    *("compile", "gpu_ids", "runner_type", "custom_imports", "tta_model", "tta_pipeline"),
    *("model_transforms", "quantization", "compression", "carry_classes"),
)
_READ_KEYS = {*LINKED_KEYS, *_OTHER_KEYS, *inspect.signature(Runner.__init__).parameters} - {"self", "cfg"}


def merge_options(cfg: Config, options: Mapping[str, Any]) -> None:
    """Merge overrides into a config that is not linked.

    ``train_cfg.max_epochs`` also sets ``max_epochs``, on which the schedule depends, unless that is overridden too.
    Overrides of ``val_dataloader`` and ``val_evaluator`` also apply to the test, if both are equal in the config and
    the test's is not overridden.

    Raises:
        UserError: a key does not exist or has no effect any more, or a value cannot be merged.
    """
    merged = dict(options)
    for key, value in options.items():
        _check_key(cfg, key)
        if key not in cfg and "." not in key and isinstance(value, Mapping):  # mmengine keeps this where nothing is
            merged[key] = {name: part for name, part in value.items() if name != "_delete_"}
    if "train_cfg.max_epochs" in merged and "max_epochs" not in merged and "max_epochs" in cfg:
        merged["max_epochs"] = merged["train_cfg.max_epochs"]
    for part in ("dataloader", "evaluator"):
        val, test = f"val_{part}", f"test_{part}"
        if cfg.get(val) == cfg.get(test) and not any(key.split(".")[0] == test for key in merged):
            same = {test + key[len(val) :]: value for key, value in merged.items() if key.split(".")[0] == val}
            merged.update(same)
    # The others first: they may change which schedulers there are.
    for key, value in sorted(merged.items(), key=lambda item: _is_scheduler_index(item[0])):
        try:
            cfg.merge_from_dict({_by_name(cfg, key): value})
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            reason = (str(error.args[0] if error.args else error).strip().splitlines() or [type(error).__name__])[0]
            raise UserError(f"{key}: the config has no place for this value ({reason[:80]})") from error


def check_used(cfg: Config, links: Links, options: Mapping[str, Any], before: Mapping[str, Any]) -> None:
    """Check that every overridden value has an effect.

    Args:
        cfg: the linked config.
        links: its record.
        options: the overrides, keys with dots.
        before: values of the config's top-level keys before the overrides.

    Raises:
        UserError: a value is not used, or some places still have the old size because they state it themselves.
    """
    overridden = {key.split(".")[0] for key in options}
    model = cfg.get("model") or {}
    sizes = size_places(cfg)
    size_overridden = bool(set(sizes) & set(options))  # a place that image_size would fill
    is_used = dict(
        data_root="data_root" in links.sources,
        classes="classes" in links.sources,
        palette="classes" in links.sources,
        label_values=bool({"classes", "label_values"} & links.sources),
        keypoints=any(metainfo_arguments(part, "sigmas") for _, part in walk(model)),
        semantic_classes=bool(model.get("semantic_head")),
        image_size=size_overridden or "image_size" in links.sources,
        crop_size=size_overridden or "crop_size" in links.sources,
        vis_backends="vis_backends" in links.sources,
        teacher_weights="teacher_weights" in links.sources,
    )
    for key, used in is_used.items():
        is_overridden_below = any(option.endswith(f".{key}") for option in options)
        if key in overridden and cfg.get(key) is not None and not (used or is_overridden_below):
            raise UserError(f"{key}: nothing in this config uses it, so setting it changes nothing")
    points = {key.split(".")[1] for key in options if key.startswith("schedule.")}
    for name in sorted({*points, *(options.get("schedule") or ())}):
        if f"schedule.{name}" not in links.sources:
            raise UserError(f"schedule.{name}: nothing in this config uses it, so setting it changes nothing")
    if before.get("image_size") is None or not {"image_size", "crop_size"} & overridden:
        return
    old = measures(tuple(before["image_size"]), tuple(before.get("crop_size") or before["image_size"]))
    new = measures(tuple(cfg.image_size), tuple(cfg.get("crop_size") or cfg.image_size))
    for place, (measure, value) in sizes.items():
        is_old = isinstance(value, (list, tuple)) and tuple(value) == old[measure] != new[measure]
        if is_old and place not in options:
            raise UserError(
                f"{place}: the config states {tuple(value)} there itself, which image_size and crop_size do not "
                "reach; set it to None in the config"
            )


def _by_name(cfg: Config, key: str) -> str:
    """``param_scheduler.1.begin`` as ``param_scheduler.decay.begin``, where schedulers have names."""
    if not (_is_scheduler_index(key) and is_by_name(cfg.get("param_scheduler"))):
        return key
    first, index, *rest = key.split(".")
    return ".".join((first, scheduler_names(cfg)[int(index)], *rest))


def _is_scheduler_index(key: str) -> bool:
    """Whether a key has the index of a scheduler in a list, as ``param_scheduler.1.begin``."""
    first, *rest = key.split(".")
    return first == "param_scheduler" and bool(rest) and rest[0].isdigit()


def _check_key(cfg: Config, key: str) -> None:
    first = key.split(".")[0]
    if first in _READ_KEYS:
        return
    if first not in cfg or first == KEY:
        candidates = {*_READ_KEYS, *(name for name in cfg if name != KEY)}
        near = difflib.get_close_matches(first, sorted(candidates), n=1)
        hint = f"; did you mean {'.'.join([near[0], *key.split('.')[1:]])!r}?" if near else ""
        raise UserError(f"{key}: the config has no {first!r}, and nothing reads such a key{hint}")
    places = [dotted(place) for place in _places_of(cfg, cfg[first])][:2]
    hint = f"; set {' and '.join(places)}" if places else ""
    raise UserError(
        f"{key}: {first!r} is read by the lines of the config file alone, and they have run, so setting it now changes "
        f"nothing{hint}"
    )


def _places_of(cfg: Config, value: Any) -> list[Place]:
    """The places that have the value of a variable of the config file."""
    if not isinstance(value, (dict, list, tuple)) and value in (0, 1, None):
        return []  # too common to be a hint
    return [
        place
        for part in cfg
        if part in _READ_KEYS
        for inner, node in walk(cfg[part], (part,))
        for place, other in _values(node, inner)
        if type(other) is type(value) and other == value
    ]


def _values(node: dict[str, Any], place: Place) -> Iterator[tuple[Place, Any]]:
    """The values of a dict and of its lists, each with its place."""
    for key, value in node.items():
        yield (*place, key), value
        if isinstance(value, (list, tuple)):
            yield from (((*place, key, i), part) for i, part in enumerate(value))
