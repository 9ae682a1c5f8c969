"""Child registries of mmengine's roots, one for each kind of thing this package adds.

A bare name in a config is looked up here first and then in mmengine; ``mmdet.X`` and ``mmseg.X`` reach the siblings.
``locations`` name the modules that register something; they are imported on the first lookup, never before.
"""

from mmengine.registry import DATASETS as _DATASETS
from mmengine.registry import HOOKS as _HOOKS
from mmengine.registry import METRICS as _METRICS
from mmengine.registry import MODELS as _MODELS
from mmengine.registry import OPTIM_WRAPPERS as _OPTIM_WRAPPERS
from mmengine.registry import RUNNERS as _RUNNERS
from mmengine.registry import TASK_UTILS as _TASK_UTILS
from mmengine.registry import TRANSFORMS as _TRANSFORMS
from mmengine.registry import Registry

__all__ = [
    "DATASETS",
    "HOOKS",
    "METRICS",
    "MODELS",
    "OPTIM_WRAPPERS",
    "RUNNERS",
    "TASK_UTILS",
    "TRANSFORMS",
]


def _child(name: str, parent: Registry, *modules: str) -> Registry:
    # compat first: it makes the sibling scopes (mmdet, mmseg) importable without compiled operators.
    locations = ["efftasks.compat", *(f"efftasks.{module}" for module in modules)]
    return Registry(name, parent=parent, scope="efftasks", locations=locations)


MODELS = _child(
    "model",
    _MODELS,
    "models.detectors",
    "models.preprocessors",
    "models.backbones.base",
    "models.backbones.mobilenetv4",
    "models.backbones.hgnetv2",
    "models.backbones.timm_backbone",
    "models.necks.light_pan",
    "models.det_heads.o2o_head",
    "models.losses.detection",
)
TASK_UTILS = _child("task util", _TASK_UTILS, "models.assigners.task_aligned")
DATASETS = _child("dataset", _DATASETS, "datasets.coco")
TRANSFORMS = _child("transform", _TRANSFORMS, "datasets.transforms.loading", "datasets.transforms.fit_image")
METRICS = _child("metric", _METRICS, "evaluation.coco_metric")
HOOKS = _child(
    "hook",
    _HOOKS,
    "engine.hooks.checkpoint",
    "engine.hooks.epoch_seed",
    "engine.hooks.progress",
    "engine.hooks.skipped_images",
)
RUNNERS = _child("runner", _RUNNERS, "engine.runner")
OPTIM_WRAPPERS = _child("optimizer wrapper", _OPTIM_WRAPPERS, "engine.amp")
