"""Reading checkpoints safely, and comparing state dicts with a model.

Checkpoints are always read with ``weights_only=True``. A file that needs more is refused, because unpickling it could
run code.
"""

from __future__ import annotations

import importlib
import os
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from efftasks.structures.errors import UserError
from efftasks.structures.features import GUIDE_PREFIX
from efftasks.structures.suffixes import CHECKPOINT_SUFFIXES, is_checkpoint

__all__ = [
    "MatchReport",
    "compare",
    "dataset_meta_of",
    "load_matching",
    "read_checkpoint",
    "read_state_dict",
    "weights_of",
]

# Where common checkpoint layouts have the weights; averaged (EMA) weights first. mmengine's `state_dict` already is the
# averaged one if there is one.
_LAYOUTS = (("state_dict_ema",), ("state_dict",), ("ema", "module"), ("ema",), ("model_ema",), ("model",))


def read_checkpoint(path: str | os.PathLike, map_location: str | torch.device = "cpu") -> dict[str, Any]:
    """Read a checkpoint file without running code from it; see :mod:`efftasks.structures.suffixes` for its suffixes.

    Raises:
        UserError: the file is missing, truncated, no checkpoint, or a pickle with more than data.
    """
    file = Path(path)
    if not file.is_file():
        others = sorted(file.parent.glob("epoch_*.pth"), key=lambda path: path.stat().st_mtime)
        hint = f"; the newest beside it is {others[-1].name}" if others else ""
        raise UserError(f"{file}: no such checkpoint file{hint}")
    if file.suffix.lower() == ".safetensors":
        return _read_safetensors(file)
    try:
        with torch.serialization.safe_globals(_harmless_globals()):
            data = torch.load(file, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        reason = _refused_content(str(error), file)
        if reason is not None:
            raise UserError(
                f"{file}: refused, the file is a pickle that asks for {reason}, which could run code; expected weights "
                "and plain values only"
            ) from error
        raise UserError(f"{file}: truncated, or not a checkpoint{_suffix_hint(file)}") from error
    except Exception as error:  # broken files raise all kinds of errors (struct.error, AssertionError, ...)
        raise UserError(f"{file}: truncated, or not a checkpoint{_suffix_hint(file)} ({_first_line(error)})") from error
    if not isinstance(data, dict):
        raise UserError(f"{file}: holds a {type(data).__name__}, expected a dict of tensors or of parts")
    return data


def _suffix_hint(file: Path) -> str:
    """The suffixes of checkpoints, for a message, where a file has another one."""
    return "" if is_checkpoint(file) else f", whose names end in {', '.join(CHECKPOINT_SUFFIXES)}"


class _Inert:
    """Replaces objects in mmengine's checkpoints that are not weights: accepts any arguments, does nothing."""

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...


def _harmless_globals() -> list[Any]:
    """The types in checkpoints of mmengine's Runner beside tensors: numpy values and histories of scalars.

    The histories refer to their methods through ``getattr``. Neither is needed: both are replaced by :class:`_Inert`,
    so that ``getattr`` is never called.
    """
    core: Any = importlib.import_module("numpy._core.multiarray")
    dtypes = [type(np.dtype(kind)) for kind in (np.uint32, np.int64, np.float64, np.float32, np.uint8, np.bool_)]
    inert = [(_Inert, name) for name in ("builtins.getattr", "mmengine.logging.history_buffer.HistoryBuffer")]
    return [core._reconstruct, core.scalar, np.ndarray, np.dtype, *dtypes, *inert]


def _refused_content(message: str, file: Path) -> str | None:
    """What a pickle needs that torch refuses, from its error message; None where reading failed for another reason."""
    match = re.search(r"(?:Unsupported global: GLOBAL|unsupported GLOBAL|Unsupported class) (\S+)", message)
    if match:
        return match.group(1).rstrip(".,")
    with file.open("rb") as stream:
        is_pickle = stream.read(1) == b"\x80"
    return "an operation that no weights need" if is_pickle and "Unsupported operand" in message else None


def _read_safetensors(file: Path) -> dict[str, Any]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise UserError(f"{file}: reading it needs safetensors; pip install safetensors") from error
    try:
        return dict(load_file(str(file)))
    except SafetensorError as error:
        raise UserError(f"{file}: truncated, or not a safetensors file ({_first_line(error)})") from error


def read_state_dict(path: str | os.PathLike) -> dict[str, Tensor]:
    """The weights in a checkpoint file of any common layout, without ``module.`` prefixes.

    Raises:
        UserError: as :func:`read_checkpoint`, or the file has no weights.
    """
    return weights_of(read_checkpoint(path), path)


def weights_of(data: Mapping[str, Any], source: str | os.PathLike) -> dict[str, Tensor]:
    """The weights in a checkpoint that :func:`read_checkpoint` has read from ``source``; see :func:`read_state_dict`.

    Raises:
        UserError: it has no weights.
    """
    for layout in _LAYOUTS:
        part: Any = data
        for key in layout:
            part = part.get(key) if isinstance(part, Mapping) else None
        if _holds_weights(part):
            return _tensors(part)
    if _holds_weights(data):
        return _tensors(data)
    raise UserError(f"{source}: no weights in it, expected a state dict or a 'state_dict', 'model' or 'ema' of tensors")


def dataset_meta_of(data: Mapping[str, Any], source: str | os.PathLike) -> dict[str, Any]:
    """``meta.dataset_meta`` of a checkpoint that :func:`read_checkpoint` has read from ``source``; empty if absent.

    Raises:
        UserError: it is no dict, its classes are no list of names, or its category ids do not match them.
    """
    meta: Any = data.get("meta") or {}
    if not isinstance(meta, Mapping):
        raise UserError(f"{source}: meta: got a {type(meta).__name__}, expected a dict")
    metadata: Any = meta.get("dataset_meta") or {}
    if not isinstance(metadata, Mapping):
        raise UserError(f"{source}: meta.dataset_meta: got a {type(metadata).__name__}, expected a dict")
    classes = metadata.get("classes") or ()
    if not isinstance(classes, (list, tuple)) or not all(isinstance(name, str) for name in classes):
        raise UserError(f"{source}: meta.dataset_meta.classes: got {classes!r}, expected a list of names")
    ids = metadata.get("category_ids")
    if ids is not None and (not isinstance(ids, (list, tuple)) or len(ids) != len(classes)):
        raise UserError(f"{source}: meta.dataset_meta.category_ids: got {ids!r}, expected one for each of the classes")
    return dict(metadata)


def _holds_weights(part: Any) -> bool:
    return isinstance(part, Mapping) and any(isinstance(value, Tensor) for value in part.values())


def _tensors(part: Mapping[str, Any]) -> dict[str, Tensor]:
    return {key.removeprefix("module."): value for key, value in part.items() if isinstance(value, Tensor)}


@dataclass(frozen=True)
class MatchReport:
    """The comparison of a state dict with a module, by names and shapes."""

    matched: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)  # in the module only
    unexpected: list[str] = field(default_factory=list)  # in the file only
    mismatched: list[str] = field(default_factory=list)  # in both, with different shapes

    @property
    def complete(self) -> bool:
        """Whether everything matched."""
        return not (self.missing or self.unexpected or self.mismatched)

    def summary(self, names: int = 3) -> str:
        """Counts, and the first ``names`` names of what did not match."""
        parts = [f"{len(self.matched)} tensors matched"]
        for kind in ("missing", "unexpected", "mismatched"):
            keys = getattr(self, kind)
            if keys:
                more = ", ..." if len(keys) > names else ""
                parts.append(f"{len(keys)} {kind} ({', '.join(keys[:names])}{more})")
        return ", ".join(parts)

    def without_guide(self) -> MatchReport:
        """The report without the weights of a guide: a model with a teacher and one without start from each other."""
        kept = {part: [key for key in keys if not key.startswith(GUIDE_PREFIX)] for part, keys in vars(self).items()}
        return MatchReport(**kept)

    def tolerating(self, prefix: str) -> MatchReport:
        """The report without differences in weights of this prefix; those that match still do."""
        kept = {part: [key for key in keys if not key.startswith(prefix)] for part, keys in vars(self).items()}
        return MatchReport(**{**kept, "matched": self.matched})


def compare(module: nn.Module, state: Mapping[str, Tensor]) -> MatchReport:
    """Compare a state dict with a module, without loading it."""
    expected = module.state_dict()
    return MatchReport(
        matched=[key for key in expected if key in state and expected[key].shape == state[key].shape],
        missing=[key for key in expected if key not in state],
        unexpected=[key for key in state if key not in expected],
        mismatched=[
            f"{key} {tuple(state[key].shape)} for {tuple(expected[key].shape)}"
            for key in expected
            if key in state and expected[key].shape != state[key].shape
        ],
    )


def load_matching(
    module: nn.Module, state: Mapping[str, Tensor], strict: bool = True, name: str = "the checkpoint"
) -> MatchReport:
    """Load the tensors of a state dict that match a module by name and shape.

    Args:
        module: is changed in place.
        state: name -> tensor.
        strict: load nothing unless everything matches but the weights of a guide, which only training has.
        name: of the state dict, for the message.

    Raises:
        UserError: with ``strict``, a tensor is missing, unexpected or of another shape.
    """
    report = compare(module, state)
    if strict and not report.without_guide().complete:
        raise UserError(f"{name} is of another architecture than {type(module).__name__}: {report.summary()}")
    module.load_state_dict({key: state[key] for key in report.matched}, strict=False)
    return report


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0].rstrip(".")[:160]
