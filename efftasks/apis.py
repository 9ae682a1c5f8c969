"""What the commands, the docs and the tests call: configs, models and predictions on the PyTorch side."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import efftasks.compat

# isort: split
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import DefaultScope

from efftasks.config import (
    check_complete,
    class_metainfo,
    config_folder,
    config_of_checkpoint,
    config_path,
    fit_transform,
    innermost,
    load_config,
    pixel_range,
    shipped_configs,
)
from efftasks.engine.wrapped import bare_model
from efftasks.linking.pipelines import check_pipelines
from efftasks.linking.schedule import schedule_faults
from efftasks.linking.values import check_to_train
from efftasks.models.detectors import Detector
from efftasks.models.layers.fuse import fuse_model
from efftasks.models.pose_estimators import PoseEstimator
from efftasks.models.segmentors import Segmentor
from efftasks.precheck import precheck_together
from efftasks.registry import MODELS, RUNNERS
from efftasks.scoring import Evaluation, class_facts, draw_comparison, evaluate, test_images
from efftasks.structures.checkpoint import dataset_meta_of, load_matching, read_checkpoint, weights_of
from efftasks.structures.crops import CROP_PADDING
from efftasks.structures.errors import UserError
from efftasks.structures.prediction import Prediction
from efftasks.structures.sources import LoadedImage, each_image, in_batches, load_image
from efftasks.structures.spec import ArtifactSpec, InputSpec

__all__ = [
    "Evaluation",
    "build",
    "config_folder",
    "config_path",
    "describe",
    "draw_comparison",
    "evaluate",
    "fuse",
    "infer",
    "input_size",
    "load",
    "load_config",
    "predict",
    "set_input_size",
    "shipped_configs",
    "test_images",
    "train",
]

Model = Detector | PoseEstimator | Segmentor


def build(config: str | Path | Config) -> Model:
    """The model of a config, freshly initialised.

    Raises:
        UserError: a type that is not registered (the nearest is named), a wrong argument, or classes that nobody knows.
    """
    cfg = load_config(config)
    if not cfg.get("model"):
        raise UserError("model: the config has none, expected one to build")
    check_complete(cfg)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return MODELS.build(cfg.model)


def load(config: str | Path | Config, checkpoint: str | Path, device: str = "cpu") -> Model:
    """The model of a config with the weights of a checkpoint, ready to predict.

    Its classes are those of the checkpoint, whatever the config or its data say; a checkpoint that does not name any
    (weights alone) has the config's. ``model.dataset_meta`` has the classes, ``model.cfg`` the config linked with them.

    Raises:
        UserError: the checkpoint cannot be read safely or belongs to another architecture, or neither it nor the config
            knows the classes.
    """
    data = read_checkpoint(checkpoint)
    trained_on = dataset_meta_of(data, checkpoint)
    cfg = config_of_checkpoint(config, trained_on)
    metainfo = trained_on or class_metainfo(cfg)
    if not metainfo:
        raise UserError(
            f"{checkpoint}: it names no classes (meta.dataset_meta), and the config states none; expected `classes` in "
            "one of them"
        )
    model = build(cfg)
    load_matching(model, weights_of(data, checkpoint), name=str(checkpoint))
    model.cfg = cfg
    model.dataset_meta = metainfo
    return model.to(device).eval()


def train(
    cfg: Config,
    amp: bool | str = False,
    resume: str | None = None,
    launcher: str = "none",
    threads: int | None = None,
    check: bool = True,
) -> Any:
    """Train a linked config in ``cfg.work_dir``.

    Args:
        cfg: from :func:`load_config`.
        amp: mixed precision where it is faster: ``auto`` or True takes float16 with loss scaling on CUDA, and on a CPU
            bfloat16 if steps of the model take less time in it. ``bfloat16`` and (on CUDA) ``float16`` force it.
        resume: a checkpoint, or ``auto`` for the newest intact one of the work dir; None starts afresh.
        launcher: ``none``, ``pytorch``, ``slurm`` or ``mpi``.
        threads: of PyTorch on a CPU; None takes what the machine has, and less while other programs need its cores.
        check: look at the data before the first step, see :func:`efftasks.precheck.precheck`.

    Returns:
        The runner, after training.

    Raises:
        UserError: the config lacks a part that training needs, the input size does not suit the model, the data are
            not fit for it, or there is no such precision on this device.
    """
    check_to_train(cfg)
    check_complete(cfg)
    cfg.launcher = launcher
    if amp:
        cfg.merge_from_dict(_amp_options("auto" if amp is True else amp))
    cfg.setdefault("default_hooks", {}).pop("threads", None)  # that of an earlier run, in a dumped config
    if not torch.cuda.is_available():
        cfg.setdefault("env_cfg", {}).setdefault("dist_cfg", {}).update(backend="gloo")
        if threads is not None:
            torch.set_num_threads(threads)
        elif launcher == "none":
            cfg.merge_from_dict({"default_hooks.threads": dict(type="FairThreadsHook")})
    if resume is not None:
        cfg.resume = True
        cfg.load_from = None if resume == "auto" else resume
    runner = RUNNERS.get(cfg.get("runner_type", "EffRunner")).from_cfg(cfg)
    _check_divisor(cfg, bare_model(runner.model))
    if check:
        precheck_together(cfg, ("train", "val"), runner.logger)
    for sentence in (*schedule_faults(cfg), *(finding.message for finding in check_pipelines(cfg))):
        runner.logger.warning(sentence)
    runner.train()
    return runner


def _check_divisor(cfg: Config, model: Any) -> None:
    if not isinstance(model, (Detector, PoseEstimator, Segmentor)) or cfg.get("image_size") is None:
        return
    height, width = cfg.image_size
    if height % model.divisor or width % model.divisor:
        raise UserError(
            f"image_size: got {height} x {width}, expected multiples of {model.divisor}, the backbone's divisor"
        )


def _amp_options(precision: str) -> dict[str, Any]:
    """What a config needs for mixed precision."""
    on_gpu = torch.cuda.is_available()
    allowed = ("auto", "bfloat16", *(("float16",) if on_gpu else ()))
    if precision not in allowed:
        raise UserError(f"--amp: got {precision!r}, allowed on a {'GPU' if on_gpu else 'CPU'} are {', '.join(allowed)}")
    if not on_gpu:
        hook = dict(type="ChoosePrecision", mode=precision)
        return {"optim_wrapper.type": "CpuAmpOptimWrapper", "default_hooks.precision": hook}
    dtype = "float16" if precision == "auto" else precision
    scale = {"optim_wrapper.loss_scale": "dynamic"} if dtype == "float16" else {}
    return {"optim_wrapper.type": "AmpOptimWrapper", "optim_wrapper.dtype": dtype, **scale}


@torch.no_grad()
def predict(
    model: Model,
    images: Any,
    score_thr: float = 0.0,
    batch_size: int = 8,
) -> list[Prediction]:
    """Predict with a model of :func:`load`, through the test pipeline of its config.

    Args:
        model: from :func:`load`.
        images: as :class:`efftasks.runtime.predictor.Predictor` takes them; or an entry of a data set (a dict), or
            several. A top-down pose estimator takes entries alone: they have the boxes.
        score_thr: drop detections below.
        batch_size: images at a time.

    Returns:
        One :class:`Prediction` an image, boxes xyxy and label maps in pixels of that image.

    Raises:
        UserError: an image cannot be read.
    """
    if batch_size < 1:
        raise UserError(f"batch_size: got {batch_size}, expected an integer from 1")
    pipeline = _pipeline(model)
    results: list[Prediction] = []
    entries = iter([images]) if isinstance(images, dict) else each_image(images)
    for part in in_batches(enumerate(entries), batch_size):
        loaded = [_entry(model, image, i) for i, image in part]
        batch = pseudo_collate([_prepare(pipeline, image) for image in loaded])
        for image, sample in zip(loaded, model.test_step(batch)):
            results.append(_prediction(image, sample, model, score_thr))
    return results


@torch.no_grad()
def infer(model: Model, image: Any) -> dict[str, np.ndarray]:
    """What a model of :func:`load` infers from one image, as an artifact gives it: in pixels of the network input.

    Args:
        model: from :func:`load`.
        image: as :func:`predict` takes it.

    Returns:
        ``images``: the network input float32 (3, H, W); and the outputs by name, those of this image.
    """
    batch = pseudo_collate([_prepare(_pipeline(model), _entry(model, image))])
    images = model.data_preprocessor(batch, False)["inputs"]
    values = [value for value in model.infer(images) if value is not None]
    names = [output.name for output in model.outputs(images.shape[2], images.shape[3])]
    return {name: value[0].cpu().numpy() for name, value in zip(("images", *names), (images, *values), strict=True)}


def _pipeline(model: Model) -> Compose:
    with DefaultScope.overwrite_default_scope(model.cfg.default_scope):
        return Compose(innermost(model.cfg.test_dataloader.dataset).pipeline)


def _prediction(entry: dict[str, Any] | LoadedImage, sample: Any, model: Model, score_thr: float) -> Prediction:
    fields = dict(class_facts(model.dataset_meta), pixel_range=pixel_range(model.cfg))
    image: str | np.ndarray
    if isinstance(entry, dict):
        image = str(entry["img_path"])
    else:
        image, fields["name"] = entry.source, entry.name
    labels: Any = sample.pred_sem_seg.data[0].cpu().numpy() if "pred_sem_seg" in sample else None
    if "pred_instances" not in sample:
        return Prediction.of_labels(image, labels, **fields)
    found = sample.pred_instances[sample.pred_instances.scores >= score_thr]
    boxes, scores = found.bboxes.float().cpu().numpy(), found.scores.float().cpu().numpy()
    prediction = Prediction(image, boxes, scores, found.labels.cpu().numpy(), segmentation=labels, **fields)
    parts = {name: found[name].cpu().numpy() for name in ("masks", "keypoints") if name in found}
    return replace(prediction, **parts)


def _entry(model: Model, image: Any, index: int = 0) -> dict[str, Any] | LoadedImage:
    """An entry of a data set, or an image that has been read."""
    return dict(image) if isinstance(image, dict) else load_image(image, index, pixel_range(model.cfg))


def _prepare(pipeline: Compose, image: dict[str, Any] | LoadedImage) -> dict:
    if isinstance(image, dict):
        return pipeline(dict(image))
    size = image.pixels.shape[:2]
    info = dict(img=image.pixels, img_path=str(image.name), img_id=0, img_shape=size, ori_shape=size)
    for transform in pipeline.transforms[1:]:  # all but the loading
        info = transform(info)
    return info


def fuse(model: Model) -> Model:
    """A copy of the model for inference: batch norms folded, training-only branches dropped."""
    fused: Any = fuse_model(model.eval())
    return fused


def describe(model: Model) -> ArtifactSpec:
    """What an artifact of a loaded model says of itself."""
    fit = fit_transform(model.cfg)
    facts = model.data_preprocessor.normalisation
    height, width = fit["size"]
    divisor = model.divisor
    if height % divisor or width % divisor:
        raise UserError(f"image size: got {height} x {width}, expected multiples of {divisor}, the backbone's divisor")
    outputs = model.outputs(height, width)
    said = class_facts(model.dataset_meta)
    names, skeleton = said.pop("keypoint_names"), said.pop("skeleton")
    if any(output.name == "keypoints" for output in outputs):
        sigmas = tuple(float(sigma) for sigma in model.dataset_meta["keypoints"]["sigmas"])
        said.update(keypoints=names, keypoint_sigmas=sigmas, skeleton=skeleton)
    return ArtifactSpec(
        task=model.task,
        **said,
        input=InputSpec(
            name="images",
            height=height,
            width=width,
            mean=facts.mean,
            std=facts.std,
            **_fit_facts(fit),
            color=facts.color,
            divisor=divisor,
            pixel_range=pixel_range(model.cfg),
        ),
        outputs=outputs,
        versions={"efftasks": efftasks.__version__, "torch": torch.__version__},
    )


def _fit_facts(fit: dict[str, Any]) -> dict[str, Any]:
    """How an artifact's description states a FitImage or a CropBox."""
    facts: dict[str, Any] = dict(pad_value=float(fit.get("pad_value", 114)))
    if fit["type"].rpartition(".")[2] == "CropBox":
        return dict(facts, resize="crop", crop_padding=float(fit.get("padding", CROP_PADDING)))
    return dict(facts, resize=fit.get("mode", "letterbox"))


def input_size(cfg: Config) -> tuple[int, int]:
    """The (height, width) that the test pipeline of a config brings images to."""
    height, width = fit_transform(cfg)["size"]
    return height, width


def set_input_size(cfg: Config, size: tuple[int, int]) -> None:
    """Change the (height, width) that the test pipeline of a config brings images to."""
    fit_transform(cfg)["size"] = tuple(size)
