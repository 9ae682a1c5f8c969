"""Class attributes by which a registered class declares what is linked to its arguments.

- ``linked_sizes``: dict from argument to the name of a size in :func:`efftasks.linking.sizes.measures`;
- ``linked_metainfo``: dict from an argument of a part of a model to what it takes of the training data: ``num_classes``
  or ``sigmas``; arguments of these names need no declaration;
- ``linked_epochs``: arguments of a hook that are numbers of epochs;
- ``linked_progress``: arguments, with dots, that are training progress: 0 in the first epoch, 1 in the last;
- ``linked_values``: ``("pixel_range",)`` for a loader of images, ``("label_values", "ignore")`` for a data set of label
  maps, if they take these top-level values;
- ``renamed_arguments``: dict from former names of arguments to their names now;
- ``replaces``: dict from a transform that was removed to what is expected instead of it, for the message;
- ``scaled_arguments``: dict from an argument of a part of a model to what ``scale`` changes in it: ``width`` and
  ``depth`` are factors, 1 if they are not stated, ``channels`` one or several numbers of channels, ``blocks`` a number;
- ``linked_teacher``: those of the arguments ``teacher``, ``weights`` and ``class_names`` of a guide that are linked;
- ``runs_once``: whether a custom hook replaces the default hook of the same type;
- ``class_file``: name of the file in which a data set states its classes;
- ``annotations``: what the annotations of a data set or metric are, ``coco`` (a file ``ann_file``) or ``label maps``
  (two folders ``data_prefix.img_path`` and ``data_prefix.seg_map_path``), so that they are checked before training;
- ``needed_annotations``: static method from the arguments of a transform, data set or metric to the annotations that it
  needs, of ``masks`` and ``keypoints``;
- ``reads_images``, ``normalizes``: whether a transform loads or normalizes images, which must be the same in training
  and testing;
- ``how_it_fits``: static method from the arguments of a transform that resizes images to an
  :class:`~efftasks.structures.image_fit.ImageFit`, for the same comparison;
- ``fits_input``: whether that transform resizes to the network input in testing, which an artifact describes.

Static methods get the arguments of the config with the defaults of the class's signature (:func:`arguments_of`). A
table in this module has the declarations of classes of mmengine, mmcv, mmdet and mmseg, which do not state them.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import efftasks.compat  # noqa: F401

# isort: split
from mmcv.transforms import Resize
from mmengine.registry import DATASETS as ALL_DATASETS
from mmengine.registry import HOOKS as ALL_HOOKS
from mmengine.registry import METRICS as ALL_METRICS
from mmengine.registry import MODELS as ALL_MODELS
from mmengine.registry import TASK_UTILS as ALL_TASK_UTILS
from mmengine.registry import TRANSFORMS as ALL_TRANSFORMS
from mmengine.registry import Registry

from efftasks.registry import DATASETS, HOOKS, METRICS, MODELS, TASK_UTILS, TRANSFORMS
from efftasks.structures.errors import UserError
from efftasks.structures.image_fit import ImageFit, size_pair

__all__ = ["arguments_of", "bare_name", "declared", "fit_of", "needed_annotations", "registered", "replacement_of"]

_REGISTRIES = (
    (TRANSFORMS, ALL_TRANSFORMS),
    (MODELS, ALL_MODELS),
    (HOOKS, ALL_HOOKS),
    (TASK_UTILS, ALL_TASK_UTILS),
    (DATASETS, ALL_DATASETS),
    (METRICS, ALL_METRICS),
)


def _fit_of_resize(arguments: Mapping[str, Any]) -> ImageFit:
    """Of mmcv's Resize, from which those of mmdet and mmseg inherit."""
    complete = {**_defaults(Resize), **arguments}
    if complete["keep_ratio"]:
        return ImageFit("letterbox", None, interpolation=complete["interpolation"])
    scale = size_pair(complete["scale"])  # (width, height)
    return ImageFit("stretch", scale and scale[::-1], interpolation=complete["interpolation"])


def _needed_by_load_annotations(arguments: Mapping[str, Any]) -> set[str]:
    return {"masks"} if arguments.get("with_mask") else set()


def _needed_by_coco_metric(arguments: Mapping[str, Any]) -> set[str]:
    return {"masks"} if "segm" in (arguments.get("metric") or ()) else set()  # one name or several


def _in_scopes(name: str, **attributes: Any) -> dict[str, dict[str, Any]]:
    """The declarations of a transform of mmcv, which mmdet and mmseg have too."""
    return {scope + name: attributes for scope in ("", "mmcv.", "mmdet.", "mmseg.")}


# Their sizes are (width, height).
_MIX = dict(linked_sizes={"img_scale": "image_size_wh"})
_CROP = dict(linked_sizes={"crop_size": "crop_size"})
_OPENMMLAB: dict[str, dict[str, Any]] = {
    "mmdet.Mosaic": _MIX,
    "mmdet.CachedMosaic": _MIX,
    "mmdet.MixUp": _MIX,
    "mmdet.CachedMixUp": _MIX,
    **_in_scopes("Resize", linked_sizes={"scale": "image_size_wh"}, how_it_fits=_fit_of_resize),
    **_in_scopes("LoadImageFromFile", reads_images=True),
    **_in_scopes("Normalize", normalizes=True),
    "mmdet.LoadAnnotations": dict(needed_annotations=_needed_by_load_annotations),
    "mmdet.RandomAffine": dict(linked_sizes={"border": "mosaic_border"}),  # it crops a mosaic to its center
    "mmdet.RandomCrop": _CROP,
    "mmseg.RandomCrop": _CROP,
    "mmdet.PipelineSwitchHook": dict(linked_epochs=("switch_epoch",)),
    "EMAHook": dict(linked_epochs=("begin_epoch",), runs_once=True),
    "mmdet.CocoMetric": dict(annotations="coco", needed_annotations=_needed_by_coco_metric),
    "mmseg.CityscapesDataset": dict(annotations="label maps"),
}
_MAPPINGS = ("linked_sizes", "linked_metainfo", "renamed_arguments", "replaces", "scaled_arguments")


def declared(kind: Any, attribute: str) -> Any:
    """The value of a class attribute listed above; without it an empty dict for mappings, else an empty tuple.

    Args:
        kind: the value of ``type`` in a config.
        attribute: name of the attribute.
    """
    empty: Any = {} if attribute in _MAPPINGS else ()
    openmmlab = _OPENMMLAB.get(bare_name(kind), {})
    return openmmlab.get(attribute) or getattr(registered(kind), attribute, empty)


def arguments_of(node: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a config of a registered class, with the defaults of its signature.

    An argument without a default is None. Of a class in none of the registries that :func:`registered` searches, only
    the arguments of the config are known.
    """
    kind = registered(node.get("type"))
    stated = {key: value for key, value in node.items() if key != "type"}
    return stated if kind is None else {**_defaults(kind), **stated}


def fit_of(node: Mapping[str, Any]) -> ImageFit | None:
    """How a transform resizes images, from its config; None if its class does not describe it."""
    fit: ImageFit | None = _described(node, "how_it_fits")
    return fit


def needed_annotations(node: Mapping[str, Any]) -> set[str]:
    """The annotations that a transform, data set or metric needs, from its config: of ``masks`` and ``keypoints``."""
    return set(_described(node, "needed_annotations") or ())


def replacement_of(kind: Any) -> str | None:
    """What is expected instead of a transform that was removed; None for any other type."""
    if not isinstance(kind, str) or registered(kind) is not None:
        return None
    members = (*TRANSFORMS.module_dict.values(), *ALL_TRANSFORMS.module_dict.values())
    replacements = (declared(member, "replaces").get(bare_name(kind)) for member in members)
    return next((replacement for replacement in replacements if replacement), None)


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


def _described(node: Mapping[str, Any], attribute: str) -> Any:
    """The result of a static method that a class declares; None if it declares none."""
    method = declared(node.get("type"), attribute)
    try:
        return method(arguments_of(node)) if method else None
    except KeyError as error:
        raise UserError(
            f"{node['type']}: its {attribute} reads the argument {error}, which its constructor does not have; "
            f"expected a {attribute} of its own"
        ) from error


def _defaults(kind: type) -> dict[str, Any]:
    """The defaults of a class's constructor, and of those of its bases to which it passes arguments on."""
    defaults: dict[str, Any] = {}
    for base in kind.__mro__:
        constructor = vars(base).get("__init__")
        if not inspect.isfunction(constructor):
            continue
        passes_on = False
        for parameter in list(inspect.signature(constructor).parameters.values())[1:]:
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                passes_on = True
            else:
                defaults.setdefault(parameter.name, None if parameter.default is parameter.empty else parameter.default)
        if not passes_on:
            break
    return defaults
