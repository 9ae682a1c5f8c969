"""The runs of a work dir in experiment trackers, so that a resumed training continues them."""

from __future__ import annotations

import json
from pathlib import Path

from efftasks.checkpoints.atomic import whole_or_nothing

__all__ = ["read_run_id", "write_run_id"]

FILE = "tracked_runs.json"


def read_run_id(work_dir: Path, tracker: str) -> str | None:
    """The id of the last run of a work dir in a tracker; None if there is none, or the file cannot be read."""
    return _read(work_dir).get(tracker)


def write_run_id(work_dir: Path, tracker: str, run_id: str) -> None:
    """Record the id of a run.

    Raises:
        WorkError: it could not be written.
    """
    with whole_or_nothing(work_dir / FILE) as draft:
        draft.write_text(json.dumps({**_read(work_dir), tracker: run_id}, indent=1) + "\n", encoding="utf-8")


def _read(work_dir: Path) -> dict[str, str]:
    try:
        data = json.loads((work_dir / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {key: value for key, value in data.items() if isinstance(value, str)} if isinstance(data, dict) else {}
