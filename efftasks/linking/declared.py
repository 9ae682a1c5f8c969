"""Class attributes by which a registered class declares what is linked to its arguments.

- ``linked_sizes``: dict from argument to the name of a size in :func:`efftasks.linking.sizes.measures`;
- ``linked_epochs``: arguments of a hook that are numbers of epochs;
- ``linked_progress``: arguments, with dots, that are training progress: 0 in the first epoch, 1 in the last;
- ``linked_values``: ``("pixel_range",)`` for a loader of images that takes the top-level ``pixel_range``;
- ``renamed_arguments``: dict from former names of arguments to their names now;
- ``class_file``: name of the file in which a data set states its classes;
- ``fits_input``: whether a transform resizes images to the size of the network input.

A table in this module has them for classes of mmengine, mmdet and mmseg, which do not declare them.
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
# Their sizes are (width, height).
_MIX = dict(linked_sizes={"img_scale": "image_size_wh"})
_RESIZE = dict(linked_sizes={"scale": "image_size_wh"})
_CROP = dict(linked_sizes={"crop_size": "crop_size"})
_OPENMMLAB: dict[str, dict[str, Any]] = {
    "mmdet.Mosaic": _MIX,
    "mmdet.CachedMosaic": _MIX,
    "mmdet.MixUp": _MIX,
    "mmdet.CachedMixUp": _MIX,
    "mmdet.Resize": _RESIZE,
    "mmseg.Resize": _RESIZE,
    "mmcv.Resize": _RESIZE,
    "Resize": _RESIZE,
    "mmdet.RandomAffine": dict(linked_sizes={"border": "mosaic_border"}),  # it crops a mosaic to its center
    "mmdet.RandomCrop": _CROP,
    "mmseg.RandomCrop": _CROP,
    "mmdet.PipelineSwitchHook": dict(linked_epochs=("switch_epoch",)),
    "EMAHook": dict(linked_epochs=("begin_epoch",)),
}


def declared(kind: Any, attribute: str) -> Any:
    """The value of a class attribute listed above; without it an empty dict for mappings, else an empty tuple.

    Args:
        kind: the value of ``type`` in a config.
        attribute: name of the attribute.
    """
    empty: Any = {} if attribute in ("linked_sizes", "renamed_arguments") else ()
    openmmlab = _OPENMMLAB.get(bare_name(kind), {})
    return openmmlab.get(attribute) or getattr(registered(kind), attribute, empty)


def registered(kind: Any) -> type | None:
    """The class of a ``type``, in this package's registries or mmengine's, where users register theirs; else None."""
    if kind is None or isinstance(kind, type):
        return kind
    name = bare_name(kind)
    child: Registry
    for child, root in _REGISTRIES:
        child.import_from_location()
        member = child.module_dict.get(name) or root.module_dict.get(name)
        if member is not None:
            return member
    return None


def bare_name(kind: Any) -> str:
    """A name in a registry without the scopes ``efftasks`` and ``mmengine``, in which bare names are looked up."""
    name = kind.__name__ if isinstance(kind, type) else str(kind)
    return name.removeprefix("efftasks.").removeprefix("mmengine.")
