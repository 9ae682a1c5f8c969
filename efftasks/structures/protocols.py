"""What one part of the package may ask of an object that another part made, as structural types."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

    from efftasks.structures.features import FeatureSpec, Stages
    from efftasks.structures.instances import EarlyAnswer
    from efftasks.structures.spec import OutputSpec, Undecoded

__all__ = [
    "Bounded",
    "Branches",
    "CountsChannels",
    "Elastic",
    "EndsEarly",
    "Exportable",
    "ExitsEarly",
    "Foldable",
    "FoldsNorm",
    "GivesCandidates",
    "HasClassRows",
    "HasExperts",
    "HasExportForm",
    "HasSpecs",
    "HasStages",
    "KeepsFloat",
    "MayExitEarly",
    "Progressive",
    "Quantizable",
    "ReadsMaps",
    "ReadsParts",
    "SelectsInside",
    "Staged",
    "Strippable",
]


@runtime_checkable
class Foldable(Protocol):
    """A module with an equivalent of fewer operations: norms in convolutions, parallel branches in one.

    ``fold()`` returns a *new* module, which gives the same outputs in evaluation mode up to rounding, and can be
    trained. The module itself stays as it is.
    """

    def fold(self) -> nn.Module:
        """The equivalent, in evaluation mode, sharing no tensor with this module."""
        ...


@runtime_checkable
class FoldsNorm(Protocol):
    """A layer in the place of a convolution, which takes over the batch norm after it."""

    def fold_norm(self, norm: nn.BatchNorm2d, scale: float = 1.0, shift: float = 0.0) -> nn.Module:
        """A new layer that equals ``scale * norm(self(x)) + shift`` with the running statistics of ``norm``."""
        ...


@runtime_checkable
class HasExperts(Protocol):
    """A convolution with several kernels."""

    experts: int
    weight: nn.Parameter  # (experts, out_channels, product of kernel_shape)
    kernel_shape: tuple[int, ...]  # (in_channels / groups, height, width)
    bias: nn.Parameter | None


@runtime_checkable
class Strippable(Protocol):
    """A module with parts that only training has: branches, denoising, criteria, auxiliary heads, teachers.

    ``strip()`` returns a *new* module without them, which gives the same outputs in evaluation mode to the last bit.
    The module itself stays as it is.
    """

    def strip(self) -> nn.Module:
        """A copy for inference, sharing no tensor with this module."""
        ...


@runtime_checkable
class HasClassRows(Protocol):
    """A module with tensors that have a row for each class, which a checkpoint of other classes can start in part.

    Rows are those of the first dimension. Those of the classes are the first, in the order of the classes.
    """

    def class_rows(self) -> dict[str, str]:
        """Names of the tensors below the module -> which classes: ``classes`` or ``semantic_classes`` of a config."""
        ...


@runtime_checkable
class HasExportForm(Protocol):
    """A module that computes in two ways: fast in PyTorch, and with operators that every runtime has.

    Exporters write the second.
    """

    def use_export_form(self) -> None:
        """Compute in the second way from now on: the same outputs up to rounding."""
        ...


@runtime_checkable
class ReadsParts(Protocol):
    """A module that reads weights or attributes of some parts instead of only calling them, when it runs or folds.

    Whoever changes networks leaves the type of those parts alone.
    """

    reads_parts: tuple[str, ...]  # names below the module: ``conv1.conv``


@runtime_checkable
class KeepsFloat(Protocol):
    """A module with parts that lose too much in 8-bit integers: decoders, sampling, what is normalized afterwards.

    The last layers before an output stay in float whatever a module declares.
    """

    float_parts: tuple[str, ...]  # names below the module, with all below them; ``*`` matches anything


@runtime_checkable
class Progressive(Protocol):
    """A module whose training changes with its progress."""

    def set_progress(self, fraction: float) -> None:
        """Tell how much of training is done, in [0, 1]."""
        ...


@runtime_checkable
class HasStages(Protocol):
    """A model that returns what it computes on the way to its prediction."""

    def stages(self, images: Tensor) -> Stages:
        """Preprocessed images (B, 3, H, W) -> feature maps and raw prediction."""
        ...


@runtime_checkable
class ReadsMaps(Protocol):
    """A model that may have more heads on its feature maps than that of its raw prediction."""

    @property
    def map_readers(self) -> tuple[nn.Module, ...]:
        """The others: each takes all maps of :meth:`HasStages.stages`. Some are for training only."""
        ...


@runtime_checkable
class Staged(HasStages, Protocol):
    """A model that also states what its feature maps are: students and teachers."""

    @property
    def feature_specs(self) -> tuple[FeatureSpec, ...]:
        """Specs of the feature maps of :meth:`stages`; none where they are not known."""
        ...


@runtime_checkable
class HasSpecs(Protocol):
    """A module that declares the feature maps that it gives: a backbone or a neck."""

    @property
    def specs(self) -> Sequence[FeatureSpec]:
        """Channels and stride of each map."""
        ...


@runtime_checkable
class Bounded(Protocol):
    """A clamp whose bounds folding computed from weights; they are not in its state. None for an open one."""

    low: float | None
    high: float | None


@runtime_checkable
class Quantizable(Protocol):
    """A module with parts whose convolutions can run in integers.

    They are modules that are called with tensors alone, and do the same in training and evaluation but for norms.
    """

    @property
    def integer_parts(self) -> tuple[str, ...]:
        """Their names below the module, in the order in which they run."""
        ...

    @property
    def float_layers(self) -> tuple[str, ...]:
        """Shell patterns of names of layers in them that stay in float, after folding."""
        ...


@runtime_checkable
class Elastic(Protocol):
    """A module that is several at once, which share their weights: a search or a training chooses among them."""

    def choices(self) -> Sequence[Any]:
        """What can be chosen, plain data, the largest first."""
        ...

    def activate(self, choice: Any) -> None:
        """Be the one that is chosen, from now on; ValueError for what is no choice."""
        ...

    def extract(self) -> nn.Module:
        """The active one as a plain module without choices, equal to it, sharing no tensor with this module."""
        ...


@runtime_checkable
class Exportable(Protocol):
    """A model that can become an artifact."""

    def infer(self, images: Tensor) -> tuple[Any, ...]:
        """Preprocessed images (B, 3, H, W) -> tensors for the outputs of the artifact, in order, or None."""
        ...


@runtime_checkable
class ExitsEarly(Protocol):
    """A model that may answer at an early exit, and then need not compute the rest.

    Both answers have the same outputs of the same shapes. ``infer`` decides for each image by ``exit_threshold``.
    """

    exit_threshold: float

    def infer_early(self, images: Tensor) -> EarlyAnswer:
        """Preprocessed images (B, 3, H, W) -> the answer at the exit, its score, and what the rest needs."""
        ...

    def infer_late(self, carried: tuple[Tensor, ...]) -> tuple[Any, ...]:
        """What :meth:`infer_early` carried -> the answer of the whole network, of the outputs of ``infer``.

        ``exit_score`` is not among them: it is None.
        """
        ...

    def carried(self, height: int, width: int) -> tuple[OutputSpec, ...]:
        """What :meth:`infer_early` carries for an input of this size in pixels."""
        ...


@runtime_checkable
class MayExitEarly(Protocol):
    """A model that has an early exit if its config says so."""

    @property
    def exits_early(self) -> ExitsEarly | None:
        """The model as one that answers at its exit or after it; None without an exit."""
        ...


@runtime_checkable
class EndsEarly(Protocol):
    """A model that can end before its decoder, for runtimes that have no operators for it.

    The runtime decodes by a function of ``efftasks/runtime/decoders.py``, and gives what ``infer`` gives.
    """

    def infer_undecoded(self, images: Tensor) -> tuple[Tensor, ...]:
        """Preprocessed images (B, 3, H, W) -> the outputs of :meth:`undecoded`, in order."""
        ...

    def undecoded(self, height: int, width: int) -> Undecoded:
        """The outputs before the decoder for an input of this size in pixels, and the decoder.

        Raises:
            UserError: the decoding of this model cannot be separated from its network; the message says why.
        """
        ...


@runtime_checkable
class GivesCandidates(Protocol):
    """A head of a detector whose decoding comes after its network, so that it can be left out."""

    candidate_decoder: str  # that takes its candidates, by its name in ``efftasks/runtime/decoders.py``

    def count_detections(self, height: int, width: int) -> int:
        """K, the most detections for an input of this size in pixels."""
        ...

    def candidates(self, raw: Any) -> tuple[Tensor, ...]:
        """Raw prediction -> the tensors of :meth:`candidate_outputs`, in order."""
        ...

    def candidate_outputs(self, height: int, width: int) -> tuple[OutputSpec, ...]:
        """What :meth:`candidates` gives for an input of this size in pixels."""
        ...


@runtime_checkable
class SelectsInside(Protocol):
    """A head whose network needs top-k and gather, even where its decoding is left out."""

    selects_inside: str  # for what, a clause for messages: "they select ..."


@runtime_checkable
class Branches(Protocol):
    """A part of a network that takes one of several ways, as the images say; its file has all of them."""

    @property
    def ways(self) -> tuple[str, ...]:
        """Names of the ways; none where it always does the same."""
        ...

    def force(self, way: str) -> None:
        """Take this way from now on, whatever the images say; its file still has all of them.

        Raises:
            ValueError: there is no such way.
        """
        ...


@runtime_checkable
class CountsChannels(Protocol):
    """A module that has numbers of channels of its layers as attributes, for folding or splitting."""

    def keep_channels(self, layer: str, side: str, kept: Sequence[int]) -> None:
        """A layer below the module now has only some of its channels.

        Args:
            layer: its name below the module.
            side: ``in`` or ``out``.
            kept: ascending indices of the channels that are left.
        """
        ...
