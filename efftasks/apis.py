"""What the commands, the docs and the tests call: configs, models and predictions on the PyTorch side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from efftasks.registry import MODELS, RUNNERS
from efftasks.scoring import Evaluation, class_facts, draw_comparison, evaluate, test_images
from efftasks.structures.checkpoint import load_matching, read_checkpoint, weights_of
from efftasks.structures.crops import CROP_PADDING
from efftasks.structures.errors import UserError
from efftasks.structures.prediction import Prediction
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
Source = str | Path | np.ndarray | dict[str, Any]


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
    trained_on = _dataset_meta(data)
    cfg = config_of_checkpoint(config, trained_on)
    facts = trained_on or class_metainfo(cfg)
    if not facts:
        raise UserError(
            f"{checkpoint}: it names no classes (meta.dataset_meta), and the config states none; expected `classes` in "
            "one of them"
        )
    model = build(cfg)
    load_matching(model, weights_of(data, checkpoint), name=str(checkpoint))
    model.cfg = cfg
    model.dataset_meta = facts
    return model.to(device).eval()


def train(cfg: Config, amp: bool = False, resume: str | None = None, launcher: str = "none") -> Any:
    """Train a linked config in ``cfg.work_dir``.

    Args:
        cfg: from :func:`load_config`.
        amp: mixed precision, bfloat16 on a CPU and float16 with loss scaling on CUDA.
        resume: a checkpoint, or ``auto`` for the newest intact one of the work dir; None starts afresh.
        launcher: ``none``, ``pytorch``, ``slurm`` or ``mpi``.

    Returns:
        The runner, after training.

    Raises:
        UserError: the config lacks a part that training needs, or the input size does not suit the model.
    """
    check_to_train(cfg)
    check_complete(cfg)
    cfg.launcher = launcher
    if amp:
        cfg.optim_wrapper.update(_amp_wrapper())
    if not torch.cuda.is_available():
        cfg.setdefault("env_cfg", {}).setdefault("dist_cfg", {}).update(backend="gloo")
    if resume is not None:
        cfg.resume = True
        cfg.load_from = None if resume == "auto" else resume
    runner = RUNNERS.get(cfg.get("runner_type", "EffRunner")).from_cfg(cfg)
    _check_divisor(cfg, bare_model(runner.model))
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


def _dataset_meta(data: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint says of its training data; empty where it does not name the classes."""
    meta = data.get("meta")
    facts = meta.get("dataset_meta") if isinstance(meta, Mapping) else None
    return dict(facts) if isinstance(facts, Mapping) and facts.get("classes") else {}


def _amp_wrapper() -> dict[str, Any]:
    if torch.cuda.is_available():
        return dict(type="AmpOptimWrapper", dtype="float16", loss_scale="dynamic")
    return dict(type="CpuAmpOptimWrapper")


@torch.no_grad()
def predict(
    model: Model,
    images: Source | Sequence[Source],
    score_thr: float = 0.0,
    batch_size: int = 8,
) -> list[Prediction]:
    """Predict with a model of :func:`load`, through the test pipeline of its config.

    Args:
        model: from :func:`load`.
        images: a path, an array uint8 (H, W, 3) BGR, an entry of a data set (a dict), or several. A top-down pose
            estimator takes entries alone: they have the boxes.
        score_thr: drop detections below.
        batch_size: images at a time.

    Returns:
        One :class:`Prediction` an image, boxes xyxy and label maps in pixels of that image.

    Raises:
        UserError: an image cannot be read.
    """
    if isinstance(images, (str, Path, np.ndarray, dict)):
        images = [images]
    with DefaultScope.overwrite_default_scope(model.cfg.default_scope):
        pipeline = Compose(innermost(model.cfg.test_dataloader.dataset).pipeline)
    results: list[Prediction] = []
    for start in range(0, len(images), batch_size):
        part = images[start : start + batch_size]
        batch = pseudo_collate([_prepare(pipeline, image) for image in part])
        for image, sample in zip(part, model.test_step(batch)):
            results.append(_prediction(_named(image), sample, model, score_thr))
    return results


def _prediction(image: str | np.ndarray, sample: Any, model: Model, score_thr: float) -> Prediction:
    facts = class_facts(model.dataset_meta)
    labels: Any = sample.pred_sem_seg.data[0].cpu().numpy() if "pred_sem_seg" in sample else None
    if "pred_instances" not in sample:
        return Prediction.of_labels(image, labels, **facts)
    found = sample.pred_instances[sample.pred_instances.scores >= score_thr]
    boxes, scores = found.bboxes.float().cpu().numpy(), found.scores.float().cpu().numpy()
    prediction = Prediction(image, boxes, scores, found.labels.cpu().numpy(), segmentation=labels, **facts)
    parts = {name: found[name].cpu().numpy() for name in ("masks", "keypoints") if name in found}
    return replace(prediction, **parts)


def _named(image: Source) -> str | np.ndarray:
    """An array, or the path of the image."""
    if isinstance(image, dict):
        return str(image["img_path"])
    return image if isinstance(image, np.ndarray) else str(image)


def _prepare(pipeline: Compose, image: Source) -> dict:
    if isinstance(image, dict):
        return pipeline(dict(image))
    if not isinstance(image, np.ndarray):
        return pipeline(dict(img_path=str(image), img_id=0))
    info = dict(img=image, img_path="", img_id=0, img_shape=image.shape[:2], ori_shape=image.shape[:2])
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
