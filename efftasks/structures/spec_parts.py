"""The parts of an artifact's description: its input, outputs and files, how it was quantized, how it is decoded.

Standard library only, so that a device needs nothing to read them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from efftasks.structures.errors import UserError
from efftasks.structures.field_checks import (
    check_choice,
    check_integer,
    check_text,
    check_texts,
    is_number,
)
from efftasks.structures.pixel_range import PixelRange, checked_range

__all__ = [
    "EXITS",
    "EXIT_SCORE",
    "EXIT_THRESHOLD",
    "INPUTS",
    "ArtifactFile",
    "DecoderSpec",
    "ExitSpec",
    "InputSpec",
    "OutputSpec",
    "QuantizationSpec",
    "Undecoded",
]

INPUTS = ("float32", "uint8")  # types of a network's input, the usual one first
# What a runtime has to know how to do; anything else would be predicted wrongly, without a word.
_INPUT_CHOICES = {
    "resize": ("letterbox", "stretch", "crop"),
    "color": ("RGB", "BGR"),
    "layout": ("NCHW", "NHWC"),
    "dtype": INPUTS,
    "interpolation": ("bilinear",),
}
EXIT_SCORE, EXIT_THRESHOLD = "exit_score", "exit_threshold"  # an output, and an input of files that decide themselves
EXITS = ("if", "split")  # who decides whether to go on after an early exit: the file, or the runtime
_OUTPUT_TYPES = ("float32", "float16", "int64", "int32", "int8", "uint8", "bool")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_CHUNK = 2**20  # bytes of a file that are read at a time


@dataclass(frozen=True)
class InputSpec:
    """How an image becomes the network's input.

    ``letterbox``: scale by min(width / w, height / h), each side rounded half up, image at the top left, padding on
    the right and at the bottom. ``stretch``: to (width, height). ``crop``: a window around the box of an object, with
    the aspect ratio of the input and larger than the box by ``crop_padding``, see ``imaging/crops.py``. Then
    ``(pixel - mean) / std`` with pixels in 0..255: images of more than 8 bits are brought to these before anything
    else, from ``pixel_range`` (low, high), or by 1/256 where it is None. ``layout`` is the order of the axes: images
    (N, 3, H, W), or (N, H, W, 3) in files for runtimes that keep channels last.

    A file whose ``dtype`` is ``uint8`` takes the pixels themselves, (N, H, W, 4): RGBA or BGRA, as ``color`` says,
    padded with ``pad_value``. It ignores the fourth channel, and applies ``mean`` and ``std`` inside.
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
    channels: int = 3  # of the network input; 4 where dtype is uint8

    def __post_init__(self) -> None:
        for name, allowed in _INPUT_CHOICES.items():
            check_choice(f"input.{name}", getattr(self, name), allowed)
        for name in ("height", "width", "divisor"):
            check_integer(f"input.{name}", getattr(self, name))
        for name in ("mean", "std"):
            value = getattr(self, name)
            if not isinstance(value, (tuple, list)) or len(value) != 3 or not all(map(is_number, value)):
                raise UserError(f"input.{name}: got {value!r}, expected three numbers")
        if 0 in self.std:
            raise UserError(f"input.std: got {self.std!r}, expected numbers other than 0")
        if not is_number(self.pad_value):
            raise UserError(f"input.pad_value: got {self.pad_value!r}, expected a number")
        checked_range(self.pixel_range, "input.pixel_range")
        if not is_number(self.crop_padding) or self.crop_padding <= 0:
            raise UserError(f"input.crop_padding: got {self.crop_padding!r}, expected a number above 0")
        check_text("input.name", self.name)
        for name in ("dynamic_batch", "dynamic_size"):
            if not isinstance(getattr(self, name), bool):
                raise UserError(f"input.{name}: got {getattr(self, name)!r}, expected true or false")
        self._check_channels()

    def _check_channels(self) -> None:
        takes_bytes = self.dtype == "uint8"
        expected = 4 if takes_bytes else 3
        if type(self.channels) is not int or self.channels != expected:
            raise UserError(f"input.channels: got {self.channels!r}, expected {expected} where dtype is {self.dtype}")
        if takes_bytes and self.layout != "NHWC":
            raise UserError(f"input.layout: got {self.layout!r}, expected 'NHWC' where dtype is uint8")
        if takes_bytes and not (0 <= self.pad_value <= 255 and self.pad_value == int(self.pad_value)):
            raise UserError(
                f"input.pad_value: got {self.pad_value!r}, expected an integer in 0 to 255 where dtype is uint8"
            )

    def of_bytes(self) -> InputSpec:
        """That of a file that takes the pixels themselves instead of ``(pixel - mean) / std``.

        Raises:
            UserError: ``pad_value`` is no value of a pixel.
        """
        return replace(self, dtype="uint8", layout="NHWC", channels=4)


@dataclass(frozen=True)
class OutputSpec:
    """One output: its shape (numbers, or names of dynamic axes) and meaning."""

    name: str
    shape: tuple[int | str, ...]
    dtype: str
    meaning: str

    def __post_init__(self) -> None:
        check_text("outputs.name", self.name)
        check_choice("outputs.dtype", self.dtype, _OUTPUT_TYPES)
        if not isinstance(self.meaning, str):
            raise UserError(f"outputs.meaning: got {self.meaning!r}, expected a text")
        if not isinstance(self.shape, (tuple, list)) or not self.shape or not all(map(_is_side, self.shape)):
            raise UserError(f"outputs.shape: got {self.shape!r}, expected a list of integers from 1 and names")


def _is_side(value: object) -> bool:
    return (type(value) is int and value >= 1) or (isinstance(value, str) and value != "")


@dataclass(frozen=True)
class ArtifactFile:
    """One file of an artifact, as it was written.

    Attributes:
        name: without a folder: all files of an artifact lie beside its sidecar.
        sha256: of its content, 64 hexadecimal digits in lower case.
        bytes: its size.
    """

    name: str
    sha256: str
    bytes: int

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or self.name in ("", ".", "..") or re.search(r"[/\\]", self.name):
            raise UserError(f"files.name: got {self.name!r}, expected the name of a file, without a folder")
        if not isinstance(self.sha256, str) or not _SHA256.fullmatch(self.sha256):
            raise UserError(f"files.sha256: got {self.sha256!r}, expected 64 hexadecimal digits in lower case")
        check_integer("files.bytes", self.bytes, 0)

    @classmethod
    def of(cls, path: str | Path, name: str | None = None) -> ArtifactFile:
        """That of a file on disk; ``name`` is the one that it is going to have, None the one that it has."""
        path = Path(path)
        return cls(name or path.name, _sha256(path), path.stat().st_size)

    def check(self, path: str | Path, origin: str) -> None:
        """Whether a file on disk is this one.

        Args:
            path: of the file.
            origin: what states it, for the message.

        Raises:
            UserError: it is missing, or is another one.
        """
        path = Path(path)
        if not path.is_file():
            raise UserError(
                f"{path}: no such file, but {origin} names it as a part of the artifact; copy it there, too"
            )
        size = path.stat().st_size
        if size != self.bytes:
            raise UserError(
                f"{path}: got {size} bytes, expected {self.bytes} as {origin} states: it is incomplete, or another "
                "one; copy both again from where they were exported"
            )
        digest = _sha256(path)
        if digest != self.sha256:
            raise UserError(
                f"{path}: got the SHA-256 {digest[:12]}..., expected {self.sha256[:12]}... as {origin} states: it was "
                "changed; copy both again from where they were exported"
            )


def _sha256(path: Path) -> str:
    import hashlib  # a file that states no digest needs none

    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


@dataclass(frozen=True)
class QuantizationSpec:
    """How the numbers of a file were made smaller; None and an empty list for what is not known.

    Attributes:
        weights: their type: ``int8``, ``uint8``, ``int4``, ``float16``.
        activations: theirs, or ``float32`` where weights alone are quantized.
        granularity: one scale a tensor (``per-tensor``) or one a channel of the weights (``per-channel``).
        calibration_images: how many images the ranges were measured on.
        calibration_sha256: digest of that set, as whoever calibrated made it.
        float_layers: names of the layers that stay in float.
        method: how the ranges of activations were taken from the calibration images.
        weight_bits: how many bits of the weights' type are used; fewer than it has where sums could overflow.
    """

    weights: str | None = None
    activations: str | None = None
    granularity: str | None = None
    calibration_images: int | None = None
    calibration_sha256: str | None = None
    float_layers: tuple[str, ...] = ()
    method: str | None = None
    weight_bits: int | None = None

    def __post_init__(self) -> None:
        for name, allowed in _QUANTIZATION_CHOICES.items():
            if getattr(self, name) is not None:
                check_choice(f"quantization.{name}", getattr(self, name), allowed)
        if self.calibration_images is not None:
            check_integer("quantization.calibration_images", self.calibration_images)
        digest = self.calibration_sha256
        if digest is not None and (not isinstance(digest, str) or not _SHA256.fullmatch(digest)):
            raise UserError(f"quantization.calibration_sha256: got {digest!r}, expected 64 hexadecimal digits")
        check_texts("quantization.float_layers", self.float_layers)
        if self.method is not None:
            check_text("quantization.method", self.method)
        if self.weight_bits is not None:
            check_integer("quantization.weight_bits", self.weight_bits)


_QUANTIZATION_CHOICES = {
    "weights": ("int8", "uint8", "int4", "uint4", "float16"),
    "activations": ("int8", "uint8", "int16", "float16", "float32"),
    "granularity": ("per-tensor", "per-channel"),
}


@dataclass(frozen=True)
class DecoderSpec:
    """What a runtime has to do with the outputs of a file that ends before its decoder.

    Attributes:
        name: which decoder, one of ``efftasks/runtime/decoders.py``.
        max_detections: K, the most that it gives for an image; None for decoders that give no detections.
        bins_per_pixel: of the heat maps of keypoints over x and y; None for decoders that take none.
    """

    name: str
    max_detections: int | None = None
    bins_per_pixel: float | None = None

    def __post_init__(self) -> None:
        check_text("decoder.name", self.name)
        if self.max_detections is not None:
            check_integer("decoder.max_detections", self.max_detections)
        if self.bins_per_pixel is not None and not (is_number(self.bins_per_pixel) and self.bins_per_pixel > 0):
            raise UserError(f"decoder.bins_per_pixel: got {self.bins_per_pixel!r}, expected a number above 0")


class Undecoded(NamedTuple):
    """What a file of a model has where it ends before its decoder."""

    outputs: tuple[OutputSpec, ...]  # of the file
    decoder: DecoderSpec | None  # that a runtime runs on them; None where they are the predictions
    selects: str = ""  # why the network needs top-k and gather in front of its end, a clause; empty where it does not


@dataclass(frozen=True)
class ExitSpec:
    """Where a network may answer early, and how it is decided.

    The answer at the exit comes with a score of its own, output ``exit_score`` (N,). If it is at least ``threshold``,
    the answer is taken; otherwise the rest of the network runs, and its answer is taken.

    ``if``: one file, which decides itself. It has a second input, ``exit_threshold`` (1,), and a batch of one.
    ``split``: the file that is opened first gives the early answer, the score and the ``carried`` tensors; the file
    named ``rest`` takes these and gives the later answer. The runtime decides, for each image of a batch.

    Attributes:
        form: ``if`` or ``split``.
        threshold: the default; scores lie in [0, 1], so that 0 always exits, and a number above 1 never does.
        rest: name of the second file, without a folder; None for ``if``.
        carried: outputs of the first file that are the inputs of the second; none for ``if``.
    """

    form: str
    threshold: float
    rest: str | None = None
    carried: tuple[OutputSpec, ...] = ()

    def __post_init__(self) -> None:
        check_choice("early_exit.form", self.form, EXITS)
        if not is_number(self.threshold) or self.threshold < 0:
            raise UserError(f"early_exit.threshold: got {self.threshold!r}, expected a number from 0")
        if (self.rest is None) != (self.form == "if"):
            raise UserError(f"early_exit.rest: got {self.rest!r}, expected the name of a file for 'split' alone")
        if self.rest is not None:
            check_text("early_exit.rest", self.rest)
        if bool(self.carried) != (self.form == "split"):
            raise UserError(f"early_exit.carried: got {len(self.carried)} outputs, expected some for 'split' alone")
