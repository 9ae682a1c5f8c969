"""What an artifact says of itself: the sidecar beside the file, and the same JSON inside it.

Standard library only, so that a device needs nothing to read it.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from efftasks.structures.comparison import POLICIES, PRECISIONS, Policy, policy_from, policy_to_dict
from efftasks.structures.errors import UserError
from efftasks.structures.field_checks import check_choice, check_texts, is_number
from efftasks.structures.spec_parts import (
    EXIT_SCORE,
    EXIT_THRESHOLD,
    EXITS,
    INPUTS,
    ArtifactFile,
    DecoderSpec,
    ExitSpec,
    InputSpec,
    OutputSpec,
    QuantizationSpec,
    Undecoded,
)

__all__ = [
    "DECODES",
    "EXITS",
    "EXIT_SCORE",
    "EXIT_THRESHOLD",
    "INPUTS",
    "METADATA_KEY",
    "SCHEMA",
    "TASKS",
    "ArtifactFile",
    "ArtifactSpec",
    "DecoderSpec",
    "ExitSpec",
    "InputSpec",
    "OutputSpec",
    "QuantizationSpec",
    "Undecoded",
]

SCHEMA = 2
_READABLE = (1, SCHEMA)  # 1 has no files, quantization, comparison, decode and decoder
METADATA_KEY = "efftasks"  # of the JSON inside a file, where its format has room for metadata
TASKS = ("detection", "instance segmentation", "pose", "multi-task", "semantic segmentation", "top-down pose")
DECODES = ("inside", "outside")  # where a file is decoded: in the file, or by the runtime
_BACKEND = re.compile(r"[a-z][a-z0-9._-]*")


@dataclass(frozen=True)
class ArtifactSpec:
    """An artifact: task, classes, input, outputs, files, and what was verified.

    ``classes`` are those of the objects, or of the label map where there are no objects; ``semantic_classes`` those of
    a label map beside objects, where they are others. ``palette`` is that of the label map.

    ``outputs`` are those of the file. They are the predictions where ``decode`` is ``inside``; where it is ``outside``,
    the runtime makes the predictions of them, as ``decoder`` says. ``files`` are all that the artifact consists of, the
    one that is opened first: they stand in the sidecar alone, since no file can hold its own digest. ``comparison`` is
    what the artifact was held against; None for what its precision asks. ``early_exit`` is None where the whole network
    always runs. ``score_thresholds``, the least score of each class, stand in the sidecar alone, where ``efftasks test
    --write-thresholds`` wrote them.
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
    score_thresholds: tuple[float, ...] = ()  # of each class, or none
    decode: str = "inside"
    decoder: DecoderSpec | None = None
    early_exit: ExitSpec | None = None
    precision: str = "fp32"
    quantization: QuantizationSpec | None = None
    comparison: Policy | None = None
    backend: str = "onnx"  # the exporter that wrote it
    files: tuple[ArtifactFile, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    source: dict[str, str] = field(default_factory=dict)
    verify: dict[str, Any] = field(default_factory=dict)
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        check_choice("task", self.task, TASKS)
        check_choice("precision", self.precision, PRECISIONS)
        check_choice("decode", self.decode, DECODES)
        if not isinstance(self.backend, str) or not _BACKEND.fullmatch(self.backend):
            raise UserError(f"backend: got {self.backend!r}, expected the name of an exporter, such as 'onnx'")
        if type(self.schema) is not int or self.schema != SCHEMA:
            raise UserError(f"schema: got {self.schema!r}, expected {SCHEMA}")
        self._check_classes()
        self._check_keypoints()
        self._check_outputs()
        if self.quantization is not None and self.precision == "fp32":
            raise UserError("quantization: got an object, expected none where the precision is fp32")
        names = [file.name for file in self.files]
        if len(set(names)) < len(names):
            raise UserError(f"files: got the names {', '.join(names)}, expected each once")
        for name in ("versions", "source"):
            value = getattr(self, name)
            if not isinstance(value, dict) or not all(isinstance(text, str) for pair in value.items() for text in pair):
                raise UserError(f"{name}: got {value!r}, expected an object of texts")
        if not isinstance(self.verify, dict):
            raise UserError(f"verify: got {self.verify!r}, expected an object")

    @property
    def file_outputs(self) -> tuple[OutputSpec, ...]:
        """The outputs of the file that is opened first: with what an exit carries on to the second one."""
        return self.outputs if self.early_exit is None else (*self.outputs, *self.early_exit.carried)

    def _check_classes(self) -> None:
        for name in ("classes", "keypoints", "semantic_classes"):
            check_texts(name, getattr(self, name))
        ids = self.category_ids
        if not isinstance(ids, (tuple, list)) or not all(type(entry) is int for entry in ids):
            raise UserError(f"category_ids: got {ids!r}, expected a list of integers")
        if len(ids) != len(self.classes):
            raise UserError(f"category_ids: got {len(ids)}, expected {len(self.classes)}, one for each of classes")
        thresholds = self.score_thresholds
        if not isinstance(thresholds, (tuple, list)) or not all(is_number(x) and 0 <= x <= 1 for x in thresholds):
            raise UserError(f"score_thresholds: got {thresholds!r}, expected a list of numbers in 0 to 1")
        if len(thresholds) not in (0, len(self.classes)):
            raise UserError(
                f"score_thresholds: got {len(thresholds)}, expected {len(self.classes)}, one for each of classes, "
                "or none"
            )
        for color in self.palette:
            if not all(0 <= value <= 255 for value in color):
                raise UserError(f"palette: got {tuple(color)}, expected numbers in 0 to 255")

    def _check_keypoints(self) -> None:
        sigmas, count = self.keypoint_sigmas, len(self.keypoints)
        if not isinstance(sigmas, (tuple, list)) or not all(is_number(sigma) and sigma > 0 for sigma in sigmas):
            raise UserError(f"keypoint_sigmas: got {sigmas!r}, expected a list of numbers above 0")
        if len(sigmas) not in (0, count):
            raise UserError(f"keypoint_sigmas: got {len(sigmas)}, expected {count}, one for each of keypoints, or none")
        for pair in self.skeleton:
            if not all(0 <= point < count for point in pair):
                raise UserError(f"skeleton: got {tuple(pair)}, expected indices of the {count} keypoints")

    def _check_outputs(self) -> None:
        names = [output.name for output in self.outputs]
        if not names:
            raise UserError("outputs: got none, expected at least one")
        if len(set(names)) < len(names):
            raise UserError(f"outputs: got the names {', '.join(names)}, expected each once")
        if (self.decoder is None) != (self.decode == "inside"):
            got = "none" if self.decoder is None else "an object"
            raise UserError(
                f"decoder: got {got} where decode is {self.decode!r}, expected an object for 'outside' alone"
            )

    @property
    def policy(self) -> Policy:
        """What the artifact is held against: ``comparison``, or that of its precision."""
        return POLICIES[self.precision] if self.comparison is None else self.comparison

    def with_verify(self, verify: dict[str, Any]) -> ArtifactSpec:
        """The same with another ``verify`` block."""
        return replace(self, verify=verify)

    def to_json(self) -> str:
        """As JSON text, the inverse of :meth:`from_json`; null for numbers in ``verify`` that JSON cannot hold."""
        data = {**asdict(self), "verify": _finite(self.verify)}
        if self.comparison is not None:
            data["comparison"] = policy_to_dict(self.comparison)
        return json.dumps(data, indent=2, allow_nan=False)

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
        schema = data.get("schema")
        if type(schema) is not int or schema not in _READABLE:
            expected = " or ".join(map(str, _READABLE))
            raise UserError(
                f"{origin}: schema: got {schema!r}, expected {expected}; a newer one needs a newer efftasks"
            )
        try:
            return cls(**_values(data))
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
        except UnicodeDecodeError as error:
            raise UserError(f"{path}: not JSON in UTF-8 ({error.reason} at byte {error.start})") from error
        return cls.from_json(text, origin=str(path))


def _finite(value: Any) -> Any:
    """The same with None for every number that is not finite: readers in other languages refuse them."""
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _values(data: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a description from a JSON object of any readable schema."""
    values = _pick(ArtifactSpec, data)
    values["schema"] = SCHEMA
    values["input"] = InputSpec(**_pick(InputSpec, data["input"], "input"))
    values["outputs"] = _parts(OutputSpec, "outputs", data["outputs"])
    values["files"] = _parts(ArtifactFile, "files", data.get("files", []))
    for name, kind in (("quantization", QuantizationSpec), ("decoder", DecoderSpec)):
        if data.get(name) is not None:
            values[name] = kind(**_pick(kind, data[name], name))
    if data.get("early_exit") is not None:
        exit_values = _pick(ExitSpec, data["early_exit"], "early_exit")
        carried = _parts(OutputSpec, "early_exit.carried", exit_values.pop("carried", ()) or [])
        values["early_exit"] = ExitSpec(**exit_values, carried=carried)
    if data.get("comparison") is not None:
        values["comparison"] = policy_from(data["comparison"])
    for name, count in (("skeleton", 2), ("palette", 3)):
        values[name] = _integers(name, data.get(name, []), count)
    return values


def _parts(kind: type, name: str, data: Any) -> tuple[Any, ...]:
    """A list of objects of one kind."""
    if not isinstance(data, (list, tuple)):
        raise UserError(f"{name}: got a {type(data).__name__}, expected a list")
    return tuple(kind(**_pick(kind, part, f"{name}[{i}]")) for i, part in enumerate(data))


def _integers(name: str, rows: Any, count: int) -> tuple[tuple[int, ...], ...]:
    """Rows of ``count`` integers."""
    if not isinstance(rows, list) or not all(
        isinstance(row, list) and len(row) == count and all(type(value) is int for value in row) for row in rows
    ):
        raise UserError(f"{name}: got {rows!r}, expected rows of {count} integers")
    return tuple(tuple(row) for row in rows)


def _pick(kind: type, data: Any, place: str = "") -> dict[str, Any]:
    """The fields of a dataclass from a JSON object, lists as tuples; unknown ones are left for newer readers."""
    place = f"{place}: " if place else ""
    if not isinstance(data, dict):
        raise UserError(f"{place}got a {type(data).__name__}, expected an object")
    values = {}
    for entry in fields(kind):
        if entry.name in data:
            value = data[entry.name]
            values[entry.name] = tuple(value) if isinstance(value, list) else value
        elif entry.default is MISSING and entry.default_factory is MISSING:
            raise UserError(f"{place}field {entry.name!r} is missing")
    return values
