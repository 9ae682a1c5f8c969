"""Writing the quantized file of a model: calibration, the method by the metric, the sensitivity of layers."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from efftasks.apis.calibrating import TrainingImages, choose_images, subset_config
from efftasks.apis.entry_predictors import artifact_predictor
from efftasks.apis.evaluating import evaluate
from efftasks.apis.formats import suffix_of
from efftasks.export.exporters.base import Exporter, Quantizer
from efftasks.export.exporters.onnx import prepare_qdq
from efftasks.export.quantization.layers import float_parts_of
from efftasks.export.quantization.qdq import QdqQuantizer
from efftasks.export.quantization.recipe import Recipe
from efftasks.export.quantization.sensitivity import LayerError, layers_to_keep, sweep
from efftasks.export.verify_metrics import main_metrics
from efftasks.linking.linked import LinkedConfig
from efftasks.structures.errors import UserError
from efftasks.structures.quantization import QuantizationSettings
from efftasks.structures.spec import ArtifactSpec, QuantizationSpec

__all__ = ["Quantized", "quantization_settings", "save_sensitivity", "write_quantized"]

_LOG = logging.getLogger("efftasks")
_SWEPT = 16  # images that the sensitivity of layers is measured on


@dataclass(frozen=True)
class Quantized:
    """A quantized file, not verified.

    Attributes:
        path: the file.
        spec: its description.
        settings: how it was quantized, as a config states it.
        sensitivity: of the layers, the largest error first; empty unless it was asked for.
    """

    path: Path
    spec: ArtifactSpec
    settings: QuantizationSettings
    sensitivity: tuple[LayerError, ...]


def quantization_settings(cfg: LinkedConfig, overrides: Mapping[str, Any]) -> QuantizationSettings:
    """The ``quantization`` of a config, with overrides.

    Raises:
        UserError: a key or value is not allowed.
    """
    return QuantizationSettings.from_config({**(cfg.get("quantization") or {}), **overrides})


def write_quantized(
    model: Any,
    cfg: LinkedConfig,
    spec: ArtifactSpec,
    path: Path,
    exporter: Exporter,
    settings: QuantizationSettings,
    *,
    folder: str | Path | None = None,
    sensitivity: bool = False,
    opset: int = 18,
) -> Quantized:
    """Write the quantized file of a model.

    Args:
        model: fused, in evaluation mode, on the CPU.
        cfg: its config.
        spec: description of the file.
        path: of the file; other files are written beside it.
        exporter: that writes it.
        settings: how.
        folder: images to calibrate on instead of the training data.
        sensitivity: measure it first, and leave the layers in float that add most of the error.
        opset: of ONNX.

    Raises:
        UserError: the exporter has no such method, a layer does not exist, or there are no images.
    """
    quantization = exporter.quantization
    assert quantization is not None  # the exporter was checked
    if settings.method not in ("auto", *quantization.methods):
        raise UserError(
            f"quantization.method: got {settings.method!r}, expected one of auto, {', '.join(quantization.methods)}: "
            f"what --backend {exporter.name} has"
        )
    if sensitivity and spec.early_exit is not None:
        raise UserError("--sensitivity: measures one network, expected --exit none for a model with an early exit")
    if quantization.weight_bits is not None:
        settings = replace(settings, weight_bits=quantization.weight_bits)
    if len(quantization.methods) == 1:  # there is nothing to compare, and no images need be held out for it
        settings = replace(settings, method=quantization.methods[0])
    images = choose_images(cfg, spec.input, settings, folder)
    parts = float_parts_of(model)
    quantizer = quantization.prepare(model, spec, path.parent, images.calibration, parts, opset=opset)
    rows: tuple[LayerError, ...] = ()
    if sensitivity:
        # In ONNX Runtime whatever the backend: ranges are measured once, and a layer takes a fraction of a second.
        measured, swept = quantizer, images.calibration
        if not isinstance(measured, QdqQuantizer):
            first = replace(spec, input=replace(spec.input, layout="NCHW"))
            swept = choose_images(cfg, first.input, settings, folder).calibration
            measured = prepare_qdq(model, first, path.parent, swept, parts, opset=opset)
        assert isinstance(measured, QdqQuantizer)  # of a network in one file
        recipe = Recipe("minmax", settings.weight_bits, settings.float_layers)
        rows = tuple(sweep(measured, recipe, swept.first(_SWEPT)))
        kept = [name for name in layers_to_keep(rows) if name not in settings.float_layers]
        settings = replace(settings, float_layers=(*settings.float_layers, *kept))
    recipe = Recipe(settings.method, settings.weight_bits, settings.float_layers)
    if recipe.method == "auto":
        recipe = replace(recipe, method=_best_method(quantizer, recipe, cfg, spec, path, exporter, images))
    kept_float = quantizer.write(path, recipe)
    stated = QuantizationSpec(
        weights=quantization.weights,
        activations=quantization.activations,
        granularity="per-channel",
        calibration_images=len(images.calibration),
        calibration_sha256=images.calibration.digest,
        float_layers=kept_float,
        method=recipe.method,
        weight_bits=recipe.weight_bits,
    )
    versions = {**spec.versions, **{name: metadata.version(name) for name in quantization.packages}}
    settings = replace(settings, images=images.limit)  # a config that states the method holds no images out
    return Quantized(path, replace(spec, quantization=stated, versions=versions), settings, rows)


def save_sensitivity(quantized: Quantized, folder: Path) -> tuple[Path, Path]:
    """Write the sensitivity of layers, and the ``quantization`` that follows from it as a config.

    Returns:
        Paths of ``sensitivity.json``, and of ``quantization.py``, which a config may have among its ``_base_``.
    """
    table, config = folder / "sensitivity.json", folder / "quantization.py"
    rows = [{**asdict(row), "decibels": round(row.decibels, 2)} for row in quantized.sensitivity]
    table.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    stated = quantized.spec.quantization
    assert stated is not None and stated.method is not None
    arguments = asdict(replace(quantized.settings, method=stated.method))
    text = ",\n".join(
        f"    {name}={list(value) if isinstance(value, tuple) else value!r}" for name, value in arguments.items()
    )
    config.write_text(f"quantization = dict(\n{text},\n)\n", encoding="utf-8")
    return table, config


def _best_method(
    quantizer: Quantizer,
    recipe: Recipe,
    cfg: LinkedConfig,
    spec: ArtifactSpec,
    path: Path,
    exporter: Exporter,
    images: TrainingImages,
) -> str:
    """The method whose file has the best metric on training images that calibration did not use."""
    assert exporter.quantization is not None
    methods = exporter.quantization.methods
    if not images.held_out:
        _LOG.info("quantization.method: no annotated training images to compare on, so that %s is taken", methods[0])
        return methods[0]
    subset = subset_config(cfg, images, path.parent)
    scores = {}
    for method in methods:
        candidate = path.with_name(f"{method}{suffix_of(exporter)}")
        quantizer.write(candidate, replace(recipe, method=method))
        spec.save(candidate.with_suffix(".json"))
        metrics = evaluate(subset, *artifact_predictor(candidate, exporter.backend), check=False).metrics
        scores[method] = _score(metrics)
    _LOG.info(
        "quantization.method: on %d training images %s",
        len(images.held_out),
        ", ".join(f"{method} {score:.4f}" for method, score in scores.items()),
    )
    return max(methods, key=lambda method: scores[method])  # the first of equal ones


def _score(metrics: Mapping[str, float]) -> float:
    """The mean of the main metrics over what a model predicts; COCO's -1 is of nothing, and mIoU is in percent."""
    main = main_metrics(metrics)
    values = [value / 100 if name.endswith("mIoU") else value for name, value in main.items() if value >= 0]
    return sum(values) / len(values) if values else 0.0
