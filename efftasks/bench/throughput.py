"""Images per second from files to predictions, beside the bare session, interleaved in one process."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from efftasks.bench.rows import BenchmarkSettings
from efftasks.runtime.backends.table import find_backend
from efftasks.runtime.pictures import FreeStems, PictureWriter
from efftasks.runtime.predictor import Predictor, find_images
from efftasks.runtime.sources import Item
from efftasks.structures.errors import UserError

__all__ = ["COLUMNS", "SESSION", "measure_throughput", "ratios"]

SESSION = "session alone, tensors in memory"
COLUMNS = ("model", "backend", "input", "what", "images/s", "of the session", "least", "most")
_TENSORS = 32  # held in memory; a round of more images uses them again
_WARMUP = 8  # images
_SCORE_THR = 0.3  # as `efftasks predict` has it

Way = Callable[[Sequence[str]], None]  # over the images of these paths


def measure_throughput(
    path: str, images: str | Path, settings: BenchmarkSettings, rounds: int = 5, readers: int | None = None
) -> list[dict[str, Any]]:
    """Run a file over all images of a folder, several times in turn.

    Args:
        path: the artifact.
        images: folder, pattern or file.
        settings: backends, sizes and threads; the others are of no consequence.
        rounds: how often each of the ways is timed over all images.
        readers: threads that read images; None for the default of ``Predictor.stream``.

    Returns:
        Rows with the keys of ``COLUMNS``: the session alone; ``Predictor.stream``; the same with pictures drawn and
        written; and ``Predictor`` called image by image. Images per second are the median of the rounds. The other
        figures are the share of those of the session in the same round: median, least and most.

    Raises:
        UserError: the file cannot be run, or no image can be read.
    """
    if rounds < 1:
        raise UserError(f"--rounds: got {rounds}, expected an integer from 1")
    names = find_images(images)
    rows: list[dict[str, Any]] = []
    for backend in settings.backends or (find_backend(path).name,):
        for size in settings.sizes or (None,):
            predictor = Predictor(path, backend, settings.threads, _SCORE_THR, size)
            with tempfile.TemporaryDirectory(prefix="efftasks-throughput-") as out:
                ways = _ways(predictor, names, Path(out), readers)
                seconds = _seconds(ways, names, rounds, f"{Path(path).name}, {backend}")
            height, width = predictor.size
            columns = {"model": path, "backend": backend, "input": f"{height}x{width}"}
            rows.extend({**columns, **row} for row in ratios(seconds, len(names)))
    return rows


def ratios(seconds: dict[str, list[float]], count: int) -> Iterator[dict[str, Any]]:
    """The rows of measured ways.

    Args:
        seconds: way -> seconds of each round, ``SESSION`` among them.
        count: images of a round.
    """
    for what, values in seconds.items():
        shares = [alone / value for alone, value in zip(seconds[SESSION], values, strict=True)]
        yield {
            "what": what,
            "images/s": count / statistics.median(values),
            "of the session": statistics.median(shares),
            "least": min(shares),
            "most": max(shares),
        }


def _ways(predictor: Predictor, names: Sequence[str], out: Path, readers: int | None) -> dict[str, Way]:
    """What is timed."""
    items = (Item(name, i) for i, name in enumerate(names[:_TENSORS]))
    images = (item.load(predictor.spec.input.pixel_range).pixels for item in items)
    tensors = [np.array(predictor.preprocess([image])[0]) for image in images]
    artifact = predictor.session

    def alone(paths: Sequence[str]) -> None:
        for tensor in islice(cycle(tensors), len(paths)):
            artifact.run_network(tensor)

    def streamed(paths: Sequence[str]) -> None:
        for _ in predictor.stream(paths, readers=readers):
            pass

    def drawn(paths: Sequence[str]) -> None:
        writer, stems = PictureWriter(out, _SCORE_THR), FreeStems(out, (".jpg",))
        for prediction in predictor.stream(paths, readers=readers, keep_pixels=True):
            writer.add(stems.take(prediction.stem), prediction)

    def one_by_one(paths: Sequence[str]) -> None:
        for path in paths:
            predictor(path)

    return {
        SESSION: alone,
        "Predictor.stream": streamed,
        "Predictor.stream, drawn and written": drawn,
        "Predictor, image by image": one_by_one,
    }


def _seconds(ways: dict[str, Way], names: Sequence[str], rounds: int, title: str) -> dict[str, list[float]]:
    """Seconds of each way in each round, all in turn; each round begins with another one."""
    for way in ways.values():
        way(names[:_WARMUP])
    seconds: dict[str, list[float]] = {what: [] for what in ways}
    order = list(ways)
    # Silent where nobody watches.
    for i in tqdm(range(rounds), desc=title, leave=False, disable=None):
        start = i % len(order)
        for what in order[start:] + order[:start]:
            began = time.perf_counter()
            ways[what](names)
            seconds[what].append(time.perf_counter() - began)
    return seconds
