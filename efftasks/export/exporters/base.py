"""What an exporter is: what it writes, and how. Standard library only."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from efftasks.export.families import families_with
from efftasks.structures.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from efftasks.export.quantization.recipe import CalibrationImages, Recipe
    from efftasks.structures.spec import ArtifactSpec, InputSpec, QuantizationSpec

__all__ = [
    "Export",
    "Exits",
    "Exporter",
    "Half",
    "Page",
    "PageOptions",
    "PrepareQuantizer",
    "Quantization",
    "Quantizer",
    "WriteGraph",
    "WriteHalf",
]


class Export(Protocol):
    """Writes a model as an artifact."""

    def __call__(self, model: nn.Module, spec: ArtifactSpec, path: Path, *, opset: int) -> Path:
        """Write it.

        Args:
            model: fused, in evaluation mode, on the CPU; satisfies ``Exportable``, or ``EndsEarly`` for files that end
                before their decoder.
            spec: what the file is; it goes into the file where its format has room.
            path: where to, with the suffix of the exporter's runtime.
            opset: of ONNX, for exporters that write it or go through it.

        Returns:
            The path.

        Raises:
            UserError: the model or the description cannot be exported.
            WorkError: the export failed.
        """
        ...


class WriteGraph(Protocol):
    """Writes what a module does, without a description: what is timed, and nothing else."""

    def __call__(self, module: nn.Module, images: Tensor, path: Path) -> Path:
        """Write what the module does with images (B, 3, H, W).

        Raises:
            WorkError: the export failed.
        """
        ...


class Quantizer(Protocol):
    """A network, exported in float, of which quantized files are written."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the layers that can be quantized, in the order of the network."""
        ...

    def write(self, path: Path, recipe: Recipe) -> tuple[str, ...]:
        """Write a quantized file, without a description.

        Returns:
            Names of the convolutions that stayed in float.

        Raises:
            UserError: a pattern of ``float_layers`` matches nothing, or no layer is left.
        """
        ...


class PrepareQuantizer(Protocol):
    """Exports a model in float, to be quantized."""

    def __call__(
        self,
        model: nn.Module,
        spec: ArtifactSpec,
        folder: Path,
        images: CalibrationImages,
        float_parts: Iterable[str],
        *,
        opset: int,
    ) -> Quantizer:
        """Export it.

        Args:
            model: as for :class:`Export`.
            spec: of the float network.
            folder: for files; it is there as long as the result is used.
            images: for calibration.
            float_parts: patterns of names of modules that stay in float.
            opset: as for :class:`Export`.
        """
        ...


@dataclass(frozen=True)
class Quantization:
    """How an exporter makes files of 8-bit integers.

    Attributes:
        prepare: exports in float.
        methods: for ranges of activations, the default first.
        weights: type of the weights.
        activations: type of the activations.
        packages: whose versions a description states.
        modules: what it imports beside what the exporter does.
        extra: the extra of this package that installs them.
        weight_bits: of the weights' type, how many it uses whatever the config says; None where the config counts.
    """

    prepare: PrepareQuantizer
    methods: tuple[str, ...]
    weights: str
    activations: str
    packages: tuple[str, ...]
    modules: tuple[str, ...] = ()
    extra: str = "compress"
    weight_bits: int | None = None


class WriteHalf(Protocol):
    """Writes a model in float16, but for what overflows or loses too much there."""

    def __call__(
        self,
        model: nn.Module,
        spec: ArtifactSpec,
        path: Path,
        images: CalibrationImages,
        float_parts: Iterable[str],
        *,
        opset: int,
    ) -> QuantizationSpec:
        """Write it, without a description.

        Args:
            model: as for :class:`Export`.
            spec: of the file.
            path: where to.
            images: on which it is seen how large the numbers become.
            float_parts: patterns of names of modules that stay in float32.
            opset: as for :class:`Export`.

        Returns:
            What the description states of its numbers.

        Raises:
            UserError: no layer is left.
        """
        ...


@dataclass(frozen=True)
class Half:
    """How an exporter makes files that compute in float16.

    Attributes:
        write: writes one.
        round: (file, path) -> writes a file with the numbers of hardware that computes the first one in float16. The
            runtime here does not, and hides what overflows: both are verified.
    """

    write: WriteHalf
    round: Callable[[Path, Path], None]


@dataclass(frozen=True)
class Exits:
    """How an exporter writes networks with an early exit.

    Attributes:
        forms: precision -> the forms that it writes, see :class:`~efftasks.structures.spec.ExitSpec`, the default
            first. A form that is not there has its reason in ``reasons``.
        write_rest: writes the second file of ``split``; the first one, and files that decide themselves, are written
            by ``export``. It has no description.
        reasons: (form, precision) -> why it is not written, a clause for messages.
    """

    forms: Mapping[str, tuple[str, ...]]
    write_rest: Export
    reasons: Mapping[tuple[str, str], str] = field(default_factory=dict)


class PageOptions(NamedTuple):
    """Where the runtime of a page comes from, and what the page is like."""

    runtime: Path | None = None  # folder of its unpacked npm package; None: npm fetches it
    single_file: bool = False  # all that the page reads is inside it


@dataclass(frozen=True)
class Page:
    """A page that is written beside a verified file, and runs it.

    Attributes:
        check: (description, options) -> nothing; raises UserError before anything is exported, if there can be no page.
        write: (path of the file, description, options) -> the page; the sidecar lies beside the file by then.
    """

    check: Callable[[ArtifactSpec, PageOptions], None]
    write: Callable[[Path, ArtifactSpec, PageOptions], Path]


@dataclass(frozen=True)
class Exporter:
    """A way from a model to a file.

    Attributes:
        name: as ``efftasks export --backend`` and the description of a file have it.
        backend: name of the runtime whose files it writes; that one verifies them.
        precisions: what it can write, the default first.
        export: writes an artifact.
        write_graph: writes a module without a description.
        write_metadata: (path, description) -> puts the description into the file, in place of the one there; does
            nothing where the format has no room for one.
        take_bytes: (path, input of the file) -> makes of a file, whose input is normalized floats, one that takes the
            pixels themselves, uint8 (N, H, W, 4); it has no description then. None where the format has no such files.
        modules: what it imports beside PyTorch.
        extra: the extra of this package that installs them.
        quantization: how it makes ``int8``, where that is one of its precisions.
        half: how it makes ``fp16``, where the network computes in it; files in which weights alone have 16 bits are
            written by ``export``.
        exits: how it writes networks with an early exit; None where it writes the whole network alone.
        page: the page that it writes beside the file, if it does.
        next_step: (path of the file, description) -> the command that makes of it what a device runs; None where the
            file is that.
        stem: name of the files it writes, without suffixes. Formats whose description is beside the file have one of
            their own: the sidecar of another file in the same folder would describe them wrongly.
        undecoded: why its files end before their decoders, a clause for messages: "the runtime has no top-k". Empty
            where they contain them, unless it is asked otherwise.
        selects: whether its runtime has top-k and gather, which some networks need in front of their end.
        branches: whether its files can take one of two ways as the images say, an ``If``.
        fixed_size: whether its files have a batch of one and one size.
        layout: of the images that its files take, as descriptions have it.
        indices: type of whole numbers in its files, labels for one.
        storage: precision -> what a description states of its numbers, beside ``int8``.
        refuses: families of models (:mod:`efftasks.export.families`) that it cannot write -> why, a clause for
            messages.
    """

    name: str
    backend: str
    precisions: tuple[str, ...]
    export: Export
    write_graph: WriteGraph
    write_metadata: Callable[[Path, ArtifactSpec], None]
    take_bytes: Callable[[Path, InputSpec], None] | None
    modules: tuple[str, ...]
    extra: str
    quantization: Quantization | None = None
    half: Half | None = None
    exits: Exits | None = None
    page: Page | None = None
    next_step: Callable[[Path, ArtifactSpec], str] | None = None
    stem: str = "model"
    undecoded: str = ""
    selects: bool = True
    branches: bool = False
    fixed_size: bool = False
    layout: str = "NCHW"
    indices: str = "int64"
    storage: Mapping[str, QuantizationSpec] = field(default_factory=dict)
    refuses: Mapping[str, str] = field(default_factory=dict)

    @property
    def missing(self) -> tuple[str, ...]:
        """Which of its modules are not installed."""
        return _missing(self.modules)

    @property
    def available(self) -> bool:
        """Whether it can run here."""
        return not self.missing

    def check(self, precision: str) -> None:
        """Whether it can write a file of this precision here.

        Raises:
            UserError: it cannot, or what it needs is not installed.
        """
        if precision not in self.precisions:
            raise UserError(
                f"--precision: got {precision!r}, expected one of {', '.join(self.precisions)}: what --backend "
                f"{self.name} writes"
            )
        if not self.available:
            raise UserError(
                f"--backend {self.name} needs {' and '.join(self.missing)}, which this Python lacks: "
                f"pip install 'efftasks[{self.extra}]'"
            )
        if precision == "int8" and self.quantization is not None and _missing(self.quantization.modules):
            raise UserError(
                f"--precision int8 of --backend {self.name} needs {' and '.join(_missing(self.quantization.modules))}, "
                f"which this Python lacks: pip install 'efftasks[{self.quantization.extra}]'"
            )

    def check_model(self, head: str, task: str) -> None:
        """Whether it can write models with a head of this registered type for a task, as far as that can be known.

        Raises:
            UserError: it refuses all families of such models.
        """
        reasons = [self.refuses.get(family.name) for family in families_with(head, task)]
        if reasons and reasons[0] is not None and None not in reasons:
            raise UserError(f"--backend {self.name}: cannot write models for {task} with {head}: {reasons[0]}")


def _missing(modules: Iterable[str]) -> tuple[str, ...]:
    return tuple(name for name in modules if importlib.util.find_spec(name) is None)
