"""Links a teacher's config and `teacher_weights` to the guide of a config's model.

The class of a guide declares the arguments in ``linked_teacher``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmengine.config import Config

from efftasks.linking.declared import declared
from efftasks.linking.links import KEY, Links, unshared_copy
from efftasks.structures.errors import UserError

__all__ = ["link_class_names", "link_teacher"]

_PLACE = ("model", "guide")
# What the student's config states for the teacher as well.
_SHARED = frozenset(("image_size", "crop_size", "classes", "semantic_classes", "keypoints"))


def link_teacher(cfg: Config, links: Links, load: Callable[[str], Config]) -> None:
    """Replace the name or path of the teacher's config by its model, and fill the path of its checkpoint.

    The input size and the classes of the teacher are then linked as those of the student. Its batch augmentations are
    left out, since it only predicts. Where the file of its config no longer exists, as with a dumped config on another
    machine, the model that was filled in before stays.

    Args:
        cfg: the config.
        links: the record.
        load: from the name or path of a config to the linked config, without a guide.

    Raises:
        UserError: there is no such config, or it has errors.
    """
    guide, linked = _guide(cfg)
    if "teacher" in linked and isinstance(guide.get("teacher"), str):
        links.fill((*_PLACE, "teacher"), _model_of(guide["teacher"], cfg, load), "model")
    if "weights" in linked and guide.get("weights") is None and cfg.get("teacher_weights") is not None:
        links.fill((*_PLACE, "weights"), cfg.teacher_weights, "teacher_weights")


def link_class_names(cfg: Config, links: Links) -> None:
    """Fill the names of the classes into the guide, to find them among those of the teacher."""
    guide, linked = _guide(cfg)
    if "class_names" in linked and guide.get("class_names") is None and cfg.get("classes"):
        links.fill((*_PLACE, "class_names"), list(cfg.classes), "classes")


def _guide(cfg: Config) -> tuple[Any, tuple[str, ...]]:
    """The config of the guide, and its arguments that are linked."""
    guide = (cfg.get("model") or {}).get("guide") or {}
    return guide, tuple(declared(guide.get("type"), "linked_teacher"))


def _model_of(name: str, cfg: Config, load: Callable[[str], Config]) -> Any:
    """The model of the teacher's config, or the one that the record of the student's config has for this name."""
    try:
        return _teacher(load(name))
    except UserError:
        if not Path(name).is_file():
            for group in cfg.get(KEY) or ():
                if "/".join((*_PLACE, "teacher")) in group["places"] and group["before"] == name:
                    return unshared_copy(group["value"])
        raise


def _teacher(cfg: Config) -> Any:
    """The config of the model, with open values where the student's config fills them."""
    Links(cfg).undo(sources=_SHARED)
    model = unshared_copy(cfg.model)
    preprocessor = model.get("data_preprocessor") or {}
    preprocessor.pop("batch_augments", None)
    if cfg.default_scope != "efftasks":
        model.setdefault("_scope_", cfg.default_scope)
    return model
