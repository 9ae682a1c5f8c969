"""The published checkpoints as a table: from the catalog, the metafiles of their configs, and the cache."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import yaml

from efftasks.config import config_path
from efftasks.structures.errors import UserError
from efftasks.zoo.cache import bytes_of
from efftasks.zoo.catalog import Entry, catalog

__all__ = ["collection_of_metafile", "model_of_metafile", "zoo_rows"]


def zoo_rows(task: str | None = None) -> list[dict[str, Any]]:
    """A row for each published checkpoint: what it is, what its authors measured, and how much of it is here.

    Args:
        task: det, semseg, pose or backbone; None for all.

    Raises:
        UserError: there is no such task.
    """
    tasks = list(dict.fromkeys(entry.task for entry in catalog().values()))
    if task is not None and task not in tasks:
        raise UserError(f"--task: got {task!r}, expected one of {', '.join(tasks)}")
    return [_row(entry) for entry in catalog().values() if task in (None, entry.task)]


def model_of_metafile(config: str) -> dict[str, Any]:
    """What the metafile of a shipped config's folder has of it; empty for other configs."""
    path = config_path(config)
    models: list[dict[str, Any]] = _metafile(path.with_name("metafile.yml")).get("Models", [])
    return next((model for model in models if model["Name"] == path.stem), {})


def collection_of_metafile(config: str) -> dict[str, Any]:
    """What the metafile of a shipped config's folder has of its method: Name, License, Paper and perhaps Code."""
    collection: dict[str, Any] = _metafile(config_path(config).with_name("metafile.yml"))["Collections"][0]
    return collection


@cache
def _metafile(path: Path) -> dict[str, Any]:
    data: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return data


def _row(entry: Entry) -> dict[str, Any]:
    model = model_of_metafile(entry.config) if entry.config else {}
    (results,) = model.get("Results") or [{}]
    metrics = [f"{metric} {value}" for metric, value in results.get("Metrics", {}).items()]
    return {
        "name": entry.name,
        "task": entry.task,
        "published": metrics[0] if metrics else None,
        "data": results.get("Dataset", "ImageNet-1k"),
        "params M": model.get("Metadata", {}).get("Parameters (M)"),
        "input": model.get("Metadata", {}).get("Input Size"),
        "ms": entry.latency_ms,
        "license": entry.license,
        "source": entry.page,
        "config": entry.config or None,
        "backbone": " ".join(entry.backbone) or None,
        "url": entry.url,
        "MB here": round(bytes_of(entry) / 1e6, 1),
    }
