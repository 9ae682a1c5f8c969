"""Export of a checkpoint: write a draft, verify it against the model on real images, then ship or reject it."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config

from efftasks.apis.building import Model, fuse, load, set_input_size
from efftasks.apis.describing import described_file
from efftasks.apis.entry_predictors import artifact_predictor
from efftasks.apis.evaluating import evaluate, test_images
from efftasks.apis.exits import CountedExits, held_to
from efftasks.apis.export_settings import ExportSettings
from efftasks.apis.formats import find_exporter, move_artifact, parts_of, suffix_of
from efftasks.apis.forms import head_of
from efftasks.apis.halving import forms_of, is_half, verify_forms, write_half
from efftasks.apis.predicting import predict
from efftasks.apis.quantizing import quantization_settings, save_sensitivity, write_quantized
from efftasks.apis.verifying_page import PageReport, verify_page
from efftasks.apis.ways import joined, verify_ways
from efftasks.bench.environment import describe_environment, instruction_sets
from efftasks.compression.quantization.convert import quantization_of
from efftasks.config import load_config
from efftasks.export.exporters.base import Exporter, PageOptions
from efftasks.export.exporters.table import EXPORTERS
from efftasks.export.page.browser import has_browser
from efftasks.export.quantization.sensitivity import LayerError
from efftasks.export.verify import Report
from efftasks.export.verify_metrics import check_metrics
from efftasks.imaging.images import UnreadableImage, read_image
from efftasks.imaging.sources import find_images
from efftasks.linking.linked import LinkedConfig
from efftasks.runtime.backends.table import BACKENDS
from efftasks.structures.errors import UserError, WorkError
from efftasks.structures.quantization import QuantizationSettings
from efftasks.structures.spec import ArtifactFile, ArtifactSpec

__all__ = ["UNVERIFIED", "ExportSettings", "Exported", "export", "export_model"]

UNVERIFIED = ".unverified"  # at the end of the names of files that do not agree with their model
_SHOWN = 4  # images that a page is verified on


DEFAULTS = ExportSettings()


class Exported(NamedTuple):
    """A file that agrees with its model."""

    path: Path
    spec: ArtifactSpec  # as it stands in the sidecar
    report: Report
    metrics: dict[str, dict[str, float]]  # of "pytorch", "artifact" and its forms; empty unless they were asked for
    sensitivity: tuple[LayerError, ...] = ()  # of the layers; empty unless it was asked for
    page: Path | None = None  # that runs the file, if the exporter writes one
    page_report: PageReport | None = None  # of the page, if there was a browser to verify it in


def export(
    config: str | Path | Config,
    checkpoint: str | Path,
    out: str | Path,
    settings: ExportSettings = DEFAULTS,
    options: dict[str, Any] | None = None,
) -> Exported:
    """Export a checkpoint, verify the file against the PyTorch model on real images, and only then put it in place.

    Images that cannot be read are left out, with a warning in the log.

    Args:
        config: path, name of a shipped config, or a linked one.
        checkpoint: the weights.
        out: folder for the file (``model.onnx``, or what the exporter's runtime reads) and its sidecar, the same name
            with ``.json``.
        settings: what the file is like, and how it is verified.
        options: overrides of the config, keys with dots; ``model.test_cfg.output`` chooses
            what the file of a segmentor gives.

    Raises:
        UserError: an input that does not fit.
        WorkError: the file does not agree with the model; it is kept, with its sidecar, as ``*.unverified``.
    """
    _check_folder(Path(out))
    _find_exporter(settings)  # refused before a large file is read
    cfg = load_config(config, options)
    if "test_cfg" in cfg.model:  # a file takes whole images, and is compared on them, whatever the config tests in
        cfg.model.test_cfg = dict(output=cfg.model.test_cfg.get("output", "labels"))
    model = load(cfg, checkpoint, width=settings.width)
    name = config.filename if isinstance(config, Config) else config
    source = {"config": str(name), "checkpoint_sha256": ArtifactFile.of(checkpoint).sha256}
    if settings.width is not None:
        source["width"] = f"{settings.width:g}"
    return export_model(model, out, settings, source)


def export_model(
    model: Model, out: str | Path, settings: ExportSettings = DEFAULTS, source: dict[str, str] | None = None
) -> Exported:
    """As :func:`export`, of a model from :func:`efftasks.apis.load`.

    Args:
        model: it stays as it is, but for the input size in its config. A segmentor that predicts in windows is refused,
            since a file takes whole images: :func:`export` loads it without.
        out: folder for the file and its sidecar.
        settings: what the file is like, and how it is verified.
        source: where the model came from, for the sidecar.
    """
    folder = Path(out)
    _check_folder(folder)
    if model.cfg.model.get("test_cfg", {}).get("mode") == "slide":
        raise UserError("model.test_cfg.mode: got 'slide', expected 'whole': a file takes whole images")
    exporter = _find_exporter(settings)
    exporter.check_model(head_of(model.cfg), model.task)
    if settings.size is not None:
        set_input_size(model.cfg, settings.size)
    trained = quantization_of(model)
    spec = described_file(model, settings, exporter, trained, source or {})
    shipped_input = spec.input.of_bytes() if settings.input == "uint8" else spec.input
    if settings.images is not None and spec.input.resize == "crop":
        raise UserError(f"--images: {spec.task} is verified in the boxes of the test data, and images have none")
    entries = _entries(model.cfg, settings)
    if exporter.page is not None:
        exporter.page.check(spec, settings.page)
    after_training = spec.precision == "int8" and trained is None
    quantization = _quantization(model.cfg, settings, exporter) if after_training else None

    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".export-") as drafts:
        suffix = suffix_of(exporter)
        draft = Path(drafts, f"{exporter.stem}{suffix}")
        spec, rows = _write_draft(model, spec, draft, exporter, settings, quantization, entries)
        ways = verify_ways(model, spec, draft.parent, exporter, entries, settings.opset)
        # Last: all that is measured on the way takes floats.
        if shipped_input != spec.input and exporter.take_bytes is not None:
            exporter.take_bytes(draft, spec.input)
            spec = replace(spec, input=shipped_input)
            exporter.write_metadata(draft, spec)
        spec.save(draft.with_suffix(".json"))  # for formats without room for a description
        forms = forms_of(draft, spec, exporter)
        report = joined(verify_forms(model, forms, spec, entries, exporter.backend), ways)
        measured: dict[str, Any] = {}
        if settings.evaluate and report.passed:
            measured.update(_metrics(model, forms, spec, exporter))
        metrics = measured.get("metrics", {})
        fault = check_metrics(spec.policy, metrics) if report.passed else str(report)
        measured["runtime"] = exporter.backend
        measured["machine"] = describe_environment()
        measured["instruction_sets"] = list(instruction_sets())
        spec = spec.with_verify({**report.to_dict(), **measured, "passed": not fault})
        exporter.write_metadata(draft, spec)
        path = folder / f"{exporter.stem}{suffix}"
        spec = replace(spec, files=_files(draft, path, spec, exporter))
        if fault:
            unverified = _move(draft, path, spec, exporter, UNVERIFIED)
            spec.save(f"{path.with_suffix('.json')}{UNVERIFIED}")
            raise WorkError(f"{unverified}: does not agree with the PyTorch model, so it was not shipped ({fault})")
        _move(draft, path, spec, exporter)
    spec.save(path.with_suffix(".json"))
    if exporter.page is None:
        return Exported(path, spec, report, metrics, rows)
    page = exporter.page.write(path, spec, settings.page)
    checked = _check_page(page, path, exporter, spec, entries)
    if checked is not None:
        spec = spec.with_verify({**spec.verify, "browser": checked.to_dict()})
        spec.save(path.with_suffix(".json"))
    return Exported(path, spec, report, metrics, rows, page, checked)


def _write_draft(
    model: Model,
    spec: ArtifactSpec,
    draft: Path,
    exporter: Exporter,
    settings: ExportSettings,
    quantization: QuantizationSettings | None,
    entries: list[dict[str, Any]],
) -> tuple[ArtifactSpec, tuple[LayerError, ...]]:
    """Write the file, to be verified, in a folder below that of the artifact.

    Returns:
        Its description, and the sensitivity of layers if it was asked for.
    """
    if is_half(exporter, spec):
        return write_half(fuse(model), spec, draft, exporter, entries, settings.opset), ()
    network = fuse(model)
    if quantization is None:
        exporter.export(network, spec, draft, opset=settings.opset)
        for rest in parts_of(draft, spec)[1:]:
            assert exporter.exits is not None
            exporter.exits.write_rest(network, spec, rest, opset=settings.opset)
        return spec, ()
    quantized = write_quantized(
        *(network, model.cfg, spec, draft, exporter, quantization),
        folder=settings.calib_images,
        sensitivity=settings.sensitivity,
        opset=settings.opset,
    )
    if quantized.sensitivity:
        save_sensitivity(quantized, draft.parents[1])
    return quantized.spec, quantized.sensitivity


def _check_page(
    page: Path, path: Path, exporter: Exporter, spec: ArtifactSpec, entries: list[dict[str, Any]]
) -> PageReport | None:
    """Verify a page in a browser where there is one.

    Raises:
        WorkError: it does not show what the runtime gives; the page ends in ``.unverified`` then.
    """
    reason = "Chromium and ChromeDriver are not on the path" if not has_browser() else ""
    if spec.input.pixel_range is not None:
        reason = "a browser reads 8 bits, and the model takes pictures of more"
    if reason:
        logging.getLogger("efftasks").warning("the page was not verified in a browser: %s", reason)
        return None
    report = verify_page(page, path, exporter.backend, [read_image(entry["img_path"]) for entry in entries[:_SHOWN]])
    if not report.passed:
        unverified = page.replace(f"{page}{UNVERIFIED}")
        raise WorkError(f"{unverified}: does not show what the runtime gives, so it was not shipped ({report})")
    return report


def _quantization(cfg: LinkedConfig, settings: ExportSettings, exporter: Exporter) -> QuantizationSettings:
    """How a file is quantized.

    Raises:
        UserError: an option says what the exporter does not do. A config may: it is for all exporters.
    """
    ways = exporter.quantization
    fixed = None if ways is None else ways.weight_bits
    stated = settings.quantization.get("weight_bits", fixed)
    if stated != fixed and fixed is not None:
        raise UserError(f"--weight-bits: got {stated}, expected {fixed}: --backend {exporter.name} has no other")
    return quantization_settings(cfg, settings.quantization)


def _find_exporter(settings: ExportSettings) -> Exporter:
    exporter = find_exporter(settings.backend, settings.precision)
    if exporter.page is None and settings.page != PageOptions():
        names = ", ".join(name for name, other in EXPORTERS.items() if other.page is not None)
        raise UserError(f"--ort-web, --single-file: got --backend {exporter.name}, expected one with a page: {names}")
    return exporter


def _files(draft: Path, target: Path, spec: ArtifactSpec, exporter: Exporter) -> tuple[ArtifactFile, ...]:
    """The files of a draft, by the names that they are going to have."""
    return tuple(
        ArtifactFile.of(source.with_suffix(suffix), part.with_suffix(suffix).name)
        for source, part in zip(parts_of(draft, spec), parts_of(target, spec))
        for suffix in BACKENDS[exporter.backend].files
    )


def _move(draft: Path, target: Path, spec: ArtifactSpec, exporter: Exporter, end: str = "") -> Path:
    """As :func:`move_artifact`, of all parts, the one that is opened first last."""
    for source, part in reversed([*zip(parts_of(draft, spec), parts_of(target, spec))][1:]):
        move_artifact(source, part, exporter, end)
    return move_artifact(draft, target, exporter, end)


def _check_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--out: {folder} is a file, expected a folder")


def _entries(cfg: LinkedConfig, settings: ExportSettings) -> list[dict[str, Any]]:
    """What there is to verify on, spread evenly: entries of the test data, or the images of a folder."""
    folder = settings.images
    entries: list[dict[str, Any]] = (
        test_images(cfg) if folder is None else [dict(img_path=path, img_id=0) for path in find_images(str(folder))]
    )
    step = max(1, len(entries) // settings.num_images)
    chosen = []
    for entry in entries[::step][: settings.num_images]:
        try:
            read_image(entry["img_path"])
        except UnreadableImage as error:
            logging.getLogger("efftasks").warning("skipped: %s", error)
        else:
            chosen.append(entry)
    if not chosen:
        place = folder or "the test data of the config"
        raise UserError(f"--images: {place} has no image that can be read, verifying needs some; give another folder")
    return chosen


def _metrics(model: Model, forms: Mapping[str, Path], spec: ArtifactSpec, exporter: Exporter) -> dict[str, Any]:
    """``metrics`` of model and file, in all its forms, on the test data of the model's config.

    Of a network with an early exit also ``exit_rate``, the share of the images that left there.
    """
    with held_to(model, spec):
        pytorch = evaluate(model.cfg, lambda entries: predict(model, entries), model.dataset_meta["classes"])
    files, rates = {}, {}
    for name, form in forms.items():
        predict_entries, classes = artifact_predictor(form, exporter.backend)
        counted = CountedExits(predict_entries)
        files[name] = evaluate(model.cfg, counted, classes).metrics
        if counted.rate is not None:
            rates["exit_rate"] = counted.rate
    return {"metrics": {"pytorch": pytorch.metrics, **files}, **rates}
