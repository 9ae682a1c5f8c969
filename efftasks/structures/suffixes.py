"""Which files are checkpoints, by their suffix."""

from __future__ import annotations

from pathlib import Path

__all__ = ["CHECKPOINT_SUFFIXES", "is_checkpoint"]

CHECKPOINT_SUFFIXES = (".pth", ".pt", ".safetensors", ".bin", ".ckpt")


def is_checkpoint(path: str | Path) -> bool:
    """Whether a file's name is that of a checkpoint."""
    return Path(path).suffix.lower() in CHECKPOINT_SUFFIXES
