"""The registries of this package, children of mmengine's root registries.

A name without a scope is looked up here first and then in mmengine; ``mmdet.X`` and ``mmseg.X`` are looked up there.
``locations`` lists the modules that register something; they are imported at the first lookup.
"""

from mmengine import registry as _roots
from mmengine.registry import Registry

__all__ = [
    "DATASETS",
    "HOOKS",
    "LOOPS",
    "METRICS",
    "MODELS",
    "MODEL_TRANSFORMS",
    "OPTIM_WRAPPERS",
    "OPTIM_WRAPPER_CONSTRUCTORS",
    "RUNNERS",
    "TASK_UTILS",
    "TRANSFORMS",
]


def _child(name: str, parent: Registry, *modules: str) -> Registry:
    # compat comes first: it makes mmdet and mmseg importable without compiled operators.
    locations = ["efftasks.compat", *(f"efftasks.{module}" for module in modules)]
    return Registry(name, parent=parent, scope="efftasks", locations=locations)


MODELS = _child(
    "model",
    _roots.MODELS,
    "models.detectors",
    "models.exits.backbone_exit",
    "models.exits.decoder_exit",
    "models.exits.gates",
    "models.guides.adapters",
    "models.guides.distillation",
    "models.guides.one_to_many_term",
    "models.guides.query_term",
    "models.guides.terms",
    "models.pose_estimators",
    "models.segmentors",
    "models.preprocessors",
    "models.batch_augments",
    "models.backbones.base",
    "models.backbones.mobilenetv4",
    "models.backbones.hgnetv2",
    "models.backbones.regnet",
    "models.backbones.repvit",
    "models.backbones.resnet_vd",
    "models.backbones.sctnet",
    "models.backbones.seaformer",
    "models.backbones.starnet",
    "models.backbones.timm_backbone",
    "models.necks.hybrid_encoder",
    "models.necks.instance_context_encoder",
    "models.necks.light_pan",
    "models.necks.lite_encoder",
    "models.det_heads.denoising",
    "models.det_heads.o2o_head",
    "models.det_heads.query_decoder",
    "models.det_heads.query_head",
    "models.det_heads.query_selection",
    "models.insseg_heads.prototype_masks",
    "models.insseg_heads.query_masks",
    "models.insseg_heads.sparse_inst_head",
    "models.pose_heads.detrpose_decoder",
    "models.pose_heads.detrpose_denoising",
    "models.pose_heads.detrpose_head",
    "models.pose_heads.detrpose_selection",
    "models.pose_heads.point_keypoints",
    "models.pose_heads.simcc_head",
    "models.seg_heads.fpn_lite_head",
    "models.seg_heads.pp_liteseg_head",
    "models.seg_heads.sct_head",
    "models.seg_heads.seaformer_head",
    "models.seg_heads.transformer_guide",
    "models.losses.boundary",
    "models.losses.detection",
    "models.losses.dice",
    "models.losses.distillation_logits",
    "models.losses.distillation_maps",
    "models.losses.instance_masks",
    "models.losses.mask_terms",
    "models.losses.masks",
    "models.losses.pose_criterion",
    "models.losses.pose_terms",
    "models.losses.set_criterion",
    "models.losses.set_terms",
)
# Changes of a built model's layers; mmengine has no such registry.
MODEL_TRANSFORMS = Registry(
    "model transform",
    scope="efftasks",
    locations=[
        "efftasks.compat",
        "efftasks.compression.low_rank",
        "efftasks.compression.pruning.prune",
        "efftasks.compression.quantization.quantize_aware",
        "efftasks.dynamic.widths.slimmable",
        "efftasks.models.conditional",
    ],
)
TASK_UTILS = _child(
    "task util",
    _roots.TASK_UTILS,
    "models.assigners.hungarian",
    "models.assigners.mask_matcher",
    "models.assigners.pose_matcher",
    "models.assigners.task_aligned",
)
DATASETS = _child("dataset", _roots.DATASETS, "datasets.coco", "datasets.coco_topdown", "datasets.semantic")
TRANSFORMS = _child(
    "transform",
    _roots.TRANSFORMS,
    "datasets.transforms.filter_objects",
    "datasets.transforms.fit_image",
    "datasets.transforms.load_objects",
    "datasets.transforms.loading",
    "datasets.transforms.object_mixup",
    "datasets.transforms.object_mosaic",
    "datasets.transforms.pack_objects",
    "datasets.transforms.random_crop",
    "datasets.transforms.random_scaled_crop",
    "datasets.transforms.random_warp",
    "datasets.transforms.topdown",
)
METRICS = _child("metric", _roots.METRICS, "evaluation.coco_metric", "evaluation.semantic_metric")
HOOKS = _child(
    "hook",
    _roots.HOOKS,
    "engine.hooks.checkpoint",
    "engine.hooks.early_stopping",
    "engine.hooks.epoch_seed",
    "engine.hooks.fair_threads",
    "engine.hooks.freeze",
    "engine.hooks.group_sparsity",
    "engine.hooks.precision",
    "engine.hooks.progress",
    "engine.hooks.quantization",
    "engine.hooks.restart",
    "engine.hooks.skipped_images",
)
LOOPS = _child("loop", _roots.LOOPS, "engine.loops")
RUNNERS = _child("runner", _roots.RUNNERS, "engine.runner")
OPTIM_WRAPPERS = _child("optimizer wrapper", _roots.OPTIM_WRAPPERS, "engine.amp")
OPTIM_WRAPPER_CONSTRUCTORS = _child(
    "optimizer wrapper constructor",
    _roots.OPTIM_WRAPPER_CONSTRUCTORS,
    "engine.optimizers",
    "engine.param_groups",
)
VIS_BACKENDS = _child(
    "vis_backend", _roots.VISBACKENDS, "engine.loggers.clearml", "engine.loggers.mlflow", "engine.loggers.wandb"
)

# Registries without members: mmengine warns if a scope lacks the registry of a lookup.
_EMPTY = (
    _child("data sampler", _roots.DATA_SAMPLERS),
    _child("parameter scheduler", _roots.PARAM_SCHEDULERS),
    _child("visualizer", _roots.VISUALIZERS),
    _child("log_processor", _roots.LOG_PROCESSORS),
    _child("optimizer", _roots.OPTIMIZERS),
    _child("weight initializer", _roots.WEIGHT_INITIALIZERS),
)
