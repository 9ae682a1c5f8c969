"""What an artifact says of itself: the sidecar beside the file, and the same JSON inside it.

Standard library only, so that a device needs nothing to read it.
"""

from __future__ import annotations

import json
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from efftasks.structures.errors import UserError

__all__ = ["ArtifactSpec", "InputSpec", "OutputSpec"]

SCHEMA = 1
_RESIZE = ("letterbox", "stretch")


@dataclass(frozen=True)
class InputSpec:
    """How an image becomes the network's input.

    ``letterbox``: scale by min(width / w, height / h), each side rounded half up, image at the top left, padding on
    the right and at the bottom. ``stretch``: to (width, height). Then ``(pixel - mean) / std`` with pixels in 0..255.
    """

    name: str
    height: int
    width: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: str = "letterbox"
    pad_value: float = 114.0
    color: str = "RGB"
    layout: str = "NCHW"
    dtype: str = "float32"
    interpolation: str = "bilinear"
    divisor: int = 32
    dynamic_batch: bool = True
    dynamic_size: bool = False

    def __post_init__(self) -> None:
        if self.resize not in _RESIZE:
            raise UserError(f"input.resize: got {self.resize!r}, expected one of {_RESIZE}")
        for name in ("height", "width", "divisor"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise UserError(f"input.{name}: got {value!r}, expected an integer from 1")
        for name in ("mean", "std"):
            if len(getattr(self, name)) != 3:
                raise UserError(f"input.{name}: got {getattr(self, name)!r}, expected three numbers")


@dataclass(frozen=True)
class OutputSpec:
    """One output: its shape (numbers, or names of dynamic axes) and meaning."""

    name: str
    shape: tuple[int | str, ...]
    dtype: str
    meaning: str


@dataclass(frozen=True)
class ArtifactSpec:
    """An artifact: task, classes, input, outputs, and what was verified."""

    task: str
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    input: InputSpec
    outputs: tuple[OutputSpec, ...]
    keypoints: tuple[str, ...] = ()
    skeleton: tuple[tuple[int, int], ...] = ()
    precision: str = "fp32"
    backend: str = "onnx"
    versions: dict[str, str] = field(default_factory=dict)
    source: dict[str, str] = field(default_factory=dict)
    verify: dict[str, Any] = field(default_factory=dict)
    schema: int = SCHEMA

    def with_verify(self, verify: dict[str, Any]) -> ArtifactSpec:
        """The same with another ``verify`` block."""
        return replace(self, verify=verify)

    def to_json(self) -> str:
        """As JSON text; the inverse of :meth:`from_json`."""
        return json.dumps(asdict(self), indent=2)

    @classmethod
    def from_json(cls, data: str | dict[str, Any], origin: str = "sidecar") -> ArtifactSpec:
        """From JSON text or its dict.

        Raises:
            UserError: not JSON, of a newer schema, or a field is missing or wrong.
        """
        if isinstance(data, str):
            try:
                data = json.loads(data)
            except json.JSONDecodeError as error:
                raise UserError(f"{origin}: not JSON ({error})") from error
        if not isinstance(data, dict):
            raise UserError(f"{origin}: got a {type(data).__name__}, expected an object")
        if data.get("schema") != SCHEMA:
            raise UserError(f"{origin}: schema: got {data.get('schema')!r}, expected {SCHEMA}")
        values = _pick(cls, data, origin)
        values["input"] = InputSpec(**_pick(InputSpec, data["input"], f"{origin}: input"))
        values["outputs"] = tuple(
            OutputSpec(**_pick(OutputSpec, output, f"{origin}: outputs[{i}]"))
            for i, output in enumerate(data["outputs"])
        )
        values["skeleton"] = tuple((int(a), int(b)) for a, b in values.get("skeleton", ()))
        return cls(**values)

    def save(self, path: str | Path) -> None:
        """Write the sidecar."""
        Path(path).write_text(self.to_json() + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> ArtifactSpec:
        """Read a sidecar; errors as :meth:`from_json`."""
        try:
            text = Path(path).read_text(encoding="utf-8")
        except OSError as error:
            raise UserError(f"{path}: the sidecar cannot be read ({error.strerror})") from error
        return cls.from_json(text, origin=str(path))


def _pick(kind: type, data: Any, origin: str) -> dict[str, Any]:
    """The fields of a dataclass from a JSON object, lists as tuples; unknown ones are left for newer readers."""
    if not isinstance(data, dict):
        raise UserError(f"{origin}: got a {type(data).__name__}, expected an object")
    values = {}
    for entry in fields(kind):
        if entry.name in data:
            value = data[entry.name]
            values[entry.name] = tuple(value) if isinstance(value, list) else value
        elif entry.default is MISSING and entry.default_factory is MISSING:
            raise UserError(f"{origin}: field {entry.name!r} is missing")
    return values
