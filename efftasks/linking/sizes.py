"""`image_size` and `crop_size`: from the top of a config to everything that leaves its size at None.

A registered class says itself what it takes: ``linked_sizes = {"size": "image_size"}`` names its arguments and what of
:func:`measures` each gets. It is linked where its first argument is None, and then all that are.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config

from efftasks.linking.declared import declared, registered
from efftasks.linking.links import Links, Place, walk
from efftasks.structures.errors import UserError

__all__ = ["dotted", "link_sizes", "measures", "size_places"]

# Where types stand, beside the loaders.
_PARTS = ("model", "default_hooks", "custom_hooks", "tta_pipeline")


def measures(image_size: tuple[int, int], crop_size: tuple[int, int]) -> dict[str, Any]:
    """What may be linked to a size: name -> value; (height, width) but for ``wh``."""
    height, width = image_size
    return dict(
        image_size=image_size,
        image_size_wh=(width, height),
        crop_size=crop_size,
        shorter_half=min(image_size) // 2,
        square_side=height,
        mosaic_border=(-width // 2, -height // 2),
    )


def _is_open(node: Mapping[str, Any], argument: str) -> bool:
    """Whether an argument is None, or left out although it has no default."""
    if argument in node:
        return node[argument] is None
    kind = registered(node["type"])
    return kind is not None and inspect.signature(kind).parameters[argument].default is inspect.Parameter.empty


def link_sizes(cfg: Config, links: Links, whole: tuple[int, int] | None) -> None:
    """Fill every size that is open.

    Args:
        cfg: the config, whose ``crop_size`` may be absent.
        links: the record.
        whole: its ``image_size``; None leaves everything as it is.

    Raises:
        UserError: something takes squares alone, and the size is none.
    """
    if whole is None:
        return
    known = measures(whole, tuple(cfg.get("crop_size") or whole))
    for place, node, takes in _sized(cfg):
        first, *rest = takes
        if not _is_open(node, first):
            continue
        for argument in (first, *(name for name in rest if node.get(name) is None)):
            measure = takes[argument]
            if measure == "square_side" and whole[0] != whole[1]:
                raise UserError(
                    f"{dotted(place)}: {node['type']} makes square batches, and image_size is {whole[0]} x {whole[1]}; "
                    f"give a square image_size, or state {argument} there"
                )
            source = "crop_size" if measure == "crop_size" and cfg.get("crop_size") else "image_size"
            links.fill((*place, argument), known[measure], source)


def size_places(cfg: Config) -> dict[str, tuple[str, Any]]:
    """Everything that can be linked to a size: key with dots -> name in :func:`measures`, and the value that it has."""
    return {
        dotted((*place, argument)): (measure, node.get(argument))
        for place, node, takes in _sized(cfg)
        for argument, measure in takes.items()
    }


def _sized(cfg: Config) -> list[tuple[Place, dict[str, Any], Mapping[str, str]]]:
    """The dicts, with their place, of everything that can be linked to a size."""
    parts = [key for key in cfg if str(key).endswith("_dataloader") or key in _PARTS]
    return [
        (place, node, takes)
        for part in parts
        for place, node in walk(cfg[part], (part,))
        if isinstance(node.get("type"), str) and (takes := declared(node["type"], "linked_sizes"))
    ]


def dotted(place: Place) -> str:
    """A place as ``--cfg-options`` writes it."""
    return ".".join(map(str, place))
