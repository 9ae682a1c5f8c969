"""What a benchmark is asked to measure, and the rows of exported files: nothing here needs PyTorch."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from efftasks.bench.engines import TORCH_ENGINES, artifact_call, engines, random_input
from efftasks.bench.exit_rows import at_threshold, ways
from efftasks.bench.latency import timed
from efftasks.bench.memory import peak_rss_of, predict
from efftasks.runtime.artifact import Artifact
from efftasks.runtime.backends.table import find_backend
from efftasks.runtime.exits import NEVER
from efftasks.runtime.predictor import Predictor
from efftasks.structures.errors import UserError

__all__ = ["COLUMNS", "BenchmarkSettings", "Row", "artifact_rows", "label_of"]

COLUMNS = (
    "model",
    "backend",
    "input",
    "params M",
    "GFLOPs",
    "GMACs",
    "activations M",
    "file MB",
    "exit rate",
    "mean ms",
    "p50 ms",
    "p90 ms",
    "p99 ms",
    "iqr ms",
    "min ms",
    "peak RSS MB",
    "peak GPU MB",
    "speed-up",
    "FLOPs saved",
    "gap",
)


@dataclass(frozen=True)
class BenchmarkSettings:
    """On what models are measured, and how often.

    Raises:
        UserError: a number out of its range, an unknown backend, or no such device here.
    """

    backends: tuple[str, ...] = ()  # names; none: torch, and for artifacts their own runtime
    sizes: tuple[tuple[int, int], ...] = ()  # (height, width) in pixels, a row each; none: the models' own
    runs: int = 100
    warmup: int = 10
    threads: int | None = None  # of the runtime; None leaves them to it
    device: str = "cpu"  # of the torch backends: cpu or cuda
    width: float | None = None  # of models of several widths; None: all, a row each

    def __post_init__(self) -> None:
        for name, least in (("runs", 1), ("warmup", 0), ("threads", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UserError(f"--{name}: got {value}, expected an integer from {least}")
        for size in self.sizes:
            if min(size) < 1:
                raise UserError(f"--size: got {size[0]} {size[1]}, expected two integers from 1")
        for backend in self.backends:
            if backend not in engines():
                raise UserError(f"--backend: got {backend!r}, expected one of {', '.join(engines())}")
        if self.device == "cuda":
            import torch  # here alone: exported files are measured without it

            if not torch.cuda.is_available():
                raise UserError("--device: got cuda, but PyTorch sees no GPU here")


Row = tuple[dict[str, Any], Callable[[], float]]  # the columns that need no timing, and one timed call in milliseconds


def artifact_rows(path: str, size: tuple[int, int] | None, settings: BenchmarkSettings) -> Iterator[Row]:
    """Rows of an exported file on each runtime: the network, and end to end.

    Of a network with an early exit: the exit taken, the whole network, both as often as the test data had them, and the
    whole network end to end.
    """
    for backend in settings.backends:
        if backend in TORCH_ENGINES:
            allowed = ", ".join(name for name in engines() if name not in TORCH_ENGINES)
            raise UserError(f"--backend: got {backend!r}, allowed for {path} are {allowed}")
    for name in settings.backends or (find_backend(path).name,):
        artifact = Artifact(path, name, settings.threads)
        predictor = Predictor(artifact, size=size)
        height, width = predictor.size
        megabytes = sum(part.stat().st_size for part in artifact.parts) / 1e6
        row = {"model": path, "input": f"{height}x{width}", "file MB": megabytes}
        image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
        memory = peak_rss_of(predict, path, settings.threads, size, name)
        end_to_end = {**row, "backend": f"{name}, end to end", "peak RSS MB": memory}
        if artifact.exit_threshold is None:
            yield {**row, "backend": name}, artifact_call(artifact, predictor.size)
            yield end_to_end, timed(functools.partial(predictor, image))
            continue
        for kind, rate, call in ways(artifact, random_input(artifact, predictor.size)):
            yield {**row, "backend": f"{name}, {kind}", "exit rate": rate}, call
        full_call = at_threshold(artifact, NEVER, functools.partial(predictor, image))
        yield {**end_to_end, "exit rate": 0.0}, timed(full_call)


def label_of(model: str) -> str:
    """What the table calls a model: a config by its name, everything else as it was given."""
    return Path(model).stem if Path(model).suffix == ".py" else model
