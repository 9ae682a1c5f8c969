"""What is checked of compression steps before the first one runs: a wrong step must not cost the training before it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from efftasks.apis.building import build
from efftasks.apis.compression_state import checkpoint_files
from efftasks.apis.compression_steps import KEY, Chain, CompressionStep, with_references
from efftasks.apis.formats import exporter_for, find_exporter
from efftasks.apis.training import check_divisor
from efftasks.checkpoints.files import dataset_meta_of, read_checkpoint
from efftasks.compression.plan import architecture_digest, plan_of, undecided
from efftasks.config import check_complete
from efftasks.export.exporters.table import EXPORTERS
from efftasks.linking.values import check_to_train
from efftasks.registry import MODEL_TRANSFORMS
from efftasks.structures.errors import UserError

__all__ = ["check_chain", "check_sources"]


def check_chain(chain: Chain) -> None:
    """Build the model of every step once, and check that all of them can run.

    Raises:
        UserError: a step lacks a part of its config, its model cannot be built or is another network than the one whose
            weights it starts from, its file cannot be written here, or the checkpoint to start from has other classes.
    """
    digests: list[str] = []
    previous: list[Any] = []  # the transforms of the step before
    for step in chain.steps:
        try:
            _check_exports(step)
            _check_config(step)
            digests.append(_built(step, previous))
            previous = list(step.config.get("model_transforms") or ())
        except UserError as error:
            raise UserError(f"{KEY}.steps.{step.number} ({step.name}): {error}") from error
        if digests[-1] != digests[0]:
            raise UserError(
                f"{KEY}.steps.{step.number} ({step.name}): its model is another network than that of step 0, whose "
                "weights it starts from; compress by model_transforms, or change the model of the config"
            )
    _check_start(chain)


def check_sources(chain: Chain, work_dir: Path) -> None:
    """Check that no checkpoint the steps read is one that they write.

    Raises:
        UserError: ``load_from`` or other weights are in the folder of a step.
    """
    folders = {(work_dir / step.folder).resolve() for step in chain.steps}
    starts = [] if chain.start is None else [("load_from", str(chain.start))]
    named = [(f"{KEY}.steps.{step.number} ({step.name})", x) for step in chain.steps for x in _weights(step)]
    for place, file in starts + named:
        if folders.intersection(Path(file).resolve().parents):
            raise UserError(
                f"{place}: got {file}, which is in the folder of a step of this run; expected a checkpoint elsewhere, "
                "another --work-dir, --resume without load_from, or step:NAME for the weights of a teacher"
            )


def _weights(step: CompressionStep) -> list[str]:
    return list(checkpoint_files({key: part for key, part in step.config.items() if key != "load_from"}))


def _check_exports(step: CompressionStep) -> None:
    names = []
    for settings in step.exports:
        find_exporter(settings.backend, settings.precision)
        precision = settings.precision or EXPORTERS[settings.backend].precisions[0]
        names.append((settings.backend, precision, *settings.input_suffix))
        if names.count(names[-1]) > 1:
            raise UserError(f"export: {' '.join(names[-1])} occurs twice, expected each once")


def _check_config(step: CompressionStep) -> None:
    cfg = step.config
    check_complete(cfg)
    if step.trains:
        check_to_train(cfg)
    for key in ("model", "test_dataloader", "test_evaluator"):
        if not cfg.get(key):
            raise UserError(f"{key}: the config has none, expected one to measure the step")


def _built(step: CompressionStep, previous: list[Any]) -> str:
    """Build the model, and again with its transforms unless these are the ``previous`` ones, which work.

    Returns:
        The digest of the dense one.
    """
    cfg = with_references(step.config, lambda name: None)
    transforms = list(cfg.get("model_transforms") or ())
    for transform in transforms:
        MODEL_TRANSFORMS.build(dict(transform))  # its arguments are checked, whether it can decide or not
        if transform.get("latency"):
            exporter_for(transform["latency"]["backend"])
    cfg.model_transforms = []
    dense = build(cfg)
    check_divisor(cfg, dense)
    digest = architecture_digest(dense)
    # One with a target of latency decides from times of trained weights, and those after it from its result.
    timed = [bool(transform.get("latency")) for transform in transforms]
    cfg.model_transforms = transforms[: timed.index(True)] if any(timed) else transforms
    if cfg.model_transforms and transforms != previous:
        build(cfg)
    return digest


def _check_start(chain: Chain) -> None:
    if chain.start is None:
        return
    first = chain.steps[0]
    data = read_checkpoint(chain.start)
    plan = plan_of(data, chain.start)
    is_dense = plan is None
    if not is_dense and not first.config.get("model_transforms") and chain.steps[-1].config.get("model_transforms"):
        raise UserError(
            f"{chain.start}: its model is compressed already, and steps compress it further; expected its "
            "transforms in the model_transforms of the config, or a dense model"
        )
    for step in chain.steps:
        try:
            undecided(plan, step.config.get("model_transforms") or (), chain.start)
        except UserError as error:
            raise UserError(f"{KEY}.steps.{step.number} ({step.name}): {error}") from error
    trained_on = dataset_meta_of(data, chain.start).get("classes")
    classes = first.config.get("classes")
    if not first.trains and trained_on and classes and tuple(trained_on) != tuple(classes):
        raise UserError(
            f"{chain.start}: its classes are {tuple(trained_on)}, the data's {tuple(classes)}; expected the same, or a "
            f"max_epochs in {KEY}.steps.0 to train for them"
        )
