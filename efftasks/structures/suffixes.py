"""What the names of files say: checkpoints, and the second part of an exported file."""

from __future__ import annotations

from pathlib import Path

__all__ = ["CHECKPOINT_SUFFIXES", "first_part", "is_checkpoint", "second_part"]

CHECKPOINT_SUFFIXES = (".pth", ".pt", ".safetensors", ".bin", ".ckpt")
_REST = ".rest"  # at the end of the stem of the part of a network that is behind its exit


def is_checkpoint(path: str | Path) -> bool:
    """Whether a file's name is that of a checkpoint."""
    return Path(path).suffix.lower() in CHECKPOINT_SUFFIXES


def second_part(path: Path) -> Path:
    """``model.onnx`` -> ``model.rest.onnx``: where the network behind an exit is, if it is in a file of its own."""
    return path.with_name(f"{path.stem}{_REST}{path.suffix}")


def first_part(path: Path) -> Path | None:
    """The inverse of :func:`second_part`; None of other names."""
    stem = path.stem.removesuffix(_REST)
    return path.with_name(f"{stem}{path.suffix}") if stem != path.stem else None
