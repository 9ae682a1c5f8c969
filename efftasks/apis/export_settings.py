"""What an exported file is asked to be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from efftasks.export.exporters.base import PageOptions
from efftasks.export.exporters.table import EXPORTERS
from efftasks.runtime.exits import check_threshold
from efftasks.structures.errors import UserError
from efftasks.structures.spec import DECODES, EXITS, INPUTS

__all__ = ["NO_EXIT", "ExportSettings"]

NO_EXIT = "none"  # the whole network, whatever exits the model has


@dataclass(frozen=True)
class ExportSettings:
    """What an exported file is like, and how it is verified.

    Raises:
        UserError: a number out of its range, or no such folder.
    """

    backend: str = next(iter(EXPORTERS))  # the exporter
    precision: str | None = None  # one of the exporter's; None: its default
    input: str = INPUTS[0]  # float32, normalized images; or uint8, their pixels with a fourth channel, see InputSpec
    decode: str | None = None  # inside or outside of the file; None: as the exporter's files are
    size: tuple[int, int] | None = None  # (height, width) of the network input in pixels; None: the config's
    dynamic_size: bool = False  # height and width are free, in steps of the model's divisor
    dynamic_batch: bool = True
    exit: str | None = None  # none, if or split, of a model with an early exit; None: what the exporter writes
    exit_threshold: float | None = None  # of the file; None: the model's
    opset: int = 18
    images: str | Path | None = None  # a folder to verify on; None: the test data of the config
    num_images: int = 16  # how many of them
    evaluate: bool = False  # also the metrics of model and file on the test data
    width: float | None = None  # of a checkpoint of several widths; None: the largest
    quantization: Mapping[str, Any] = field(default_factory=dict)  # overrides of the config's; of int8
    calib_images: str | Path | None = None  # a folder to calibrate on; None: the training data of the config
    sensitivity: bool = False  # measure that of each layer, and leave the worst in float
    ort_web: str | Path | None = None  # folder of the page's runtime, unpacked from npm; None: npm fetches it
    single_file: bool = False  # all that the page reads is inside it

    def __post_init__(self) -> None:
        if self.input not in INPUTS:
            raise UserError(f"--input: got {self.input!r}, expected one of {', '.join(INPUTS)}")
        if self.decode not in (None, *DECODES):
            raise UserError(f"--decode: got {self.decode!r}, expected one of {', '.join(DECODES)}")
        if self.exit not in (None, NO_EXIT, *EXITS):
            raise UserError(f"--exit: got {self.exit!r}, expected one of {', '.join((NO_EXIT, *EXITS))}")
        if self.exit_threshold is not None:
            check_threshold(self.exit_threshold)
        if self.num_images < 1:
            raise UserError(f"--num-images: got {self.num_images}, expected an integer from 1: verifying needs images")
        if self.size is not None and min(self.size) < 1:
            raise UserError(f"--size: got {self.size[0]} {self.size[1]}, expected two integers from 1")
        for option, folder in (("--images", self.images), ("--calib-images", self.calib_images)):
            if folder is not None and not Path(str(folder)).is_dir():
                raise UserError(f"{option}: {folder} is no folder, expected a folder of images")
        if self.precision != "int8" and (self.quantization or self.calib_images or self.sensitivity):
            raise UserError(
                f"--precision: got {self.precision or 'none'}, expected int8: calibration, bits, layers in float and "
                "sensitivity are of quantized files"
            )

    @property
    def input_suffix(self) -> tuple[str, ...]:
        """What a name of the file says of its input: its type, where it is not the usual one."""
        return () if self.input == INPUTS[0] else (self.input,)

    @property
    def page(self) -> PageOptions:
        """Options of exporters that write a page beside the file."""
        return PageOptions(None if self.ort_web is None else Path(self.ort_web), self.single_file)
