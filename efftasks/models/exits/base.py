"""Early exits: a detector answers from a part of its network, and runs the rest only for the images that need it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efftasks.models.backbones.base import probe
from efftasks.models.exits.gates import BothAnswers
from efftasks.registry import MODELS
from efftasks.structures.instances import DetectionTensors, EarlyAnswer, PaddedTargets
from efftasks.structures.spec import OutputSpec

__all__ = ["EarlyExit", "ExitingDetector", "build_exit"]

_PARTS = ("backbone", "neck", "head")


@runtime_checkable
class GivesImageLosses(Protocol):
    """A head whose loss can be computed for each image alone."""

    def image_losses(self, raw: Any, targets: PaddedTargets) -> Tensor:
        """Raw prediction -> (B,)."""
        ...


class EarlyExit(nn.Module, ABC):
    """A place where a detector may answer, and the gate that says how good the answer is there.

    The detector gives itself to the methods, so that it is no part of the exit.

    Args:
        model: the detector, complete but for its exit; it is not kept.
        gate: config of an :class:`~efftasks.models.exits.gates.ExitGate` without ``channels``.
        channels: of the maps that the gate pools.
        threshold: the default of ``exit_threshold``: the answer is taken if its score is at least this. 0 always exits,
            a number above 1 never does; see :class:`~efftasks.models.exits.gates.ExitGate` for what lies between.
        train_only: ``exit`` to train the exit and its gate alone, ``gate`` for the gate alone; None for everything.
            All else has no gradient, and its norms are in evaluation mode: the answer of the whole network stays that
            of the checkpoint it was loaded from.

    Raises:
        ValueError: the detector has a part that both answers cannot have, an argument is not allowed, or nothing is
            left to train.
    """

    def __init__(
        self, model: Any, gate: Mapping[str, Any], channels: Sequence[int], threshold: float, train_only: str | None
    ) -> None:
        super().__init__()
        name = type(self).__name__
        if threshold < 0:
            raise ValueError(f"{name}.threshold: got {threshold}, allowed are numbers from 0")
        if model.semantic_head is not None:
            raise ValueError(f"{name}: got a detector with a semantic_head, expected one without: it runs at the end")
        if train_only not in (None, "exit", "gate"):
            raise ValueError(f"{name}.train_only: got {train_only!r}, allowed are None, 'exit' and 'gate'")
        if train_only is not None and model.guide is not None:
            raise ValueError(
                f"{name}.train_only: got {train_only!r} and a guide, which trains the network; allowed is one"
            )
        self.gate = MODELS.build(dict(gate, channels=tuple(channels)))
        self.threshold = float(threshold)
        self.train_only = train_only
        if train_only == "gate" and not self.gate.compares:
            raise ValueError(f"{name}.train_only: got 'gate' with a {gate['type']}, which learns nothing")

    def _fixed(self, model: Any) -> list[nn.Module]:
        """What does not learn."""
        if self.train_only is None:
            return []
        of_exit = [part for part in self.children() if part is not self.gate] if self.train_only == "gate" else []
        return [getattr(model, part) for part in _PARTS] + of_exit

    def freeze(self, model: Any) -> None:
        """Take the gradients from what does not learn, once the exit is complete."""
        for part in self._fixed(model):
            part.requires_grad_(False)

    def set_modes(self, model: Any) -> None:
        """Put what does not learn into evaluation mode, in a detector that has just been put into training mode."""
        for part in self._fixed(model):
            part.eval()

    def set_progress(self, fraction: float) -> None:
        """Set training progress, in [0, 1]."""

    @abstractmethod
    def infer_early(self, model: Any, images: Tensor) -> EarlyAnswer:
        """Preprocessed images (B, 3, H, W) -> the answer at the exit, its score, and what the rest needs."""

    @abstractmethod
    def infer_late(self, model: Any, carried: tuple[Tensor, ...]) -> DetectionTensors:
        """What :meth:`infer_early` carried -> the answer of the whole network."""

    @abstractmethod
    def losses(self, model: Any, maps: Sequence[Tensor], raw: Any, targets: PaddedTargets) -> dict[str, Tensor]:
        """Losses of the exit and its gate.

        Args:
            model: the detector, in training mode.
            maps: of its backbone.
            raw: the raw prediction of its head with the targets.
            targets: the objects.
        """

    @abstractmethod
    def losses_alone(self, model: Any, images: Tensor, targets: PaddedTargets) -> dict[str, Tensor]:
        """The same from preprocessed images (B, 3, H, W), where nothing but the exit learns."""

    def gate_losses(
        self, maps: Sequence[Tensor], early: tuple[Any, Any], late: tuple[Any, Any], targets: PaddedTargets
    ) -> dict[str, Tensor]:
        """The loss of the gate, if it learns.

        Args:
            maps: what the gate pools, (B, C_i, ...).
            early: a head, and its raw prediction at the exit.
            late: a head, and its raw prediction at the end.
            targets: the objects.
        """
        with torch.no_grad():
            detections = early[0].decode(early[1])
        _, logits = self.gate(maps, detections)
        if not self.gate.compares:
            return {}

        def image_losses() -> tuple[Tensor, Tensor]:
            return early[0].image_losses(early[1], targets), late[0].image_losses(late[1], targets)

        with torch.no_grad():
            answers = BothAnswers(detections, late[0].decode(late[1]), image_losses)
        return {"loss_gate": self.gate.loss(logits, answers)}


class ExitingDetector:
    """A detector as one that answers at its exit or after it; see :class:`~efftasks.structures.protocols.ExitsEarly`.

    Args:
        model: the detector.
        early_exit: its exit.
    """

    def __init__(self, model: Any, early_exit: EarlyExit) -> None:
        self._model, self._exit = model, early_exit

    @property
    def exit_threshold(self) -> float:
        """The early answer is taken if its score is at least this."""
        return self._exit.threshold

    @exit_threshold.setter
    def exit_threshold(self, value: float) -> None:
        """Set it; 0 always exits, a number above 1 never does."""
        self._exit.threshold = float(value)

    def infer_early(self, images: Tensor) -> EarlyAnswer:
        """Preprocessed images (B, 3, H, W) -> the answer at the exit, its score, and what the rest needs."""
        return self._exit.infer_early(self._model, images)

    def infer_late(self, carried: tuple[Tensor, ...]) -> DetectionTensors:
        """What :meth:`infer_early` carried -> the answer of the whole network, without ``exit_score``."""
        return self._exit.infer_late(self._model, carried)

    def infer(self, images: Tensor) -> DetectionTensors:
        """Preprocessed images (B, 3, H, W) -> for each the answer that its score decides for, and the score."""
        early = self.infer_early(images)
        going_on = early.score < self.exit_threshold
        if not bool(going_on.any()):
            answer = early.detections
        elif bool(going_on.all()):
            answer = self.infer_late(early.carried)
        else:
            rows = going_on.nonzero()[:, 0]
            late = self.infer_late(tuple(tensor[rows] for tensor in early.carried))
            answer = DetectionTensors._make(
                None if a is None or b is None else a.index_copy(0, rows, b) for a, b in zip(early.detections, late)
            )
        return answer._replace(exit_score=early.score)

    def carried(self, height: int, width: int) -> tuple[OutputSpec, ...]:
        """What :meth:`infer_early` carries for an input of this size in pixels, measured by a dry run."""
        tensors: Any = probe(self._model, (height, width), lambda images: self.infer_early(images).carried)
        return tuple(
            OutputSpec(f"carried_{i}", ("N", *tensor.shape[1:]), "float32", "for the rest of the network")
            for i, tensor in enumerate(tensors)
        )


def build_exit(config: Mapping[str, Any] | None, model: nn.Module) -> EarlyExit | None:
    """The exit of a detector that is complete but for it, from its config; None for none."""
    if config is None:
        return None
    early_exit: EarlyExit = MODELS.build(dict(config, model=model))
    early_exit.freeze(model)
    return early_exit


def padded(detections: DetectionTensors, count: int) -> DetectionTensors:
    """Detections (B, K, ...) as (B, count, ...): without the last ones, or with others of score 0."""

    def fitted(part: Tensor | None) -> Tensor | None:
        if part is None or part.shape[1] == count:
            return part
        return F.pad(part[:, :count], [0, 0] * (part.dim() - 2) + [0, max(0, count - part.shape[1])])

    return DetectionTensors._make(fitted(part) for part in detections)
