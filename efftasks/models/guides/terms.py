"""Terms of a distillation: what of student and teacher is compared, and by which loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from efftasks.models.guides.adapters import resized
from efftasks.models.guides.sources import Networks, Source, sources_of, tensors
from efftasks.models.losses.distillation_maps import MapLoss
from efftasks.models.pose_heads.simcc_head import SimCCHead
from efftasks.registry import MODELS
from efftasks.structures.errors import UserError
from efftasks.structures.features import Stages

__all__ = ["ClassMap", "LogitTerm", "MapTerm", "Term", "has_head", "head_of"]


class ClassMap(NamedTuple):
    """Where the classes of the student are among those of the teacher."""

    indices: tuple[int, ...]  # of the teacher's class for each class of the student

    def columns(self, values: Tensor, dim: int) -> Tensor:
        """The teacher's values of the student's classes, in the student's order."""
        if self.indices == tuple(range(values.shape[dim])):
            return values
        return values.index_select(dim, torch.tensor(self.indices, device=values.device))

    def labels(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The student's labels for labels of the teacher, and whether the student has them; 0 where it does not."""
        matches = labels[..., None] == torch.tensor(self.indices, device=labels.device)
        return matches.long().argmax(-1), matches.any(-1)


class Term(nn.Module, ABC):
    """A comparison of student and teacher.

    Args:
        networks: both; given by the guide.

    Attributes:
        compares_classes: whether student and teacher must have the same classes.
        parts: names of its losses; an empty one is the loss of the whole.
        student_paths: modules of the student whose outputs it needs.
        teacher_paths: modules of the teacher whose outputs it needs.
    """

    compares_classes: ClassVar[bool] = False
    parts: ClassVar[tuple[str, ...]] = ("",)
    student_paths: tuple[str, ...] = ()
    teacher_paths: tuple[str, ...] = ()

    @abstractmethod
    def forward(self, student: Stages, teacher: Stages, classes: ClassMap | None) -> dict[str, Tensor]:
        """The weighted losses, one scalar for each of ``parts``.

        Args:
            student: what it computed, with gradient.
            teacher: what it computed, without.
            classes: None where nobody compares classes.
        """


class _Compared(Term):
    """A term with sources.

    Args:
        networks: both networks; given by the guide.
        loss: config of the loss.
        student: sources of the student, see :mod:`efftasks.models.guides.sources`.
        teacher: of the teacher; None for the same.
    """

    def __init__(
        self,
        networks: Networks,
        loss: Mapping[str, Any],
        student: str | Sequence[str],
        teacher: str | Sequence[str] | None,
    ) -> None:
        super().__init__()
        self.place = networks.place
        self.student_sources = sources_of(student, f"{networks.place}.student")
        self.teacher_sources = sources_of(student if teacher is None else teacher, f"{networks.place}.teacher")
        networks.student.check(self.student_sources)
        networks.teacher.check(self.teacher_sources)
        self.student_paths, self.teacher_paths = _modules(self.student_sources), _modules(self.teacher_sources)
        self.loss = MODELS.build(dict(loss))

    def pairs(self, student: Stages, teacher: Stages) -> list[tuple[Tensor, Tensor]]:
        """The tensors of both, in float32 at least.

        Raises:
            UserError: the numbers differ.
        """
        s, t = tensors(self.student_sources, student), tensors(self.teacher_sources, teacher)
        _check_counts(len(s), len(t), self.place)
        return [(_as_float(a), _as_float(b)) for a, b in zip(s, t)]


@MODELS.register_module()
class MapTerm(_Compared):
    """Compares feature maps, pair by pair; the loss is the mean over the pairs.

    The student's map gets the channels of the teacher's by an adapter, and its size by pooling or interpolation.

    Args:
        networks: given by the guide.
        loss: config of a loss between two maps (B, C, H, W): ``PKDLoss``, ``CWDLoss``, ``MGDLoss``, ``FeatureMSELoss``.
        student: the student's maps: ``features``, ``features[-1]``, names of modules, or a list of them.
        teacher: the teacher's; None for the same.
        adapter: config of an adapter without channels, for each pair; None for that of the loss, or else a
            ``ConvAdapter`` for pairs whose channels differ.

    Raises:
        UserError: there is no such map, or the numbers of maps differ.
    """

    def __init__(
        self,
        networks: Networks,
        loss: Mapping[str, Any],
        student: str | Sequence[str] = "features",
        teacher: str | Sequence[str] | None = None,
        adapter: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(networks, loss, student, teacher)
        of_student = networks.student.channels(self.student_sources)
        of_teacher = networks.teacher.channels(self.teacher_sources)
        _check_counts(len(of_student), len(of_teacher), self.place)
        self.channels = list(zip(of_student, of_teacher))  # of student and teacher
        projection: Mapping[str, Any] = MapLoss.projection
        if isinstance(self.loss, MapLoss):
            adapter, projection = adapter or self.loss.adapter, self.loss.projection
        self.adapters = nn.ModuleList(_adapter(adapter, projection, *channels) for channels in self.channels)

    def forward(self, student: Stages, teacher: Stages, classes: ClassMap | None) -> dict[str, Tensor]:
        """The mean over the pairs.

        Raises:
            UserError: the channels are no longer those of the config.
        """
        losses = []
        for (own, other), adapter, channels in zip(self.pairs(student, teacher), self.adapters, self.channels):
            self._check_channels((own.shape[1], other.shape[1]), channels)
            size = other.shape[2:]
            adapted = resized(own, size) if isinstance(adapter, nn.Identity) else adapter(own, size)
            losses.append(self.loss(_as_float(adapted), other))
        return {"": torch.stack(losses).mean()}

    def _check_channels(self, got: tuple[int, int], expected: tuple[int, int]) -> None:
        for name, now, before in zip(("student", "teacher"), got, expected):
            if now != before:
                raise UserError(
                    f"{self.place}.{name}: a map of the {name} has {now} channels and that of its config {before}, as "
                    "where it was pruned there; compare features, which pruning leaves alone"
                )


@MODELS.register_module()
class LogitTerm(_Compared):
    """Compares class logits, pair by pair; the loss is the mean over the pairs.

    Logits (B, C, H, W) of the student are resized to those of the teacher. Logits (B, N, C) of points or queries must
    be of the same ones.

    Args:
        networks: given by the guide.
        loss: config of a loss between logits (B, C, ...): ``CWDLoss``, ``LogitKLLoss``, ``DKDLoss``, ``DISTLoss``,
            ``LogitBCELoss``.
        student: the student's logits: ``raw`` of a segmentor.
        teacher: the teacher's; None for the same.

    Raises:
        UserError: a module does not run, or a network has a ``SimCCHead``, whose logits are of positions.
    """

    compares_classes = True

    def __init__(
        self,
        networks: Networks,
        loss: Mapping[str, Any],
        student: str | Sequence[str] = "raw",
        teacher: str | Sequence[str] | None = None,
    ) -> None:
        super().__init__(networks, loss, student, teacher)
        for name, measured in (("student", networks.student), ("teacher", networks.teacher)):
            if has_head(measured.network, SimCCHead):
                raise UserError(
                    f"{self.place}: the {name} has a SimCCHead, whose logits are of positions and not of classes; "
                    "compare maps with a MapTerm"
                )
        networks.student.check_runs(self.student_sources, in_training=True)
        networks.teacher.check_runs(self.teacher_sources, in_training=False)

    def forward(self, student: Stages, teacher: Stages, classes: ClassMap | None) -> dict[str, Tensor]:
        """The mean over the pairs."""
        losses = []
        for logits, target in self.pairs(student, teacher):
            logits, target = (x.transpose(1, 2) if x.dim() == 3 else x for x in (logits, target))
            if classes is not None:
                target = classes.columns(target, 1)
            if logits.dim() == target.dim() == 4:
                logits = resized(logits, target.shape[2:])
            if logits.shape != target.shape:
                raise UserError(
                    f"{self.place}: got logits (B, C, ...) of {tuple(logits.shape)} of the student and of "
                    f"{tuple(target.shape)} of the teacher, expected equal shapes"
                )
            losses.append(self.loss(logits, target))
        return {"": torch.stack(losses).mean()}


def has_head(network: Any, kind: type[nn.Module]) -> bool:
    """Whether a network has a head of this type."""
    return isinstance(_head(network), kind)


def head_of(network: Any, kinds: tuple[type[nn.Module], ...], subject: str) -> Any:
    """The head of a detector.

    Args:
        network: any; None for no network.
        kinds: allowed types of the head.
        subject: of the message.

    Raises:
        UserError: it has none, or one of another type.
    """
    head = _head(network)
    if not isinstance(head, kinds):
        got = type(network).__name__ if head is None else type(head).__name__
        raise UserError(f"{subject}: got a {got}, expected a head of type {' or '.join(x.__name__ for x in kinds)}")
    return head


def _head(network: Any) -> nn.Module | None:
    return dict(network.named_children()).get("head") if isinstance(network, nn.Module) else None


def _adapter(
    config: Mapping[str, Any] | None, projection: Mapping[str, Any], in_channels: int, out_channels: int
) -> nn.Module:
    if config is None and in_channels == out_channels:
        return nn.Identity()
    return MODELS.build(dict(config or projection, in_channels=in_channels, out_channels=out_channels))


def _check_counts(student: int, teacher: int, place: str) -> None:
    if student != teacher:
        raise UserError(f"{place}: got {student} tensors of the student and {teacher} of the teacher, expected as many")


def _modules(sources: Sequence[Source]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(source.module for source in sources if source.module is not None))


def _as_float(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
