"""Models of configs and checkpoints, and what their artifacts state about them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import efftasks.compat

# isort: split
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

from efftasks.apis.evaluating import class_metadata
from efftasks.checkpoints.files import dataset_meta_of, load_matching, read_checkpoint, weights_of
from efftasks.compression.building import build_model
from efftasks.compression.plan import plan_of
from efftasks.config import (
    check_complete,
    class_metainfo,
    config_of_checkpoint,
    fit_transform,
    linked_config,
    pixel_range,
)
from efftasks.imaging.crops import CROP_PADDING
from efftasks.linking.linked import LinkedConfig
from efftasks.models.detectors import Detector
from efftasks.models.layers.fold import fold_model, inference_model, strip_model
from efftasks.models.pose_estimators import PoseEstimator
from efftasks.models.segmentors import Segmentor
from efftasks.structures.errors import UserError
from efftasks.structures.spec import ArtifactSpec, InputSpec

__all__ = ["Model", "build", "describe", "fold", "fuse", "input_size", "load", "set_input_size", "strip"]

Model = Detector | PoseEstimator | Segmentor


def build(config: str | Path | Config) -> Model:
    """The model of a config, freshly initialised, its transforms applied. A linked config is taken as it stands.

    Raises:
        UserError: a type that is not registered (the nearest is named), a wrong argument, or classes that nobody knows.
    """
    return _built(linked_config(config))


def _built(cfg: Config, **how: Any) -> Model:
    """The model of a linked config; ``how`` as :func:`build_model` has it."""
    if not cfg.get("model"):
        raise UserError("model: the config has none, expected one to build")
    check_complete(cfg)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model: Model = build_model(cfg.model, cfg.get("model_transforms") or (), **how).model
    return model


def load(config: str | Path | Config, checkpoint: str | Path, device: str = "cpu") -> Model:
    """The model of a config with the weights of a checkpoint, ready to predict.

    A compressed checkpoint says itself what was done to the model; of a dense one the config's transforms are decided
    from its weights, and applied to them.

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
    weights, plan = weights_of(data, checkpoint), plan_of(data, checkpoint)

    def fill(module: Any) -> None:
        load_matching(module, weights, name=str(checkpoint))

    if plan is None:
        model = _built(cfg, load=fill)
    else:
        model = _built(cfg, plan=plan, source=checkpoint)
        fill(model)
    model.cfg = cfg
    model.dataset_meta = metainfo
    return model.to(device).eval()


def fold(model: Model) -> Model:
    """A copy with norms and parallel branches folded into convolutions, in evaluation mode; it can be trained."""
    folded: Any = fold_model(model)
    return folded


def strip(model: Model) -> Model:
    """A copy without what only training has, in evaluation mode."""
    stripped: Any = strip_model(model)
    return stripped


def fuse(model: Model) -> Model:
    """A copy for inference: stripped, then folded."""
    fused: Any = inference_model(model)
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
    metadata = class_metadata(model.dataset_meta)
    names, skeleton = metadata.pop("keypoint_names"), metadata.pop("skeleton")
    if any(output.name == "keypoints" for output in outputs):
        sigmas = tuple(float(sigma) for sigma in model.dataset_meta["keypoints"]["sigmas"])
        metadata.update(keypoints=names, keypoint_sigmas=sigmas, skeleton=skeleton)
    return ArtifactSpec(
        task=model.task,
        **metadata,
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


def input_size(cfg: LinkedConfig) -> tuple[int, int]:
    """The (height, width) that the test pipeline of a config brings images to."""
    height, width = fit_transform(cfg)["size"]
    return height, width


def set_input_size(cfg: LinkedConfig, size: tuple[int, int]) -> None:
    """Change the (height, width) that the test pipeline of a config brings images to."""
    fit_transform(cfg)["size"] = tuple(size)
