"""What is compared: checkpoints with their configs, exported files, and reports of evaluations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from efftasks.evaluation.records import RECORD_FILE
from efftasks.structures.errors import UserError
from efftasks.structures.suffixes import is_checkpoint
from efftasks.zoo.catalog import find_model, is_name

__all__ = ["Subject", "read_subjects"]


@dataclass(frozen=True)
class Subject:
    """A model of a comparison.

    Attributes:
        given: as it was given.
        path: of the checkpoint, the exported file, or the folder of the report.
        name: short, different from the others.
        config: path or name of the config of a checkpoint; None of others.
    """

    given: str
    path: Path
    name: str
    config: str | None = None

    @property
    def is_report(self) -> bool:
        """Whether it was evaluated before."""
        return self.path.is_dir()


def read_subjects(models: Sequence[str], config: str | None) -> list[Subject]:
    """What was given, with the config of each checkpoint.

    Args:
        models: ``CONFIG:CHECKPOINT``, a checkpoint, a name of the zoo, an exported file, or the folder of a report. A
            checkpoint without a config has the one beside it, or else ``config``.
        config: of checkpoints that have none beside them.

    Raises:
        UserError: less than two, a missing file, a folder without a record, or a checkpoint without a config.
    """
    if len(models) < 2:
        raise UserError(f"compare: got {len(models)} model, expected at least two")
    parts = [_split(model) for model in models]
    names = _short_names([path for _, path in parts])
    return [
        Subject(given, path, name, _config(stated, path, config))
        for given, (stated, path), name in zip(models, parts, names)
    ]


def _split(model: str) -> tuple[str | None, Path]:
    """``CONFIG:CHECKPOINT``, or a name of the zoo, in its parts; a drive letter is no config."""
    if is_name(model):
        from efftasks.apis.zoo import published_checkpoint

        return find_model(model).config, published_checkpoint(model)
    config, colon, path = model.rpartition(":")
    if colon and len(config) > 1 and is_checkpoint(path):
        return config, Path(path)
    return None, Path(model)


def _config(stated: str | None, path: Path, default: str | None) -> str | None:
    if path.is_dir():
        if not (path / RECORD_FILE).is_file():
            raise UserError(
                f"{path}: has no {RECORD_FILE}, expected the folder that efftasks test --report has written, a "
                "checkpoint or an exported file"
            )
        return None
    if not path.is_file():
        raise UserError(f"{path}: no such file, expected a checkpoint, an exported file or the folder of a report")
    if not is_checkpoint(path):
        return None
    beside = sorted(path.parent.glob("*.py"))
    config = stated or (str(beside[0]) if len(beside) == 1 else default)
    if config is None:
        raise UserError(
            f"{path}: {len(beside)} configs beside it, expected the one of its work dir; give it as CONFIG:{path}"
        )
    return config


def _short_names(paths: Sequence[Path]) -> list[str]:
    """The end of each path that differs from those of the others; numbers tell equal paths apart."""
    distinct = set(paths)
    times: Counter[str] = Counter()
    names = []
    for path in paths:
        ends = ["/".join(path.parts[-length:]) for length in range(1, len(path.parts) + 1)]
        others = [str(PurePath("/", *other.parts)) for other in distinct - {path}]
        short = next((end for end in ends if not any(other.endswith(f"/{end}") for other in others)), str(path))
        times[short] += 1
        names.append(short if times[short] == 1 else f"{short} ({times[short]})")
    return names
