"""Metrics and latency of a network with an early exit at several thresholds, beside networks without one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import efftasks.compat  # noqa: F401

# isort: split
import numpy as np
import torch
from tqdm import tqdm

from efftasks.apis.building import load
from efftasks.apis.evaluating import evaluate, test_images
from efftasks.apis.exits import CountedExits, set_exit_threshold
from efftasks.apis.predicting import predict, prepared_input
from efftasks.bench.environment import describe_environment
from efftasks.bench.latency import summarise
from efftasks.export.verify_metrics import main_metrics
from efftasks.imaging.images import read_image
from efftasks.linking.linked import LinkedConfig
from efftasks.runtime.artifact import Artifact
from efftasks.runtime.exits import ALWAYS, NEVER, check_threshold
from efftasks.runtime.names import short_names
from efftasks.runtime.predictor import Predictor
from efftasks.structures.errors import UserError
from efftasks.structures.suffixes import is_checkpoint

__all__ = ["CurveSettings", "ExitCurve", "measure_exit_curve"]

_WARMUP = 3  # images whose times do not count
_STEPS = 10  # of the exit rate, between thresholds that are chosen by the scores


@dataclass(frozen=True)
class CurveSettings:
    """At which thresholds, beside what, and how often.

    Raises:
        UserError: a threshold that is no number from 0, or a number out of its range.
    """

    thresholds: tuple[float, ...] = ()  # none: 0, quantiles of the scores of the test data, and one that none reaches
    beside: tuple[str, ...] = ()  # exported files without an exit
    backend: str | None = None  # runtime of exported files; None: that for the suffix
    threads: int | None = None  # of the runtime; None leaves them to it
    rounds: int = 3  # timed calls of each network on each image
    images: int = 256  # that are timed, at most, spread evenly over the test data

    def __post_init__(self) -> None:
        for threshold in self.thresholds:
            check_threshold(threshold)
        for name in ("rounds", "images"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name}: got {getattr(self, name)}, expected an integer from 1")


class ExitCurve(NamedTuple):
    """What was measured."""

    rows: list[dict[str, Any]]  # of the thresholds, ascending, and of the files beside
    metric: str  # that rows are compared by
    verdicts: list[str]  # a sentence for each file beside
    environment: dict[str, Any]


class _Network(NamedTuple):
    """A network at a threshold, or one without an exit."""

    row: dict[str, Any]
    predict: Callable[[Sequence[dict[str, Any]]], Sequence[Any]]
    prepare: Callable[[dict[str, Any]], Any]  # entry -> network input
    run: Callable[[Any], object]


def measure_exit_curve(cfg: LinkedConfig, model: str, settings: CurveSettings) -> ExitCurve:
    """Evaluate a network with an early exit on the test data at several thresholds, and time it there.

    All networks are timed in turn on one image after another, prepared in memory, each right after an untimed call of
    its own; of ``rounds`` times of an image the least counts. Statistics are over images.

    Args:
        cfg: from :func:`efftasks.config.load_config`.
        model: a checkpoint, timed in PyTorch, or an exported file.
        settings: at which thresholds, and beside what.

    Raises:
        UserError: the model has no exit, or a file beside has one, or cannot be run.
    """
    entries = test_images(cfg)
    subject = _of_checkpoint(cfg, model, settings) if is_checkpoint(model) else _of_file(model, settings)
    thresholds = sorted(set(settings.thresholds or _quantiles(subject.scores(entries))))
    networks = [*map(subject.at, thresholds), *(_static(path, settings) for path in settings.beside)]
    metric = ""
    for i, network in enumerate(networks):
        counted = CountedExits(network.predict)
        metrics = main_metrics(evaluate(cfg, counted, subject.classes, check=i == 0).metrics)
        metric = metric or next(iter(metrics))
        rate = {} if counted.rate is None else {"exit rate": counted.rate}
        network.row.update({**rate, **metrics})
    _time(networks, _spread(entries, settings.images), settings.rounds)
    names = short_names([model, *settings.beside])
    rows = [{**network.row, "model": names[network.row["model"]]} for network in networks]
    verdicts = [_verdict(rows[: len(thresholds)], row, metric) for row in rows[len(thresholds) :]]
    return ExitCurve(rows, metric, verdicts, describe_environment(settings.threads))


class _Subject(NamedTuple):
    """The network whose exit is measured."""

    classes: Sequence[str]
    at: Callable[[float], _Network]
    scores: Callable[[Sequence[dict[str, Any]]], list[float]]


def _of_file(path: str, settings: CurveSettings) -> _Subject:
    artifact = Artifact(path, settings.backend, settings.threads)
    if artifact.exit_threshold is None:
        raise UserError(f"--exit-thresholds: {path} has no early exit, expected a file that was exported with one")
    predictor = Predictor(artifact)

    def at(threshold: float) -> _Network:
        def predict_entries(entries: Sequence[dict[str, Any]]) -> Sequence[Any]:
            artifact.exit_threshold = threshold
            return _prediction(predictor)(entries)

        def run(inputs: np.ndarray) -> object:
            artifact.exit_threshold = threshold
            return artifact.run(inputs)

        return _Network({"model": path, "threshold": threshold}, predict_entries, _preparation(predictor), run)

    def scores(entries: Sequence[dict[str, Any]]) -> list[float]:
        artifact.exit_threshold = ALWAYS
        predictions = predictor((entry["img_path"] for entry in entries), batch_size=8)
        return [float(prediction.exit_score or 0.0) for prediction in predictions]

    return _Subject(artifact.spec.classes, at, scores)


def _of_checkpoint(cfg: LinkedConfig, path: str, settings: CurveSettings) -> _Subject:
    if settings.backend is not None:
        raise UserError(f"--backend: got {settings.backend!r}, but {path} is a checkpoint, which PyTorch runs")
    model: Any = load(cfg, path)
    set_exit_threshold(model, ALWAYS)  # it has one

    def at(threshold: float) -> _Network:
        def predict_entries(entries: Sequence[dict[str, Any]]) -> Sequence[Any]:
            set_exit_threshold(model, threshold)
            return predict(model, entries)

        @torch.no_grad()
        def run(images: torch.Tensor) -> object:
            set_exit_threshold(model, threshold)
            return model.infer(images)

        row = {"model": path, "threshold": threshold}
        return _Network(row, predict_entries, lambda entry: prepared_input(model, entry), run)

    @torch.no_grad()
    def scores(entries: Sequence[dict[str, Any]]) -> list[float]:
        set_exit_threshold(model, ALWAYS)
        return [float(model.infer(prepared_input(model, entry)).exit_score[0]) for entry in entries]

    return _Subject(model.dataset_meta["classes"], at, scores)


def _static(path: str, settings: CurveSettings) -> _Network:
    artifact = Artifact(path, settings.backend, settings.threads)
    if artifact.exit_threshold is not None:
        raise UserError(f"--beside: {path} has an early exit, expected a file of a network without one")
    predictor = Predictor(artifact)
    return _Network({"model": path}, _prediction(predictor), _preparation(predictor), artifact.run)


def _prediction(predictor: Predictor) -> Callable[[Sequence[dict[str, Any]]], Sequence[Any]]:
    """Entries -> predictions of their images."""
    return lambda entries: predictor([entry["img_path"] for entry in entries], batch_size=len(entries))


def _preparation(predictor: Predictor) -> Callable[[dict[str, Any]], np.ndarray]:
    """Entry -> an array of its own: the network input of one image."""

    def prepare(entry: dict[str, Any]) -> np.ndarray:
        inputs, _ = predictor.preprocess([read_image(entry["img_path"], predictor.spec.input.pixel_range)])
        return inputs.copy()

    return prepare


def _time(networks: Sequence[_Network], entries: Sequence[dict[str, Any]], rounds: int) -> None:
    """Add the statistics of latency to the rows of networks."""
    times = np.empty((len(networks), len(entries)))
    warmup = entries[:_WARMUP]
    for i, entry in enumerate(tqdm([*warmup, *entries], desc="measuring", leave=False, disable=None)):
        inputs = [network.prepare(entry) for network in networks]
        best = np.full(len(networks), np.inf)
        for _ in range(rounds):
            for k, network in enumerate(networks):
                network.run(inputs[k])
                start = time.perf_counter()
                network.run(inputs[k])
                best[k] = min(best[k], 1e3 * (time.perf_counter() - start))
        if i >= len(warmup):
            times[:, i - len(warmup)] = best
    for network, milliseconds in zip(networks, times):
        stats = summarise(milliseconds)
        network.row.update({"mean ms": stats.mean, "p50 ms": stats.p50, "p99 ms": stats.p99})


def _quantiles(scores: Sequence[float]) -> Iterator[float]:
    """Thresholds between which the exit rate changes by a tenth, and both ends."""
    yield ALWAYS
    yield from np.quantile(np.array(scores, np.float32), np.arange(1, _STEPS) / _STEPS, method="nearest").tolist()
    yield NEVER


def _spread(entries: Sequence[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    step = max(1, -(-len(entries) // count))
    return list(entries[::step])


def _verdict(curve: Sequence[dict[str, Any]], static: dict[str, Any], metric: str) -> str:
    """Whether a threshold is as good as a network without an exit, and as fast, and one of both better."""
    name, value, mean = static["model"], static[metric], static["mean ms"]
    beats = [
        row
        for row in curve
        if row[metric] >= value and row["mean ms"] <= mean and (row[metric] > value or row["mean ms"] < mean)
    ]
    if beats:
        best = max(beats, key=lambda row: (row[metric], -row["mean ms"]))
        return (
            f"threshold {best['threshold']:.4g} beats {name}: {metric} {best[metric]:.4f} at {best['mean ms']:.2f} ms "
            f"for {value:.4f} at {mean:.2f} ms"
        )
    affordable = [row for row in curve if row["mean ms"] <= mean]
    best = max(affordable, key=lambda row: row[metric]) if affordable else min(curve, key=lambda row: row["mean ms"])
    return (
        f"no threshold beats {name}: {metric} {value:.4f} at {mean:.2f} ms; nearest is {best['threshold']:.4g} with "
        f"{best[metric]:.4f} at {best['mean ms']:.2f} ms"
    )
