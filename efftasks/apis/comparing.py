"""Comparison of models on the same images: metrics with intervals, differences, cost, and a page with pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from tqdm import tqdm

from efftasks.apis.compare_subjects import Subject, read_subjects
from efftasks.bench.engines import artifact_call, torch_call
from efftasks.bench.environment import describe_environment
from efftasks.bench.latency import measure_times
from efftasks.evaluation.bootstrap import resample
from efftasks.evaluation.comparison import (
    MetricRow,
    aligned,
    check_comparable,
    compare_records,
    match_record,
    shared_kinds,
)
from efftasks.evaluation.differences import Interval, interval_of
from efftasks.evaluation.image_differences import most_different
from efftasks.evaluation.matches import Matches
from efftasks.evaluation.records import EvaluationRecord
from efftasks.evaluation.verdicts import verdict
from efftasks.reports.compare_pictures import SideBySide
from efftasks.reports.comparison import ComparedModel, Comparison, write_data
from efftasks.reports.comparison_page import write_comparison_page
from efftasks.reports.page import Picture, data_uri
from efftasks.runtime.artifact import Artifact
from efftasks.structures.errors import UserError
from efftasks.structures.suffixes import is_checkpoint

if TYPE_CHECKING:
    from efftasks.apis.compare_records import KeptRecords

__all__ = ["CompareSettings", "Compared", "compare"]

PAGE = "compare.html"


@dataclass(frozen=True)
class CompareSettings:
    """How models are compared.

    Attributes:
        resamples: of the bootstrap.
        seed: of the bootstrap.
        runs: timed calls of each model; 0 times none.
        threads: of the runtimes; None leaves them to it.
        pictures: number of images in the page.
        score_thr: least score of the detections in pictures, and of those that tell how much an image differs.
        check: check the data before the first evaluation.

    Raises:
        UserError: a number is out of its range.
    """

    resamples: int = 2000
    seed: int = 0
    runs: int = 100
    threads: int | None = None
    pictures: int = 12
    score_thr: float = 0.3
    check: bool = True

    def __post_init__(self) -> None:
        for name, least in (("resamples", 100), ("seed", 0), ("runs", 0), ("threads", 1), ("pictures", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UserError(f"--{name}: got {value}, expected an integer from {least}")
        if not 0 <= self.score_thr <= 1:
            raise UserError(f"--score-thr: got {self.score_thr:g}, expected a number in 0 to 1")


class Compared(NamedTuple):
    """The result of :func:`compare`."""

    comparison: Comparison
    page: Path
    data: tuple[Path, Path]  # JSON, CSV


def compare(
    models: Sequence[str],
    out: str | Path,
    config: str | None = None,
    options: dict[str, Any] | None = None,
    settings: CompareSettings | None = None,
) -> Compared:
    """Compare models with the first of them, and write ``compare.html``, ``.json`` and ``.csv``.

    Args:
        models: checkpoints (``CONFIG:CHECKPOINT``, or with a config beside them), exported files, and folders of
            reports.
        out: folder of the page. Records of evaluations are kept in ``out/records``, so that a model is evaluated once.
        config: whose test data all models are evaluated on, and that of checkpoints without one; None for the config
            of the first checkpoint. Reports need none.
        options: overrides of the configs.
        settings: None for the defaults.

    Raises:
        UserError: the models cannot be compared.
    """
    settings = settings or CompareSettings()
    subjects = read_subjects(models, config)
    out = Path(out)
    kept = _kept_records(subjects, config, options or {}, out / "records", settings)
    records = [_record(subject, kept) for subject in subjects]
    names = [subject.name for subject in subjects]
    check_comparable(records, names)
    records = aligned(records)
    kinds = shared_kinds(records)
    matches = [match_record(record, kinds) for record in tqdm(records, desc="matching", disable=None, leave=False)]
    rows = compare_records(records, matches, settings.resamples, settings.seed)
    truth = records[0].ground_truth
    images = len(records[0].images if truth is None else truth["images"])
    comparison = Comparison(
        models=_costs(subjects, records, kept, settings),
        rows=rows,
        verdicts=_verdicts(rows, names, images),
        images=images,
        resamples=settings.resamples,
        seed=settings.seed,
        environment=describe_environment(settings.threads),
    )
    out.mkdir(parents=True, exist_ok=True)
    pictures = _pictures(subjects, records, matches, kept, settings)
    page = write_comparison_page(comparison, pictures, out / PAGE, settings.score_thr)
    return Compared(comparison, page, write_data(comparison, out / Path(PAGE).stem))


def _pictures(
    subjects: Sequence[Subject],
    records: Sequence[EvaluationRecord],
    matches: Sequence[Mapping[str, Matches]],
    kept: KeptRecords | None,
    settings: CompareSettings,
) -> list[Picture]:
    """The images where the models differ most."""
    names = [subject.name for subject in subjects]
    pictures = []
    drawing = SideBySide(records, matches, names, settings.score_thr)
    for image in most_different(records, matches, settings.pictures, settings.score_thr):
        maps = kept.label_maps(subjects, image.position) if kept is not None else []
        if not matches[0] and not maps:
            continue  # nothing to draw: reports have no label maps
        drawn = drawing.draw(image.position, maps)
        if drawn is not None:
            texts = "; ".join(f"{name}: {text}" for name, text in zip(names, image.texts))
            file_name = records[0].images[image.position]["file_name"]
            pictures.append(Picture(data_uri(drawn, "image/jpeg"), f"{file_name}. {texts}"))
    return pictures


def _kept_records(
    subjects: Sequence[Subject], config: str | None, options: dict[str, Any], folder: Path, settings: CompareSettings
) -> KeptRecords | None:
    """What evaluates the models; None if all of them are reports, which needs neither a config nor PyTorch."""
    if all(subject.is_report for subject in subjects):
        for name, value in (("--config", config), ("--cfg-options", options)):
            if value:
                raise UserError(f"{name}: got it with reports alone, whose data are given; expected none")
        return None
    from efftasks.apis.compare_records import KeptRecords

    config = config or next((subject.config for subject in subjects if subject.config), None)
    if config is None:
        missing = next(subject.given for subject in subjects if not subject.is_report)
        raise UserError(f"{missing}: got no config, whose test data it is evaluated on; expected --config")
    return KeptRecords(config, options, folder, settings.check)


def _record(subject: Subject, kept: KeptRecords | None) -> EvaluationRecord:
    if kept is None or subject.is_report:
        return EvaluationRecord.load(subject.path)
    return kept.record(subject)


def _verdicts(rows: Sequence[MetricRow], names: Sequence[str], images: int) -> list[str]:
    mains = [row for row in rows if row.group == "main"]
    family = len(mains) * (len(names) - 1)
    return [
        verdict(row, number, names[0], name, images, family)
        for number, name in enumerate(names[1:], 1)
        for row in mains
    ]


class _Timed(NamedTuple):
    call: Callable[[], float]
    megabytes: float
    parameters: float | None  # millions


def _costs(
    subjects: Sequence[Subject],
    records: Sequence[EvaluationRecord],
    kept: KeptRecords | None,
    settings: CompareSettings,
) -> list[ComparedModel]:
    """Sizes, and latencies measured in turn in this process; ratios where the first model was timed."""
    timed = [None if kept is None or x.is_report else _timed(x, kept, settings) for x in subjects]
    calls = {str(i): one.call for i, one in enumerate(timed) if one is not None and settings.runs}
    times = measure_times(calls, runs=settings.runs) if calls else {}
    models = []
    for i, (subject, record, one) in enumerate(zip(subjects, records, timed)):
        mine, first = times.get(str(i)), times.get("0")
        models.append(
            ComparedModel(
                name=subject.name,
                path=subject.given,
                megabytes=None if one is None else one.megabytes,
                parameters=None if one is None else one.parameters,
                milliseconds=None if mine is None else float(np.median(mine)),
                ratio=None if mine is None or first is None or i == 0 else _ratio(mine, first, settings),
                test_seconds=record.seconds,
            )
        )
    return models


def _ratio(times: np.ndarray, first: np.ndarray, settings: CompareSettings) -> Interval:
    """The median over turns of time over the first's time in the same turn, with the bootstrap interval of it."""
    ratios = times / first
    draws = resample(len(ratios), settings.resamples, settings.seed)
    medians = np.array([np.median(np.repeat(ratios, counts)) for counts in draws])
    return interval_of(float(np.median(ratios)), medians)


def _timed(subject: Subject, kept: KeptRecords, settings: CompareSettings) -> _Timed:
    if not is_checkpoint(subject.path):
        artifact = Artifact(subject.path, threads=settings.threads)
        size = (artifact.spec.input.height, artifact.spec.input.width)
        megabytes = sum(part.stat().st_size for part in artifact.parts) / 1e6
        return _Timed(artifact_call(artifact, size), megabytes, None)
    from efftasks.apis.building import fuse, input_size, load

    cfg = kept.config_of(subject)
    model = fuse(load(cfg, str(subject.path)))
    call = torch_call(model.infer, input_size(cfg), threads=settings.threads)
    parameters = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    return _Timed(call, subject.path.stat().st_size / 1e6, parameters)
