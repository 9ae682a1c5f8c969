"""Reading and writing COCO files; written, the same content always gives the same bytes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from efftasks.structures.errors import UserError

__all__ = ["read_json", "write_json"]


def read_json(path: str | Path) -> Any:
    """Parse a JSON file.

    Raises:
        UserError: the file is not there, or is not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: is not JSON ({error}), expected a COCO annotation file") from error


def write_json(path: str | Path, data: Any) -> None:
    """Write compact JSON, keys in the order given, through a temporary file: the old one survives a full disk."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    part = target.with_name(target.name + ".part")
    try:
        part.write_text(text + "\n", encoding="utf-8")
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)
