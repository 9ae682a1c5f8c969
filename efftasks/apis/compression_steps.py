"""The steps of a config's ``compression``: what each one changes, as a linked config of its own."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import efftasks.compat  # noqa: F401

# isort: split
from mmengine.config import Config

from efftasks.apis.export_settings import ExportSettings
from efftasks.bench.rows import BenchmarkSettings
from efftasks.config import load_config
from efftasks.linking.linked import LinkedConfig
from efftasks.linking.links import unshared_copy
from efftasks.runtime.backends.table import BACKENDS
from efftasks.structures.errors import UserError

__all__ = ["KEY", "Chain", "CompressionStep", "read_chain", "with_references"]

KEY = "compression"
REFERENCE = "step:"  # a value "step:NAME" stands for the checkpoint of that step
RESULTS = ("best", "last")
Result = TypeVar("Result")
_KEYS = ("steps", "benchmark")
_OWN_KEYS = ("name", "export", "result")  # of a step, besides the keys of a config
_RUN_KEYS = ("work_dir", "load_from", "resume", "launcher", "experiment_name", KEY)  # set by the run
# Without training they would have no effect.
_TRAINING_KEYS = ("optim_wrapper", "param_scheduler", "schedule", "train_cfg", "custom_hooks", "default_hooks")


@dataclass(frozen=True)
class CompressionStep:
    """One step.

    Attributes:
        number: its place in the list, from 0.
        name: as the config states it.
        config: linked, with the model transforms of all steps so far. References to checkpoints of other steps are not
            resolved.
        trains: whether it trains; if not, it only transforms and exports what it starts from.
        result: the checkpoint it leaves, ``best`` or ``last``; of a step that trains.
        exports: the files to write.
    """

    number: int
    name: str
    config: LinkedConfig
    trains: bool
    result: str
    exports: tuple[ExportSettings, ...]

    @property
    def folder(self) -> str:
        """Its folder in the work dir."""
        return f"{self.number}_{self.name}"


@dataclass(frozen=True)
class Chain:
    """All steps of a config.

    Attributes:
        steps: in order; the first is the dense model.
        start: the checkpoint from which the first one starts; None for initial weights.
        benchmark: on what and how often the files are timed.
    """

    steps: tuple[CompressionStep, ...]
    start: Path | None
    benchmark: BenchmarkSettings


def read_chain(cfg: LinkedConfig) -> Chain:
    """Read ``compression`` of a config, and link the config of each step.

    Raises:
        UserError: a key is unknown or has no effect, a name occurs twice, a reference names no earlier step, or a file
            cannot be exported as a step states; the message names the step.
    """
    stated = cfg[KEY]
    _check_keys(KEY, stated, _KEYS)
    listed = stated.get("steps")
    if not isinstance(listed, (list, tuple)) or not listed or not all(isinstance(step, dict) for step in listed):
        raise UserError(f"{KEY}.steps: got {listed!r}, expected a list of dicts, each with a name")
    base = _linked({key: value for key, value in cfg.to_dict().items() if key != KEY}, "base.py")
    start = cfg.get("load_from")
    transforms = list(cfg.get("model_transforms") or ())
    kept: dict[str, Any] = {}
    steps: list[CompressionStep] = []
    for number, step in enumerate(listed):
        place = f"{KEY}.steps.{number}"
        name = _name(step, place, [other.name for other in steps])
        changes = {key: value for key, value in step.items() if key not in _OWN_KEYS}
        trains = "max_epochs" in changes or (number == 0 and start is None)
        _check_changes(changes, f"{place} ({name})", number == 0, trains)
        _check_references(changes, f"{place} ({name})", [other.name for other in steps])
        transforms += changes.get("model_transforms") or ()
        kept.update((key, changes[key]) for key in ("image_size", "crop_size") if key in changes)
        options = {**kept, **changes, **(dict(model_transforms=list(transforms)) if transforms else {})}
        linked = _in_step(f"{place} ({name})", lambda: load_config(base, unshared_copy(options)))  # noqa: B023
        config = _linked(linked.to_dict(), f"{name}.py")
        result = _result(step, f"{place} ({name})", trains)
        steps.append(CompressionStep(number, name, config, trains, result, _exports(step, f"{place} ({name})")))
    return Chain(tuple(steps), None if start is None else Path(start), _benchmark(stated.get("benchmark") or {}))


def with_references(config: LinkedConfig, resolve: Callable[[str], str | None]) -> LinkedConfig:
    """A copy of a config with every ``step:NAME`` replaced.

    Args:
        config: of a step.
        resolve: name of the step -> what to put there.
    """

    def replaced(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: replaced(value) for key, value in node.items()}
        if type(node) in (list, tuple):
            return type(node)(replaced(part) for part in node)
        is_reference = isinstance(node, str) and node.startswith(REFERENCE)
        return resolve(node.removeprefix(REFERENCE)) if is_reference else node

    return _linked(replaced(config.to_dict()), config.filename)


def _linked(data: dict[str, Any], name: str) -> LinkedConfig:
    """A linked config of the data of one, under the name of a file that does not exist yet."""
    return LinkedConfig.of(Config(data, cfg_text=f"# {name}", filename=name))


def _name(step: Mapping[str, Any], place: str, others: Sequence[str]) -> str:
    name = step.get("name")
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][\w.+-]*", name):
        raise UserError(f"{place}.name: got {name!r}, expected a name of letters, digits and any of . + - _")
    if name in others:
        raise UserError(f"{place}.name: got {name!r}, which step {others.index(name)} has; expected each name once")
    return name


def _check_changes(changes: Mapping[str, Any], place: str, first: bool, trains: bool) -> None:
    keys = {key.split(".")[0] for key in changes}
    for key in _RUN_KEYS:
        if key in keys:
            raise UserError(f"{place}: {key}: got {changes.get(key)!r}, but a step cannot set it; leave it out")
    if first and "model_transforms" in keys:
        raise UserError(
            f"{place}: the first step is the dense model, with which the others are compared, and this one has "
            "model_transforms; put a step before it, such as dict(name='dense')"
        )
    if trains:
        return
    unused = [key for key in _TRAINING_KEYS if key in keys]
    has_guide = any(key == "model.guide" or key.startswith("model.guide.") for key in changes)
    if has_guide or (isinstance(changes.get("model"), Mapping) and changes["model"].get("guide")):
        unused.append("model.guide")
    if unused:
        raise UserError(
            f"{place}: {', '.join(unused)} has an effect on training alone, and the step does not train; state its "
            "max_epochs"
        )


def _check_references(node: Any, place: str, names: Sequence[str]) -> None:
    if isinstance(node, (dict, list, tuple)):
        for part in node.values() if isinstance(node, dict) else node:
            _check_references(part, place, names)
    elif isinstance(node, str) and node.startswith(REFERENCE) and node.removeprefix(REFERENCE) not in names:
        raise UserError(f"{place}: got {node!r}, expected one of the steps before it: {', '.join(names) or 'none'}")


def _result(step: Mapping[str, Any], place: str, trains: bool) -> str:
    result = step.get("result", RESULTS[0])
    if result not in RESULTS:
        raise UserError(f"{place}: result: got {result!r}, expected one of {', '.join(RESULTS)}")
    if "result" in step and not trains:
        raise UserError(f"{place}: result: got {result!r}, but the step does not train; leave it out")
    return str(result)


def _exports(step: Mapping[str, Any], place: str) -> tuple[ExportSettings, ...]:
    stated = step.get("export", {})
    listed = stated if isinstance(stated, (list, tuple)) else [stated]
    if not listed or not all(isinstance(part, dict) for part in listed):
        raise UserError(f"{place}: export: got {stated!r}, expected a dict or a list of dicts")
    settings = []
    for part in listed:
        if "evaluate" in part:
            raise UserError(f"{place}: export.evaluate: the report needs the metrics of every file; leave it out")
        _check_keys(f"{place}: export", part, inspect.signature(ExportSettings).parameters)
        values: dict[str, Any] = {key: tuple(x) if isinstance(x, list) else x for key, x in part.items()}
        settings.append(_in_step(place, lambda: ExportSettings(**values, evaluate=True)))  # noqa: B023
    return tuple(settings)


def _benchmark(stated: Mapping[str, Any]) -> BenchmarkSettings:
    allowed = ("backends", "threads", "runs", "warmup")
    _check_keys(f"{KEY}.benchmark", stated, allowed)
    values: dict[str, Any] = {key: tuple(x) if isinstance(x, list) else x for key, x in stated.items()}
    for name in values.get("backends") or ():
        if name not in BACKENDS:
            raise UserError(
                f"{KEY}.benchmark.backends: got {name!r}, expected runtimes of files: {', '.join(BACKENDS)}"
            )
    return _in_step(f"{KEY}.benchmark", lambda: BenchmarkSettings(**values))


def _in_step(place: str, work: Callable[[], Result]) -> Result:
    """The result of some work, whose errors name the step."""
    try:
        return work()
    except (UserError, TypeError) as error:  # TypeError: a text where a number is expected
        raise UserError(f"{place}: {error}") from error


def _check_keys(place: str, stated: Mapping[str, Any], allowed: Any) -> None:
    for key in stated:
        if key not in allowed:
            near = difflib.get_close_matches(key, list(allowed), n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"expected {', '.join(allowed)}"
            raise UserError(f"{place}.{key}: there is no such key; {hint}")
