"""What an artifact says of itself: the sidecar beside the file, and the same JSON inside it.

Standard library only, so that a device needs nothing to read it.
"""

from __future__ import annotations

import json
import math
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from efftasks.structures.errors import UserError
from efftasks.structures.pixel_range import PixelRange, checked_range

__all__ = ["METADATA_KEY", "ArtifactSpec", "InputSpec", "OutputSpec"]

SCHEMA = 1
METADATA_KEY = "efftasks"  # of the JSON inside a file, where its format has room for metadata
# What a runtime has to know how to do; anything else would be predicted wrongly, without a word.
_ALLOWED = {
    "resize": ("letterbox", "stretch", "crop"),
    "color": ("RGB", "BGR"),
    "layout": ("NCHW",),
    "dtype": ("float32",),
    "interpolation": ("bilinear",),
}


@dataclass(frozen=True)
class InputSpec:
    """How an image becomes the network's input.

    ``letterbox``: scale by min(width / w, height / h), each side rounded half up, image at the top left, padding on
    the right and at the bottom. ``stretch``: to (width, height). ``crop``: a window around the box of an object, with
    the aspect ratio of the input and larger than the box by ``crop_padding``, see ``structures/crops.py``. Then
    ``(pixel - mean) / std`` with pixels in 0..255: images of more than 8 bits are brought to these before anything
    else, from ``pixel_range`` (low, high), or by 1/256 where it is None.
    """

    name: str
    height: int
    width: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: str = "letterbox"
    crop_padding: float = 1.25
    pad_value: float = 114.0
    color: str = "RGB"
    layout: str = "NCHW"
    dtype: str = "float32"
    interpolation: str = "bilinear"
    divisor: int = 32
    dynamic_batch: bool = True
    dynamic_size: bool = False
    pixel_range: PixelRange | None = None

    def __post_init__(self) -> None:
        for name, allowed in _ALLOWED.items():
            if getattr(self, name) not in allowed:
                raise UserError(f"input.{name}: got {getattr(self, name)!r}, expected one of {allowed}")
        for name in ("height", "width", "divisor"):
            value = getattr(self, name)
            if not _is_number(value) or not isinstance(value, int) or value < 1:
                raise UserError(f"input.{name}: got {value!r}, expected an integer from 1")
        for name in ("mean", "std"):
            value = getattr(self, name)
            if not isinstance(value, (tuple, list)) or len(value) != 3 or not all(map(_is_number, value)):
                raise UserError(f"input.{name}: got {value!r}, expected three numbers")
        if 0 in self.std:
            raise UserError(f"input.std: got {self.std!r}, expected numbers other than 0")
        if not _is_number(self.pad_value):
            raise UserError(f"input.pad_value: got {self.pad_value!r}, expected a number")
        checked_range(self.pixel_range, "input.pixel_range")
        if not _is_number(self.crop_padding) or self.crop_padding <= 0:
            raise UserError(f"input.crop_padding: got {self.crop_padding!r}, expected a number above 0")
        if not isinstance(self.name, str) or not self.name:
            raise UserError(f"input.name: got {self.name!r}, expected a name")
        for name in ("dynamic_batch", "dynamic_size"):
            if not isinstance(getattr(self, name), bool):
                raise UserError(f"input.{name}: got {getattr(self, name)!r}, expected true or false")


@dataclass(frozen=True)
class OutputSpec:
    """One output: its shape (numbers, or names of dynamic axes) and meaning."""

    name: str
    shape: tuple[int | str, ...]
    dtype: str
    meaning: str

    def __post_init__(self) -> None:
        for name in ("name", "dtype", "meaning"):
            if not isinstance(getattr(self, name), str):
                raise UserError(f"outputs.{name}: got {getattr(self, name)!r}, expected a text")
        if not isinstance(self.shape, (tuple, list)) or not all(type(side) in (int, str) for side in self.shape):
            raise UserError(f"outputs.shape: got {self.shape!r}, expected a list of integers and names")


@dataclass(frozen=True)
class ArtifactSpec:
    """An artifact: task, classes, input, outputs, and what was verified.

    ``classes`` are those of the objects, or of the label map where there are no objects; ``semantic_classes`` those of
    a label map beside objects, where they are others. ``palette`` is that of the label map.
    """

    task: str
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    input: InputSpec
    outputs: tuple[OutputSpec, ...]
    keypoints: tuple[str, ...] = ()
    keypoint_sigmas: tuple[float, ...] = ()  # of each keypoint, as OKS has them; or none
    skeleton: tuple[tuple[int, int], ...] = ()  # pairs of indices into keypoints, from 0
    semantic_classes: tuple[str, ...] = ()
    palette: tuple[tuple[int, int, int], ...] = ()  # RGB of each class of the label map, or none
    precision: str = "fp32"
    backend: str = "onnx"
    versions: dict[str, str] = field(default_factory=dict)
    source: dict[str, str] = field(default_factory=dict)
    verify: dict[str, Any] = field(default_factory=dict)
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        for name in ("classes", "category_ids", "keypoints", "semantic_classes"):
            kind, said = (int, "integers") if name == "category_ids" else (str, "names")
            value = getattr(self, name)
            if not isinstance(value, (tuple, list)) or not all(type(entry) is kind for entry in value):
                raise UserError(f"{name}: got {value!r}, expected a list of {said}")
        if len(self.category_ids) != len(self.classes):
            raise UserError(
                f"category_ids: got {len(self.category_ids)}, expected {len(self.classes)}, one for each of classes"
            )
        for name in ("task", "precision", "backend"):
            if not isinstance(getattr(self, name), str):
                raise UserError(f"{name}: got {getattr(self, name)!r}, expected a text")
        for name in ("versions", "source", "verify"):
            if not isinstance(getattr(self, name), dict):
                raise UserError(f"{name}: got {getattr(self, name)!r}, expected an object")
        if not self.outputs:
            raise UserError("outputs: got none, expected at least one")
        self._check_keypoints()

    def _check_keypoints(self) -> None:
        sigmas, count = self.keypoint_sigmas, len(self.keypoints)
        if not isinstance(sigmas, (tuple, list)) or not all(_is_number(sigma) and sigma > 0 for sigma in sigmas):
            raise UserError(f"keypoint_sigmas: got {sigmas!r}, expected a list of numbers above 0")
        if len(sigmas) not in (0, count):
            raise UserError(f"keypoint_sigmas: got {len(sigmas)}, expected {count}, one for each of keypoints, or none")
        for pair in self.skeleton:
            if not all(0 <= point < count for point in pair):
                raise UserError(f"skeleton: got {tuple(pair)}, expected indices of the {count} keypoints")

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
        if not isinstance(data["outputs"], list):
            raise UserError(f"{origin}: outputs: got a {type(data['outputs']).__name__}, expected a list")
        outputs = [_pick(OutputSpec, output, f"{origin}: outputs[{i}]") for i, output in enumerate(data["outputs"])]
        values["skeleton"] = _integers("skeleton", values.get("skeleton", ()), 2, origin)
        values["palette"] = _integers("palette", values.get("palette", ()), 3, origin)
        facts = _pick(InputSpec, data["input"], f"{origin}: input")
        try:
            values["outputs"] = tuple(OutputSpec(**output) for output in outputs)
            return cls(**{**values, "input": InputSpec(**facts)})
        except UserError as error:
            raise UserError(f"{origin}: {error}") from error

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


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _integers(name: str, value: Any, count: int, origin: str) -> tuple[Any, ...]:
    """Rows of ``count`` integers."""
    try:
        rows = tuple(tuple(map(int, row)) for row in value)
    except (TypeError, ValueError) as error:
        raise UserError(f"{origin}: {name}: got {value!r}, expected rows of {count} integers") from error
    if any(len(row) != count for row in rows):
        raise UserError(f"{origin}: {name}: got {value!r}, expected rows of {count} integers")
    return rows


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
