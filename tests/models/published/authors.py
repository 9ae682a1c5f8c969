"""Checkpoints as the authors' code writes them, made from recorded names and shapes; see tests/fixtures/README.md."""

from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

FOLDER = Path(__file__).resolve().parents[2] / "fixtures" / "authors"
NAMES = sorted(path.name.removesuffix(".json.gz") for path in FOLDER.glob("*.json.gz"))
# Of these the recorded values matter not at all (anchors), or are those of the configuration.
FIXED = ("up", "reg_scale", "anchors", "valid_mask", "points_scale", "num_batches_tracked")


def record(name: str) -> dict[str, Any]:
    with gzip.open(FOLDER / f"{name}.json.gz", "rt") as file:
        return json.load(file)


def fill(name: str, shape: tuple[int, ...]) -> np.ndarray:
    random = np.random.default_rng(zlib.crc32(name.encode()))
    noise = np.asarray(random.standard_normal(shape), dtype=np.float32)
    kind = name.rsplit(".", 1)[-1]
    if kind == "running_var":
        return 0.7 + 0.3 * np.abs(noise)
    if kind == "running_mean":
        return 0.1 * noise
    if "sampling_offsets" in name:
        return (0.02 if kind == "weight" else 1.0) * noise
    if len(shape) <= 1:
        return 1 + 0.1 * noise if kind in ("weight", "scale") else 0.1 * noise
    gain = 5.0 if "score" in name else 1.0  # well apart, so that the selection has no near ties
    return gain * noise / np.sqrt(np.prod(shape[1:]))


def tensors(recorded: dict[str, Any]) -> dict[str, torch.Tensor]:
    made = {}
    for name, shape in recorded["tensors"].items():
        if name.endswith("reg_scale"):
            made[name] = torch.tensor([recorded["reg_scale"]])
        elif name.endswith("num_batches_tracked"):
            made[name] = torch.tensor(0)
        elif name.endswith(FIXED):
            made[name] = torch.zeros(shape)
        else:
            made[name] = torch.from_numpy(np.asarray(fill(name, tuple(shape)), dtype=np.float32))
    # One box head for all layers: the authors' file has it once for each.
    if recorded["model"].startswith("deimv2") and recorded["model"] != "deimv2-n":
        for name in made:
            if ".dec_bbox_head." in name:
                made[name] = made[name.replace(name.split(".")[2], str(shared_index(recorded)), 1)]
    return made


def shared_index(recorded: dict[str, Any]) -> int:
    """Which of the equal heads was filled last: the loading order decided."""
    return max(int(name.split(".")[2]) for name in recorded["tensors"] if ".dec_bbox_head." in name)


def image(recorded: dict[str, Any]) -> torch.Tensor:
    side = recorded["size"]
    return torch.from_numpy(np.random.default_rng(0).random((1, 3, side, side), dtype=np.float32))
