"""`image_size` and `crop_size`: from the top of a config to everything that leaves its size at None.

A registered class says itself what it takes: ``linked_sizes = {"size": "image_size"}`` names its arguments and what of
:func:`measures` each gets. It is linked where its first argument is None, and then all that are.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import efftasks.compat  # noqa: F401

# isort: split
from mmengine.config import Config
from mmengine.registry import HOOKS as ALL_HOOKS
from mmengine.registry import MODELS as ALL_MODELS
from mmengine.registry import TRANSFORMS as ALL_TRANSFORMS
from mmengine.registry import Registry

from efftasks.linking.links import Links, Place, walk
from efftasks.registry import HOOKS, MODELS, TRANSFORMS
from efftasks.structures.errors import UserError

__all__ = ["dotted", "linked_sizes", "link_sizes", "measures", "size_places"]

# What the transforms of the siblings take, whose sizes are (width, height).
_SIBLINGS: dict[str, dict[str, str]] = {
    **{
        name: {"img_scale": "image_size_wh"}
        for name in ("mmdet.Mosaic", "mmdet.CachedMosaic", "mmdet.MixUp", "mmdet.CachedMixUp")
    },
    **{name: {"scale": "image_size_wh"} for name in ("mmdet.Resize", "mmseg.Resize", "mmcv.Resize", "Resize")},
    "mmdet.RandomAffine": {"border": "mosaic_border"},  # it cuts the middle out of a mosaic
    "mmdet.RandomCrop": {"crop_size": "crop_size"},
    "mmseg.RandomCrop": {"crop_size": "crop_size"},
}
_SIZE_KEYS = ("image_size", "crop_size")


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


def linked_sizes(name: Any) -> Mapping[str, str]:
    """What the class of a ``type=`` takes: argument -> name in :func:`measures`."""
    kind = _registered(name)
    return _SIBLINGS.get(name) or getattr(kind, "linked_sizes", {})


def _registered(name: Any) -> type | None:
    """The class of this package, or of mmengine's own registries, where users register theirs."""
    bare = str(name).removeprefix("efftasks.").removeprefix("mmengine.")
    own: Registry
    for own, root in ((TRANSFORMS, ALL_TRANSFORMS), (MODELS, ALL_MODELS), (HOOKS, ALL_HOOKS)):
        own.import_from_location()
        kind = own.module_dict.get(bare) or root.module_dict.get(bare)
        if kind is not None:
            return kind
    return None


def _is_open(node: Mapping[str, Any], argument: str) -> bool:
    """Whether an argument is None, or left out although it has no default."""
    if argument in node:
        return node[argument] is None
    kind = _registered(node["type"])
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
    parts = [key for key in cfg if str(key).endswith("_dataloader") or key in ("model", "custom_hooks", "tta_pipeline")]
    return [
        (place, node, takes)
        for part in parts
        for place, node in walk(cfg[part], (part,))
        if isinstance(node.get("type"), str) and (takes := linked_sizes(node["type"]))
    ]


def dotted(place: Place) -> str:
    """A place as ``--cfg-options`` writes it."""
    return ".".join(map(str, place))
