"""Links `image_size` and `crop_size` of a config to every argument that is a size and None.

A registered class declares these arguments, each with its name in :func:`measures`:
``linked_sizes = {"size": "image_size"}``. If the first of them is None, all that are None are filled.
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

# Top-level keys with registered types, besides the data loaders.
_PARTS = ("model", "default_hooks", "custom_hooks", "tta_pipeline")


def measures(image_size: tuple[int, int], crop_size: tuple[int, int]) -> dict[str, Any]:
    """The sizes that can be linked, by name: (height, width), except for ``image_size_wh`` and ``mosaic_border``."""
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
    """Whether an argument is None, or absent although it has no default."""
    if argument in node:
        return node[argument] is None
    kind = registered(node["type"])
    parameter = None if kind is None else inspect.signature(kind).parameters.get(argument)  # a subclass may lack it
    return parameter is not None and parameter.default is inspect.Parameter.empty


def link_sizes(cfg: Config, links: Links, image_size: tuple[int, int] | None) -> None:
    """Fill every size that is None.

    Args:
        cfg: the config; without ``crop_size`` crops have the ``image_size``.
        links: the record.
        image_size: (height, width) of the config; if it is None, nothing is filled.

    Raises:
        UserError: the size is not square, but a part needs a square.
    """
    if image_size is None:
        return
    height, width = image_size
    sizes = measures(image_size, tuple(cfg.get("crop_size") or image_size))
    for place, node, linked_sizes in _sized_parts(cfg):
        first, *rest = linked_sizes
        if not _is_open(node, first):
            continue
        for argument in (first, *(name for name in rest if node.get(name) is None)):
            measure = linked_sizes[argument]
            if measure == "square_side" and height != width:
                raise UserError(
                    f"{dotted(place)}: {node['type']} makes square batches, and image_size is {height} x {width}; "
                    f"give a square image_size, or state {argument} there"
                )
            source = "crop_size" if measure == "crop_size" and cfg.get("crop_size") else "image_size"
            links.fill((*place, argument), sizes[measure], source)


def size_places(cfg: Config) -> dict[str, tuple[str, Any]]:
    """All places that can be linked to a size: key with dots -> its name in :func:`measures`, and its value."""
    return {
        dotted((*place, argument)): (measure, node.get(argument))
        for place, node, linked_sizes in _sized_parts(cfg)
        for argument, measure in linked_sizes.items()
    }


def _sized_parts(cfg: Config) -> list[tuple[Place, dict[str, Any], Mapping[str, str]]]:
    """Place, config and ``linked_sizes`` of every part that declares them."""
    parts = [key for key in cfg if str(key).endswith("_dataloader") or key in _PARTS]
    return [
        (place, node, linked_sizes)
        for part in parts
        for place, node in walk(cfg[part], (part,))
        if isinstance(node.get("type"), str) and (linked_sizes := declared(node["type"], "linked_sizes"))
    ]


def dotted(place: Place) -> str:
    """A place as a key of ``--cfg-options``."""
    return ".".join(map(str, place))
