"""All runtimes: commands, ``Predictor``, the benchmark and messages know them from here alone."""

from __future__ import annotations

from pathlib import Path

from efftasks.runtime.backends import aotinductor, executorch, litert, ncnn, onnxruntime, openvino
from efftasks.runtime.backends.base import Backend
from efftasks.structures.errors import UserError
from efftasks.structures.suffixes import CHECKPOINT_SUFFIXES

__all__ = ["BACKENDS", "artifact_suffixes", "expected_models", "find_backend", "opened_instead_of"]

SIDECAR_SUFFIX = ".json"

# In the order of messages. The first one whose own suffix a file has runs it where none is named.
BACKENDS: dict[str, Backend] = {
    backend.name: backend
    for backend in (
        onnxruntime.BACKEND,
        openvino.BACKEND,
        ncnn.BACKEND,
        executorch.BACKEND,
        litert.BACKEND,
        aotinductor.BACKEND,
    )
}


def find_backend(path: str | Path, name: str | None = None) -> Backend:
    """The runtime for a file.

    Args:
        path: the file; only its suffix is looked at, and what is beside it where no runtime reads it.
        name: of the runtime; None takes the one for the suffix.

    Raises:
        UserError: there is no such runtime, it does not read such files, or none does.
    """
    suffix = Path(path).suffix.lower()
    if name is not None:
        if name not in BACKENDS:
            raise UserError(f"backend: got {name!r}, expected one of {', '.join(BACKENDS)}")
        backend = BACKENDS[name]
        if suffix in backend.reads:
            return backend
        expected = f"a file that {name} reads ({', '.join(backend.reads)})"
    else:
        for backend in BACKENDS.values():
            if suffix == backend.suffix:
                return backend
        expected = expected_models()
    opened_file = opened_instead_of(path)
    if opened_file is not None:
        raise UserError(f"{path}: got a part of an exported file, expected the other one: {opened_file}")
    if suffix == SIDECAR_SUFFIX:
        raise UserError(
            f"{path}: got a description, expected the exported file beside it, of the same name with one of "
            f"{artifact_suffixes()}"
        )
    if suffix in CHECKPOINT_SUFFIXES:
        raise UserError(
            f"{path}: no runtime for {suffix}: a checkpoint needs its config (predict with --config CONFIG, or "
            f"efftasks.apis.predict), or an export; expected an exported file ({artifact_suffixes()})"
        )
    raise UserError(f"{path}: no runtime for {suffix or 'a file without suffix'}, expected {expected}")


def opened_instead_of(path: str | Path) -> Path | None:
    """The file to open where this one is another file of the same artifact, such as its weights; None if it is none."""
    path = Path(path)
    for backend in BACKENDS.values():
        opened_file = path.with_suffix(backend.suffix) if path.suffix.lower() in backend.files[1:] else path
        if opened_file != path and opened_file.is_file():
            return opened_file
    return None


def artifact_suffixes() -> str:
    """The suffixes of exported files, for messages and help."""
    return ", ".join(backend.suffix for backend in BACKENDS.values())


def expected_models() -> str:
    """Which files are models, in words."""
    return f"an exported file ({artifact_suffixes()}) or a checkpoint ({', '.join(CHECKPOINT_SUFFIXES)})"
