"""Where FLOPs and latency part ways."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from efftasks.structures.errors import UserError

__all__ = ["add_gaps"]


def add_gaps(rows: Sequence[dict[str, Any]], baseline: str) -> None:
    """Add ``speed-up``, ``FLOPs saved`` and ``gap`` to rows, against the baseline's row of the same backend and input.

    ``speed-up`` is the baseline's median time over a row's, ``FLOPs saved`` the baseline's FLOPs over the row's, and
    ``gap`` the first over the second: 1 where saved FLOPs become saved time in full, below where they do not.

    Args:
        rows: with ``model``, ``backend``, ``input``, ``p50 ms`` and, where known, ``GFLOPs``.
        baseline: the ``model`` of the rows to compare with.

    Raises:
        UserError: no row has this model.
    """
    bases: Mapping[tuple, dict[str, Any]] = {
        (row["backend"], row["input"]): row for row in rows if row["model"] == baseline
    }
    if not bases:
        raise UserError(
            f"--baseline: got {baseline!r}, expected one of {', '.join(dict.fromkeys(r['model'] for r in rows))}"
        )
    for row in rows:
        base = bases.get((row["backend"], row["input"]))
        if base is None:
            continue
        row["speed-up"] = base["p50 ms"] / row["p50 ms"]
        if row.get("GFLOPs") and base.get("GFLOPs"):
            row["FLOPs saved"] = base["GFLOPs"] / row["GFLOPs"]
            row["gap"] = row["speed-up"] / row["FLOPs saved"]
