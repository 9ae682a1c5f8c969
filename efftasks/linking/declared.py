"""What the class of a ``type=`` declares that it takes from the top of a config.

A registered class states it in class attributes:

- ``linked_sizes``: argument -> what of :func:`efftasks.linking.sizes.measures` it gets;
- ``linked_epochs``: arguments of a hook that count epochs;
- ``linked_progress``: arguments, with dots, that count training from 0 in the first epoch to 1 in the last;
- ``linked_values``: arguments that get the top-level key of the same name;
- ``class_file``: the name of the file of a data set in which its classes stand;
- ``fits_input``: whether a transform brings pictures to the size of the network input.

What classes of mmengine, mmdet and mmseg take stands in the one table here, since they cannot state it.
"""

from __future__ import annotations

from typing import Any

import efftasks.compat  # noqa: F401

# isort: split
from mmengine.registry import DATASETS as ALL_DATASETS
from mmengine.registry import HOOKS as ALL_HOOKS
from mmengine.registry import MODELS as ALL_MODELS
from mmengine.registry import TASK_UTILS as ALL_TASK_UTILS
from mmengine.registry import TRANSFORMS as ALL_TRANSFORMS
from mmengine.registry import Registry

from efftasks.registry import DATASETS, HOOKS, MODELS, TASK_UTILS, TRANSFORMS

__all__ = ["bare_name", "declared", "registered"]

_REGISTRIES = (
    (TRANSFORMS, ALL_TRANSFORMS),
    (MODELS, ALL_MODELS),
    (HOOKS, ALL_HOOKS),
    (TASK_UTILS, ALL_TASK_UTILS),
    (DATASETS, ALL_DATASETS),
)
# Sizes of the siblings are (width, height).
_MIXED = dict(linked_sizes={"img_scale": "image_size_wh"})
_RESIZED = dict(linked_sizes={"scale": "image_size_wh"})
_CROPPED = dict(linked_sizes={"crop_size": "crop_size"})
_FOREIGN: dict[str, dict[str, Any]] = {
    "mmdet.Mosaic": _MIXED,
    "mmdet.CachedMosaic": _MIXED,
    "mmdet.MixUp": _MIXED,
    "mmdet.CachedMixUp": _MIXED,
    "mmdet.Resize": _RESIZED,
    "mmseg.Resize": _RESIZED,
    "mmcv.Resize": _RESIZED,
    "Resize": _RESIZED,
    "mmdet.RandomAffine": dict(linked_sizes={"border": "mosaic_border"}),  # it cuts the middle out of a mosaic
    "mmdet.RandomCrop": _CROPPED,
    "mmseg.RandomCrop": _CROPPED,
    "mmdet.PipelineSwitchHook": dict(linked_epochs=("switch_epoch",)),
    "mmdet.YOLOXModeSwitchHook": dict(linked_epochs=("num_last_epochs",)),
    "EMAHook": dict(linked_epochs=("begin_epoch",)),
}


def declared(kind: Any, attribute: str) -> Any:
    """What a type declares; where it declares nothing, an empty dict for ``linked_sizes`` and else an empty tuple.

    Args:
        kind: the value of ``type`` in a config.
        attribute: one of those above.
    """
    empty: Any = {} if attribute == "linked_sizes" else ()
    foreign = _FOREIGN.get(bare_name(kind), {})
    return foreign.get(attribute) or getattr(registered(kind), attribute, empty)


def registered(kind: Any) -> type | None:
    """The class of this package, or of mmengine's own registries, where users register theirs; None where neither."""
    if kind is None or isinstance(kind, type):
        return kind
    bare = bare_name(kind)
    own: Registry
    for own, root in _REGISTRIES:
        own.import_from_location()
        member = own.module_dict.get(bare) or root.module_dict.get(bare)
        if member is not None:
            return member
    return None


def bare_name(kind: Any) -> str:
    """The name in a registry, without the scopes that a bare name is looked up in."""
    name = kind.__name__ if isinstance(kind, type) else str(kind)
    return name.removeprefix("efftasks.").removeprefix("mmengine.")
