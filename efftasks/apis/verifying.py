"""Verification of an exported file against its model on real images, each with its own reading and preprocessing."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from efftasks.apis.entry_predictors import artifact_predictor
from efftasks.apis.exits import at_threshold, held_to
from efftasks.apis.predicting import infer, predict
from efftasks.export.verify import JointReport, Report, Verification, VerifyReport, objects_of, with_objects
from efftasks.export.verify_exits import Decision, compare_decisions
from efftasks.export.verify_raw import RawComparison, is_beyond_pictures
from efftasks.imaging.images import read_image, read_pixels
from efftasks.imaging.prediction import Prediction
from efftasks.runtime.exits import ALWAYS, EXITED, NEVER
from efftasks.runtime.predictor import Predictor
from efftasks.runtime.preprocess import as_the_network_sees
from efftasks.structures.comparison import Tolerance
from efftasks.structures.spec import EXIT_SCORE, ArtifactSpec

__all__ = ["verify"]

Entries = Sequence[dict[str, Any]]
_MOST_VALUES = 2**26  # in the masks of all candidates of one image: 256 MB


def verify(model: Any, artifact: Path, spec: ArtifactSpec, entries: Entries, backend: str | None = None) -> Report:
    """Compare model and file, as the file's policy says: detections on the image, and label maps; or raw outputs.

    Where the same numbers are expected, raw outputs are compared if detections on the image are no evidence, as of
    networks that have not learned yet: their scores all tie, or boxes lie so far away that clipping them to the image
    leaves nothing to compare.

    Of a network with an early exit, decisions at the threshold of the file are compared, and outputs where they are
    alike. If all images take one way, the outputs of the other way are compared as well, on all of them.

    Args:
        model: from :func:`efftasks.apis.load`.
        artifact: the exported file.
        spec: its description; ``policy`` is what the file is held against.
        entries: of a data set, or ``img_path`` alone.
        backend: the runtime; None takes the one for the file's suffix.
    """
    with held_to(model, spec):
        if spec.early_exit is None:
            return _compare_outputs(model, artifact, spec, entries, backend)
        threshold = spec.early_exit.threshold
        decisions = _decisions(model, Predictor(artifact, backend, exit_threshold=threshold), entries)
        alike = [entry for entry, one in zip(entries, decisions) if (one.ours >= threshold) == one.exited]
        exits = compare_decisions(decisions, threshold, spec.policy)
        parts: dict[str, Report] = {"exits": exits}
        if alike:
            parts["outputs"] = _compare_outputs(model, artifact, spec, alike, backend, threshold)
    for name, forced, is_missing in (
        ("at the exit", ALWAYS, exits.exited == 0),
        ("whole network", NEVER, exits.exited == exits.images),
    ):
        if is_missing:
            with at_threshold(model, forced):
                parts[name] = _compare_outputs(model, artifact, spec, entries, backend, forced)
    return JointReport(parts)


def _decisions(model: Any, predictor: Predictor, entries: Entries) -> list[Decision]:
    """Image by image, so that none is decided with others."""
    decisions = []
    for entry in entries:
        (prediction,) = predictor(entry["img_path"])
        assert prediction.exit_score is not None
        ours = float(infer(model, entry)[EXIT_SCORE])
        decisions.append(Decision(ours, prediction.exit_score, bool(prediction.exited)))
    return decisions


def _compare_outputs(
    model: Any,
    artifact: Path,
    spec: ArtifactSpec,
    entries: Entries,
    backend: str | None,
    exit_threshold: float | None = None,
) -> Report:
    """As :func:`verify`, of what the model predicts."""
    outputs = [output.name for output in model.outputs(spec.input.height, spec.input.width)]  # decoded
    verification = Verification(outputs, spec.policy)
    report = _compare(model, artifact_predictor(artifact, backend, exit_threshold)[0], verification, entries)
    objects = objects_of(report)
    if not isinstance(objects, VerifyReport) or "boxes" not in outputs:
        return report
    if objects.detections and not any(is_beyond_pictures(infer(model, entry)) for entry in entries[:2]):
        return report
    predictor = Predictor(artifact, backend, exit_threshold=exit_threshold)
    return with_objects(report, _compare_raw(model, predictor, entries, objects.tolerance))


def _compare(
    model: Any, predict_by_file: Callable[[Entries], Sequence[Prediction]], verification: Verification, entries: Entries
) -> Report:
    """In batches and alone."""
    parts = [entries[:1], *(entries[start : start + 4] for start in range(0, len(entries), 4))]
    for part in parts:  # masks of many images at once would take gigabytes
        for entry, ours, theirs in zip(part, predict(model, part), predict_by_file(part)):
            height, width = read_pixels(entry["img_path"]).shape[:2]
            verification.add(ours, theirs, (height, width))
    return verification.report()


def _compare_raw(model: Any, predictor: Predictor, entries: Entries, tolerance: Tolerance) -> Report:
    comparison = RawComparison(tolerance)
    for entry in entries:
        inputs, _ = predictor.preprocess([read_image(entry["img_path"], predictor.spec.input.pixel_range)])
        theirs = {name: value[0] for name, value in predictor.session.run(inputs).items() if name != EXITED}
        theirs["images"] = as_the_network_sees(inputs, predictor.spec.input)[0]
        ours = infer(model, entry)
        comparison.add(ours, theirs, lambda: infer(_wider(model, ours), entry))  # noqa: B023
    return comparison.report()


def _wider(model: Any, outputs: Any) -> Any:
    """A copy that gives every point or query once, with its best class; as many as masks leave room for."""
    wide = copy.deepcopy(model)
    wide.head.max_detections = _MOST_VALUES // max(1, outputs["masks"][0].size if "masks" in outputs else 1)
    wide.head.register_forward_hook(lambda head, images, raw: _best_class(raw))
    return wide


def _best_class(raw: Any) -> Any:
    """A raw prediction, a NamedTuple perhaps of others, in which the best class is the only one."""
    inner = {name: _best_class(part) for name, part in raw._asdict().items() if isinstance(part, tuple)}
    best = {"logits": raw.logits.amax(-1, keepdim=True)} if "logits" in raw._fields else {}
    return raw._replace(**inner, **best)
