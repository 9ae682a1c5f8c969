"""Links `pixel_range` of a config to every loader of images that states none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.config import Config

from efftasks.linking.data import LOADERS
from efftasks.linking.declared import arguments_of, declared
from efftasks.linking.links import Links, walk
from efftasks.structures.errors import UserError
from efftasks.structures.pixel_range import PixelRange, checked_range

__all__ = ["link_pixel_range", "range_of"]


def link_pixel_range(cfg: Config, links: Links) -> None:
    """Fill ``pixel_range`` of every loader of images, such as LoadImage, where it is None.

    Raises:
        UserError: there is no such loader, or one states another range.
    """
    if cfg.get("pixel_range") is None:
        return
    stated = checked_range(cfg.pixel_range)
    if not any(_is_loader(part) for name in LOADERS for _, part in walk(cfg.get(name))):
        raise UserError(f"pixel_range: got {stated}, but no pipeline has a LoadImage, expected one that reads by it")
    for place, part in walk(cfg._cfg_dict):
        if not _is_loader(part):
            continue
        value = checked_range(part.get("pixel_range"))
        if value not in (None, stated):
            raise UserError(f"pixel_range: got {stated}, but that of a {part['type']} is {value}, expected one of them")
        if value is None:
            links.fill((*place, "pixel_range"), stated, "pixel_range")


def range_of(dataset: Mapping[str, Any]) -> PixelRange | None:
    """The ``pixel_range`` of the first loader of images in the pipeline of a data set's config."""
    loaders = (part for _, part in walk(dataset.get("pipeline")) if _is_loader(part))
    return next((checked_range(arguments_of(loader)["pixel_range"]) for loader in loaders), None)


def _is_loader(part: Mapping[str, Any]) -> bool:
    return "pixel_range" in declared(part.get("type"), "linked_values")
