"""The description of a file that is to be written: what was asked, the model has and the exporter can."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from efftasks.apis.building import Model, describe
from efftasks.apis.export_settings import NO_EXIT, ExportSettings
from efftasks.apis.formats import suffix_of
from efftasks.apis.forms import exported_spec
from efftasks.apis.ways import check_branches
from efftasks.export.exit_graphs import exit_of
from efftasks.export.exporters.base import Exporter
from efftasks.export.exporters.table import EXPORTERS
from efftasks.structures.errors import UserError
from efftasks.structures.spec import EXIT_SCORE, EXITS, INPUTS, ArtifactSpec, ExitSpec, QuantizationSpec
from efftasks.structures.suffixes import second_part

__all__ = ["described_file"]


def described_file(
    model: Model,
    settings: ExportSettings,
    exporter: Exporter,
    trained: QuantizationSpec | None,
    source: dict[str, str],
) -> ArtifactSpec:
    """The description of a file that is to be written.

    Args:
        model: from :func:`efftasks.apis.load`.
        settings: what is asked.
        exporter: that writes it.
        trained: how the model computes, where it was trained with fake quantization.
        source: where the model came from.

    Raises:
        UserError: the exporter cannot write it.
    """
    if settings.dynamic_size and exporter.fixed_size:
        raise UserError(f"--dynamic-size: --backend {exporter.name} writes files of one size; give --size H W instead")
    if settings.input == "uint8" and exporter.take_bytes is None:
        raise UserError(f"--input: got 'uint8', --backend {exporter.name} writes files that take {INPUTS[0]} alone")
    spec = exported_spec(model, describe(model), exporter, settings.decode)
    precision = _precision(settings, exporter, trained)
    check_branches(model, exporter, precision)
    image_input = replace(
        spec.input,
        dynamic_batch=settings.dynamic_batch and not exporter.fixed_size,
        dynamic_size=settings.dynamic_size,
    )
    spec = replace(
        spec,
        input=image_input,
        source=source,
        backend=exporter.name,
        precision=precision,
        quantization=trained or exporter.storage.get(precision),
    )
    return _with_exit(replace(spec, comparison=spec.policy), model, settings, exporter)


def _with_exit(spec: ArtifactSpec, model: Any, settings: ExportSettings, exporter: Exporter) -> ArtifactSpec:
    """The description with the model's exit, in the form that is asked for or that the exporter writes.

    Raises:
        UserError: the model has no exit, or the exporter does not write it so.
    """
    parts = exit_of(model)
    form, threshold = settings.exit, settings.exit_threshold
    if parts is None:
        if form in EXITS or threshold is not None:
            option, value = ("--exit", form) if form in EXITS else ("--exit-threshold", threshold)
            raise UserError(f"{option}: got {value!r}, but {type(model).__name__} has no early exit; leave it out")
        return spec
    if form is None:
        form = _exit_forms(exporter, spec.precision)[0]
    if form == NO_EXIT:
        if threshold is not None:
            raise UserError(
                f"--exit-threshold: got {threshold}, but --exit none writes the whole network; leave it out"
            )
        return replace(spec, outputs=tuple(output for output in spec.outputs if output.name != EXIT_SCORE))
    _check_exit(form, spec, exporter)
    size = (spec.input.height, spec.input.width)
    is_split = form == "split"
    early_exit = ExitSpec(
        form,
        parts.exit_threshold if threshold is None else threshold,
        second_part(Path(f"{exporter.stem}{suffix_of(exporter)}")).name if is_split else None,
        parts.carried(*size) if is_split else (),
    )
    image_input = replace(spec.input, dynamic_batch=spec.input.dynamic_batch and is_split)
    return replace(spec, input=image_input, early_exit=early_exit)


def _exit_forms(exporter: Exporter, precision: str) -> tuple[str, ...]:
    """The forms of exits that an exporter writes in a precision.

    Raises:
        UserError: there is none.
    """
    forms = exporter.exits.forms.get(precision, ()) if exporter.exits is not None else ()
    if not forms:
        others = ", ".join(name for name, other in EXPORTERS.items() if other.exits and precision in other.exits.forms)
        raise UserError(
            f"--exit: --backend {exporter.name} writes no early exit in {precision}, expected --exit none, which "
            "writes the whole network" + (f", or --backend {others}" if others else "")
        )
    return forms


def _check_exit(form: str, spec: ArtifactSpec, exporter: Exporter) -> None:
    """Whether an exporter writes an exit in this form.

    Raises:
        UserError: it does not.
    """
    forms = _exit_forms(exporter, spec.precision)
    if form not in forms:
        assert exporter.exits is not None
        reason = exporter.exits.reasons.get((form, spec.precision), "")
        raise UserError(
            f"--exit: got {form!r}, expected {' or '.join(forms)} of --backend {exporter.name} in {spec.precision}"
            + (f": {reason}" if reason else "")
        )
    if spec.decode == "outside":
        raise UserError("--decode: got 'outside', expected inside: the answer at an early exit is decoded in the file")
    if spec.input.dynamic_size:
        raise UserError("--dynamic-size: a file with an early exit has one size; give --size H W, or --exit none")


def _precision(settings: ExportSettings, exporter: Exporter, trained: QuantizationSpec | None) -> str:
    """The precision of the file: int8 if the model was trained for it.

    Raises:
        UserError: it was, and another precision or a calibration is asked for.
    """
    if trained is None:
        return settings.precision or exporter.precisions[0]
    if settings.quantization or settings.calib_images or settings.sensitivity:
        raise UserError(
            "--precision int8: got options of calibration, expected none: the checkpoint was trained with fake "
            "quantization, which measured the ranges"
        )
    if settings.precision not in (None, "int8"):
        raise UserError(
            f"--precision: got {settings.precision!r}, expected 'int8': the checkpoint was trained with fake "
            "quantization, and its weights are not those of a float model; export the checkpoint that it started from"
        )
    if "int8" not in exporter.precisions:
        raise UserError(
            f"--backend {exporter.name}: the checkpoint was trained with fake quantization, expected a backend that "
            "writes int8"
        )
    return "int8"
