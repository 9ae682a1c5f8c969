"""Compression in steps: each one starts from the result of the last, and all are compared in one report."""

from __future__ import annotations

import copy
import gc
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import efftasks.compat  # noqa: F401

# isort: split
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger

from efftasks.apis.compression_checks import check_chain, check_sources
from efftasks.apis.compression_report import CompressionReport, write_compression_report
from efftasks.apis.compression_results import Row, step_rows, trained_result, transform_only
from efftasks.apis.compression_state import StepStates, digest, fingerprint, set_aside
from efftasks.apis.compression_steps import KEY, Chain, CompressionStep, read_chain, with_references
from efftasks.apis.precheck import precheck
from efftasks.apis.training import train
from efftasks.apis.zoo import resolve_names
from efftasks.checkpoints.newest import newest_intact_checkpoint
from efftasks.config import linked_config
from efftasks.linking.linked import LinkedConfig
from efftasks.structures.errors import UserError
from efftasks.structures.spec import ArtifactFile

__all__ = ["compress"]


def compress(
    cfg: str | Path | Config,
    amp: bool | str = False,
    resume: bool = False,
    threads: int | None = None,
    check: bool = True,
) -> CompressionReport:
    """Run the ``compression`` steps of a config in its ``work_dir``, and write the report.

    All steps run in this process, so that registered classes of the caller stay known; a training frees its model, and
    threads and deterministic algorithms are as before. The files are timed at the end in a new process, where no
    training has changed the handling of denormals.

    Args:
        cfg: as for :func:`efftasks.apis.train`, with ``compression``.
        amp: mixed precision of the training, see :func:`efftasks.apis.train`.
        resume: keep the finished steps whose config is unchanged, and resume the interrupted one.
        threads: of PyTorch on a CPU; None takes all cores, and in training fewer while other programs use them.
        check: check the data before the first step of a training.

    Returns:
        A row for each exported file of each step, the dense model first.

    Raises:
        UserError: a step cannot work; all are checked before the first one runs.
        WorkError: a file does not agree with its model. After any error the report of the steps before it is written.
    """
    cfg = LinkedConfig.of(copy.deepcopy(linked_config(cfg)))
    resolve_names(cfg)
    if not cfg.get(KEY):
        raise UserError(f"{KEY}: the config has none, expected steps; train it with efftasks.apis.train")
    _new_logger(log_level="ERROR")  # warnings of models that are built to be checked come again when they are trained
    chain = read_chain(cfg)
    work_dir = Path(cfg.work_dir)
    check_sources(chain, work_dir)
    check_chain(chain)
    if threads is not None:
        torch.set_num_threads(threads)  # decisions and metrics depend on it in their last bits
    work_dir.mkdir(parents=True, exist_ok=True)
    logger = _new_logger(log_file=str(work_dir / f"{KEY}.log"), file_mode="a")
    cfg.dump(work_dir / (Path(cfg.filename).name if cfg.filename else f"{KEY}.config.py"))
    run = _Run(work_dir, StepStates(work_dir, resume), logger, dict(amp=amp, threads=threads, check=check))
    rows: list[Row] = []
    try:
        for step in chain.steps:
            for row in run.rows_of(step, chain):
                rows.append(row)  # one by one: a file may be rejected
    except Exception:
        if rows:
            _report_so_far(work_dir, rows, chain, logger)
        raise
    report = write_compression_report(work_dir, rows, chain)
    logger.info(f"report of {len(chain.steps)} steps: {report.page}")
    return report


def _report_so_far(work_dir: Path, rows: list[Row], chain: Chain, logger: MMLogger) -> None:
    """Write the report of the steps before an error, which is the one to raise."""
    try:
        report = write_compression_report(work_dir, rows, chain)
        logger.warning(f"report of the files so far: {report.page}")
    except Exception as error:
        logger.warning(f"there is no report of the files so far: {error}")


def _new_logger(**settings: Any) -> MMLogger:
    return MMLogger.get_instance(f"{KEY}_{uuid.uuid4().hex}", logger_name="mmengine", **settings)


class _Run:
    """A run through the steps, which knows the results so far.

    Args:
        work_dir: of the run.
        states: which steps are finished.
        logger: for its progress.
        how: ``amp``, ``threads`` and ``check`` of :func:`compress`.
    """

    def __init__(self, work_dir: Path, states: StepStates, logger: Any, how: dict[str, Any]) -> None:
        self._work_dir, self._states, self._logger, self._how = work_dir, states, logger, how
        self._results: dict[str, Path] = {}  # name of a step -> its checkpoint
        self._start: Path | None = None  # the result of the last step
        self._digest = ""  # of all that decided it

    def rows_of(self, step: CompressionStep, chain: Chain) -> Iterator[Row]:
        """Run a step, or take its earlier result; then export and evaluate it."""
        folder = self._work_dir / step.folder
        folder.mkdir(exist_ok=True)
        if step.number == 0:
            self._start = chain.start
            self._digest = "" if chain.start is None else ArtifactFile.of(chain.start).sha256
        amp = self._how["amp"] or None
        prints = fingerprint(step.config, start=self._digest, trains=step.trains, result=step.result, amp=amp)
        config = with_references(step.config, lambda name: str(self._results[name]))
        config.work_dir, config.load_from = str(folder), None if self._start is None else str(self._start)

        checkpoint = self._finished(step, prints, len(chain.steps))
        if checkpoint is None:
            with _undisturbed():
                checkpoint = self._train(step, config) if step.trains else self._transform(step, config)
            self._states.finish(step.folder, checkpoint.name)
        self._results[step.name] = self._start = checkpoint
        self._digest = digest(prints)
        with _undisturbed():
            yield from step_rows(step, config, checkpoint, self._digest, chain.benchmark.backends)

    def _finished(self, step: CompressionStep, prints: dict[str, str], count: int) -> Path | None:
        """The checkpoint of a finished step; None if it must run, in a folder that is prepared for it."""
        folder = self._work_dir / step.folder
        title = f"step {step.number + 1} of {count}, {step.name}"
        changes = self._states.changes(step.folder, prints)
        checkpoint = self._states.checkpoint(step.folder)
        if changes == [] and checkpoint is not None and (folder / checkpoint).is_file():
            self._logger.info(f"{title}: finished, {folder / checkpoint}")
            return folder / checkpoint
        if changes == [] and checkpoint is None:
            self._logger.info(f"{title}: goes on where it was interrupted")
            return None
        if changes:
            reasons = ["load_from" if key == "start" else key for key in changes]
            self._logger.warning(
                f"{title}: is done again, since {', '.join(reasons)} changed; so are the steps after it"
            )
        elif changes == []:
            self._logger.warning(f"{title}: is done again, since {folder / str(checkpoint)} is missing")
        else:
            self._logger.info(f"{title}: {'training' if step.trains else 'no training'}")
        aside = set_aside(folder)
        if aside is not None:
            self._logger.info(f"{title}: what an earlier run left is in {aside}")
        self._states.begin(step.folder, prints)
        return None

    def _train(self, step: CompressionStep, config: LinkedConfig) -> Path:
        folder = self._work_dir / step.folder
        newest, _ = newest_intact_checkpoint(folder)
        epochs = train(config, resume=None if newest is None else str(newest), **self._how).epoch
        return trained_result(folder, step.result, epochs)

    def _transform(self, step: CompressionStep, config: LinkedConfig) -> Path:
        if self._how["check"] and config.get("model_transforms"):  # some read the training data
            for warning in precheck(config, ("train",)):
                self._logger.warning(warning)
        return transform_only(config, self._work_dir / step.folder)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Restore what training sets for the whole process, and free the memory of its model."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    cudnn = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = cudnn
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
