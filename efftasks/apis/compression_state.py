"""Which compression steps of a work dir are finished, and with which config: what ``--resume`` reads."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from efftasks.checkpoints.atomic import whole_or_nothing
from efftasks.structures.errors import UserError

__all__ = ["FILE", "Fingerprint", "StepStates", "digest", "fingerprint", "measuring_digest"]

FILE = "compression.json"
VERSION = 1
# Keys of a config that change nothing in its result.
_WITHOUT_EFFECT = {
    *("work_dir", "resume", "load_from", "launcher", "experiment_name", "log_level", "log_processor", "visualizer"),
    *("vis_backends", "linked"),
}
# Keys that decide the files and figures of a step, but not its checkpoint.
_MEASURING = {"quantization", "test_dataloader", "test_evaluator", "test_cfg"}
Fingerprint = dict[str, str]  # top-level key of a config -> digest of its value


def fingerprint(config: Mapping[str, Any], **more: Any) -> Fingerprint:
    """The digests of all that decides the checkpoint of a step.

    Args:
        config: of the step.
        more: what else decides it, such as the digest of the step before.
    """
    values = {key: config[key] for key in config if key not in _WITHOUT_EFFECT | _MEASURING} | more
    return {key: digest(value) for key, value in sorted(values.items()) if value is not None}


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
