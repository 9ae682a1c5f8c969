"""Links `pixel_range` of a config to every LoadImage that states none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.config import Config

from efftasks.linking.data import LOADERS
from efftasks.linking.declared import declared
from efftasks.linking.links import Links, walk
from efftasks.structures.errors import UserError
from efftasks.structures.pixel_range import checked_range

__all__ = ["link_pixel_range"]


def link_pixel_range(cfg: Config, links: Links) -> None:
    """Fill ``pixel_range`` of every LoadImage where it is None.

    Raises:
        UserError: there is no LoadImage, or one states another range.
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
            raise UserError(f"pixel_range: got {stated}, but that of a LoadImage is {value}, expected one of them")
        if value is None:
            links.fill((*place, "pixel_range"), stated, "pixel_range")


def _is_loader(part: Mapping[str, Any]) -> bool:
    return "pixel_range" in declared(part.get("type"), "linked_values")
