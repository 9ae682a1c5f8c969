"""FLOPs against latency as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["draw_flops_against_latency"]


def draw_flops_against_latency(rows: Sequence[Mapping[str, Any]], path: str | Path) -> Path:
    """One panel a backend and input: each model a point, its FLOPs across, its median time up, both logarithmic.

    The dashed line is where time grows with FLOPs as for the model with the most FLOPs a millisecond: how far a point
    lies above it is what its FLOPs do not tell.

    Args:
        rows: with ``model``, ``backend``, ``input``, ``GFLOPs`` and ``p50 ms``; rows without FLOPs are left out.
        path: of the PNG.
    """
    from matplotlib.figure import Figure

    panels: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        if row.get("GFLOPs"):
            panels.setdefault((row["backend"], row["input"]), []).append(row)
    columns = min(2, max(1, len(panels)))
    lines = -(-max(1, len(panels)) // columns)
    figure = Figure(figsize=(9 * columns, 7 * lines), layout="tight")
    axes = figure.subplots(lines, columns, squeeze=False)
    for axis in axes.flat[len(panels) :]:
        axis.remove()
    for axis, ((backend, size), group) in zip(axes.flat, panels.items()):
        flops = [row["GFLOPs"] for row in group]
        times = [row["p50 ms"] for row in group]
        best = max(f / t for f, t in zip(flops, times))
        ends = [min(flops), max(flops)]
        axis.plot(ends, [f / best for f in ends], "--", color="gray", label=f"{1e3 * best:.0f} GFLOP/s")
        axis.scatter(flops, times, s=18)
        for row in group:
            axis.annotate(
                _short(row["model"]),
                (row["GFLOPs"], row["p50 ms"]),
                fontsize=6,
                xytext=(3, 3),
                textcoords="offset points",
            )
        axis.set(title=f"{backend}, {size}", xlabel="GFLOPs", ylabel="median ms", xscale="log", yscale="log")
        axis.grid(visible=True, which="both", alpha=0.3)
        axis.legend(loc="lower right")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    return path


def _short(model: str) -> str:
    """Of a path its last part; of a backbone its name and variant."""
    if not model.startswith("backbone:"):
        return Path(model).name
    name, *words = model.removeprefix("backbone:").split(",")
    variants = [word.partition("=")[2] for word in words if word.startswith("variant=")]
    return " ".join([name.removeprefix("timm."), *variants])
