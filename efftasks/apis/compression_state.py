"""Which compression steps of a work dir are finished, and with which config: what ``--resume`` reads."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from efftasks.checkpoints.atomic import whole_or_nothing
from efftasks.structures.errors import UserError
from efftasks.structures.spec import ArtifactFile
from efftasks.structures.suffixes import is_checkpoint

__all__ = [
    *("FILE", "Fingerprint", "StepStates", "checkpoint_files", "digest", "fingerprint", "measuring_digest"),
    "set_aside",
]

FILE = "compression.json"
VERSION = 1
# Keys of a config that change nothing in its result.
_WITHOUT_EFFECT = {
    *("work_dir", "resume", "load_from", "launcher", "experiment_name", "log_level", "log_processor", "visualizer"),
    *("vis_backends", "linked", "env_cfg"),
}
_LOGGING_HOOKS = ("logger", "timer", "visualization")
# Of a step that does not train.
_TRAINING = {"optim_wrapper", "param_scheduler", "schedule", "train_cfg", "custom_hooks", "default_hooks", "amp"}
# Keys that decide the files and figures of a step, but not its checkpoint.
_MEASURING = {"quantization", "test_dataloader", "test_evaluator", "test_cfg"}
Fingerprint = dict[str, str]  # top-level key of a config -> digest of its value


def fingerprint(config: Mapping[str, Any], trains: bool = True, **more: Any) -> Fingerprint:
    """The digests of all that decides the checkpoint of a step.

    A checkpoint that the config names counts by its content, another file or folder by its absolute path.

    Args:
        config: of the step.
        trains: whether it does; if not, what only training reads does not count.
        more: what else decides it, such as the digest of the step before.
    """
    ignored = _WITHOUT_EFFECT | _MEASURING | (set() if trains else _TRAINING)
    values = {**config, **more, "trains": trains}
    if values.get("default_hooks"):
        hooks = values["default_hooks"]
        values["default_hooks"] = {key: hooks[key] for key in hooks if key not in _LOGGING_HOOKS}
    return {
        key: digest(_identified(value, key))
        for key, value in sorted(values.items())
        if key not in ignored and value is not None
    }


def _identified(node: Any, key: str = "") -> Any:
    """A part of a config with the content of checkpoints and the absolute paths of other files in place of names."""
    if isinstance(node, Mapping):
        return {name: _identified(part, str(name)) for name, part in node.items()}
    if isinstance(node, (list, tuple)):
        return [_identified(part) for part in node]
    if not isinstance(node, str):
        return node
    if next(checkpoint_files(node), None) is not None:
        return ArtifactFile.of(node).sha256
    is_path = (os.sep in node or key == "data_root") and os.path.exists(node)
    return os.path.realpath(node) if is_path else node


def checkpoint_files(node: Any) -> Iterator[str]:
    """The checkpoints that are there, of those that a config names, such as the weights of a teacher."""
    if isinstance(node, Mapping):
        for part in node.values():
            yield from checkpoint_files(part)
    elif isinstance(node, (list, tuple)):
        for part in node:
            yield from checkpoint_files(part)
    elif isinstance(node, str) and is_checkpoint(node) and os.path.isfile(node):
        yield node


def set_aside(folder: Path) -> Path | None:
    """Rename the folder of a step that has results, which must not be taken for those of this run, and make a new one.

    Returns:
        The new name of the old folder, ``<folder>.old``, with a number if that is taken; None if it had no results.
    """
    if not any(path for pattern in ("*.pth", "rows.json") for path in folder.glob(pattern)):
        return None
    names = (f"{folder.name}.old{number or ''}" for number in range(10**6))
    target = next(path for name in names if not (path := folder.with_name(name)).exists())
    folder.rename(target)
    folder.mkdir()
    return target


def measuring_digest(config: Mapping[str, Any], *more: Any) -> str:
    """A digest of all that decides the files and figures of a step.

    Args:
        config: of the step.
        more: what else decides them, such as the checkpoint.
    """
    return digest([{key: config[key] for key in config if key in _MEASURING}, *more])


def digest(value: Any) -> str:
    """A digest of plain data: numbers, strings, lists and dicts."""
    text = json.dumps(value, sort_keys=True, default=repr)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class StepStates:
    """The states of the steps in a work dir, in a file that is written atomically after each change.

    Args:
        work_dir: the folder.
        resume: read the file that is there; otherwise begin with none.

    Raises:
        UserError: the file cannot be read.
    """

    def __init__(self, work_dir: Path, resume: bool) -> None:
        self._path = work_dir / FILE
        self._states: dict[str, dict[str, Any]] = self._read() if resume and self._path.is_file() else {}

    def _read(self) -> dict[str, dict[str, Any]]:
        try:
            data = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"{self._path}: cannot be read ({error}); to begin anew, train without --resume") from error
        if not isinstance(data, dict) or data.get("version") != VERSION or not isinstance(data.get("steps"), dict):
            raise UserError(
                f"{self._path}: expected the states of compression steps, version {VERSION}; to begin anew, train "
                "without --resume"
            )
        return dict(data["steps"])

    def changes(self, folder: str, prints: Fingerprint) -> list[str] | None:
        """The keys whose values differ from those that a step was begun with; None if it was not begun."""
        if folder not in self._states:
            return None
        old = self._states[folder]["config"]
        return sorted(key for key in {*old, *prints} if old.get(key) != prints.get(key))

    def checkpoint(self, folder: str) -> str | None:
        """The path of a step's result in the work dir; None if it is not finished."""
        return self._states.get(folder, {}).get("checkpoint")

    def begin(self, folder: str, prints: Fingerprint) -> None:
        """Record that a step is begun, and forget the steps after it."""
        self._states = {other: state for other, state in self._states.items() if _number(other) < _number(folder)}
        self._states[folder] = dict(config=prints, checkpoint=None)
        self._write()

    def finish(self, folder: str, checkpoint: str) -> None:
        """Record the result of a step."""
        self._states[folder]["checkpoint"] = checkpoint
        self._write()

    def _write(self) -> None:
        with whole_or_nothing(self._path) as draft:
            draft.write_text(json.dumps(dict(version=VERSION, steps=self._states), indent=1) + "\n", encoding="utf-8")


def _number(folder: str) -> int:
    return int(folder.split("_")[0])
