"""Building models from configs and checkpoints, and the description of their artifacts."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import efftasks.compat

# isort: split
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

from efftasks.checkpoints.files import dataset_meta_of, load_matching, read_checkpoint, weights_of
from efftasks.compression.building import build_model
from efftasks.compression.folding import fold_model, inference_model, strip_model
from efftasks.compression.plan import plan_of
from efftasks.compression.quantization.convert import converted
from efftasks.compression.transform import DecideContext
from efftasks.config import (
    check_complete,
    class_metainfo,
    config_of_checkpoint,
    fit_transform,
    image_fit,
    linked_config,
    pixel_range,
)
from efftasks.imaging.prediction import class_metadata
from efftasks.linking.declared import declared
from efftasks.linking.linked import LinkedConfig
from efftasks.linking.sizes import measures
from efftasks.models.detectors import Detector
from efftasks.models.pose_estimators import PoseEstimator
from efftasks.models.segmentors import Segmentor
from efftasks.structures.errors import UserError
from efftasks.structures.image_fit import ImageFit
from efftasks.structures.protocols import Elastic
from efftasks.structures.spec import ArtifactSpec, InputSpec

__all__ = [
    "Model",
    "build",
    "describe",
    "fold",
    "fuse",
    "input_size",
    "load",
    "of_width",
    "set_input_size",
    "strip",
    "widths_of",
]

Model = Detector | PoseEstimator | Segmentor


def build(config: str | Path | Config) -> Model:
    """Build the model of a config with initial weights, and apply its ``model_transforms``.

    Those that decide from training batches cannot be applied: training has batches.

    Raises:
        UserError: a type is not registered (the message suggests the most similar), an argument is wrong, or the
            classes are unknown.
    """
    return _build(linked_config(config))


def _build(cfg: Config, **kwargs: Any) -> Model:
    """The model of a linked config; ``kwargs`` are passed to :func:`build_model`."""
    if not cfg.get("model"):
        raise UserError("model: the config has none, expected one to build")
    check_complete(cfg)
    transforms = cfg.get("model_transforms") or ()
    if transforms:
        kwargs["context"] = _context(cfg)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model: Model = build_model(cfg.model, transforms, **kwargs).model
    return model


def _context(cfg: Config) -> DecideContext:
    """What transforms decide from without training: no batches."""
    size = tuple(cfg.image_size) if cfg.get("image_size") else input_size(LinkedConfig.of(cfg))

    def latency(model: Any, backend: str) -> float:
        from efftasks.apis.latency import exported_latency  # it imports runtimes

        return exported_latency(size)(model, backend)

    return DecideContext(image_size=size, latency=latency)


def load(
    config: str | Path | Config, checkpoint: str | Path, device: str = "cpu", *, width: float | None = None
) -> Model:
    """Build the model of a config with the weights of a checkpoint, in evaluation mode.

    A compressed checkpoint has the plan of its compression, which is replayed. The config's ``model_transforms`` that
    the checkpoint does not have, all of them for a dense one, are decided from its weights, and applied.

    A checkpoint of several widths (``Slimmable``) gives a plain model of one of them.

    The classes are those of the checkpoint, whatever the config or its data state. If the checkpoint has none (only
    weights), they are the config's. ``model.dataset_meta`` has the classes, ``model.cfg`` the config linked with them.

    Args:
        config: path, name of a shipped config, or a config.
        checkpoint: its weights.
        device: of the model.
        width: of a checkpoint of several widths; None for the largest.

    Raises:
        UserError: the checkpoint cannot be read safely or belongs to another architecture, neither it nor the config
            has classes, or it does not have that width.
    """
    data = read_checkpoint(checkpoint)
    trained_on = dataset_meta_of(data, checkpoint)
    cfg = config_of_checkpoint(config, trained_on)
    metainfo = trained_on if trained_on.get("classes") else class_metainfo(cfg)
    if not metainfo:
        raise UserError(
            f"{checkpoint}: it names no classes (meta.dataset_meta), and the config states none; expected `classes` in "
            "one of them"
        )
    weights = weights_of(data, checkpoint)

    def load_weights(module: Any) -> None:
        load_matching(module, weights, name=str(checkpoint))

    model = of_width(_build(cfg, plan=plan_of(data, checkpoint), load=load_weights, source=checkpoint), width)
    model.cfg = cfg
    model.dataset_meta = metainfo
    return model.to(device).eval()


def widths_of(model: Any) -> tuple[float, ...]:
    """The widths of a model from :func:`build`, the largest first; none of a plain model."""
    return tuple(model.choices()) if isinstance(model, Elastic) else ()


def of_width(model: Any, width: float | None = None) -> Model:
    """A width of a model as a plain model; a plain model itself.

    Args:
        model: from :func:`build`.
        width: None for the largest.

    Raises:
        UserError: it does not have that width.
    """
    if not isinstance(model, Elastic):
        if width is not None:
            raise UserError(
                f"--width: got {width:g}, but the model has one width alone; expected one that was trained with "
                "Slimmable in model_transforms"
            )
        return cast(Model, model)
    model.activate(model.choices()[0] if width is None else width)
    return cast(Model, model.extract())


def fold(model: Model) -> Model:
    """A copy with norms and parallel branches folded into convolutions, in evaluation mode. It can still be trained."""
    folded: Any = fold_model(model)
    return folded


def strip(model: Model) -> Model:
    """A copy without the parts that only training needs, in evaluation mode."""
    stripped: Any = strip_model(model)
    return stripped


def fuse(model: Model) -> Model:
    """A copy for inference: stripped, then folded; with integers where training had fake quantization.

    Of a model of several widths it is the largest.
    """
    fused: Any = converted(inference_model(of_width(model)))
    return fused


def describe(model: Model) -> ArtifactSpec:
    """The description of an artifact of a model from :func:`load`.

    Raises:
        UserError: the input size is no multiple of the backbone's divisor, or no transform of the test pipeline
            describes how it fits images to it.
    """
    normalization = model.data_preprocessor.normalization
    height, width = input_size(model.cfg)
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
            mean=normalization.mean,
            std=normalization.std,
            **_resize_fields(image_fit(model.cfg)),
            color=normalization.color,
            divisor=divisor,
            pixel_range=pixel_range(model.cfg),
        ),
        outputs=outputs,
        versions={"efftasks": efftasks.__version__, "torch": torch.__version__},
    )


def _resize_fields(fit: ImageFit) -> dict[str, Any]:
    """The fields of an artifact's description that state how images are resized; what does not apply is left out."""
    numbers = dict(pad_value=fit.pad_value, crop_padding=fit.padding)
    return dict(resize=fit.mode, **{name: float(value) for name, value in numbers.items() if value is not None})


def input_size(cfg: LinkedConfig) -> tuple[int, int]:
    """The (height, width) to which the test pipeline of a config resizes images.

    Raises:
        UserError: the pipeline states none.
    """
    size = image_fit(cfg).size
    if size is None:
        kind = fit_transform(cfg)["type"]
        raise UserError(f"{kind}: got no size, expected (height, width), or an image_size in the config")
    return size


def set_input_size(cfg: LinkedConfig, size: tuple[int, int]) -> None:
    """Set the (height, width) to which the test pipeline of a config resizes images.

    Raises:
        UserError: the transform that resizes them declares no argument for it.
    """
    transform = fit_transform(cfg)
    sizes = measures(size, size)
    for argument, measure in declared(transform["type"], "linked_sizes").items():
        transform[argument] = sizes[measure]
    if input_size(cfg) != tuple(size):
        raise UserError(f"{transform['type']}: its size cannot be set, expected its argument in linked_sizes")
