"""Knowledge distillation: a guide is a part of a model that owns a teacher and is used in training only.

A model (`Detector`, `Segmentor`, `PoseEstimator`) passes the images and its stages to its guide, and adds the losses of
the guide to its own. The names of the model's weights stay the same.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

from torch import Tensor, nn

from efftasks.models.guides.recording import recorded
from efftasks.registry import MODELS
from efftasks.structures.features import FeatureSpec, Stages

__all__ = ["Guide", "Student", "build_guide", "guide_losses", "recorded_for_guide"]


class Student(NamedTuple):
    """The description of a model for its guide."""

    specs: tuple[FeatureSpec, ...]  # of the feature maps of its stages
    num_classes: int  # the number of keypoints for a pose estimator
    model: Any = None  # the model, to check names and measure shapes; a guide does not keep it


class _Unregistered:
    """Holds a module that is not in the parameters, buffers, state dict and modes of its owner."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module


class Guide(nn.Module, ABC):
    """Distillation losses between a student and a teacher, in training only.

    The teacher is no part of this module's ``parameters()``, ``state_dict()`` and ``train()``: checkpoints, averages of
    weights, optimizers and the synchronization of processes do not include it. It has no gradient, stays in evaluation
    mode, and follows ``to()``. The guide's own parameters (projections) are a part of the model and of its checkpoints.

    Args:
        teacher: any module; the guide owns it.

    Attributes:
        student_paths: names of the student's modules whose outputs the guide gets in ``stages.recorded``.
    """

    student_paths: tuple[str, ...] = ()

    def __init__(self, teacher: nn.Module) -> None:
        super().__init__()
        self.set_teacher(teacher)

    @property
    def teacher(self) -> Any:
        """The teacher network."""
        return self._teacher.module

    def set_teacher(self, teacher: nn.Module) -> None:
        """Replace the teacher network."""
        teacher.requires_grad_(False)
        teacher.eval()  # some networks of mmdet return None
        self._teacher = _Unregistered(teacher)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Guide:
        # to(), cuda(), double() and the like of this module and of its parents call this.
        super()._apply(fn, recurse)
        self.teacher._apply(fn)
        return self

    def set_progress(self, fraction: float) -> None:
        """Set training progress, in [0, 1]."""

    @abstractmethod
    def forward(self, images: Tensor, stages: Stages) -> dict[str, Tensor]:
        """The weighted losses, by name.

        Args:
            images: (B, 3, H, W), preprocessed for the student.
            stages: the student's feature maps and raw prediction, the outputs of ``student_paths``, and the student.
        """


def build_guide(
    config: Mapping[str, Any] | None, specs: Sequence[FeatureSpec], num_classes: int, model: nn.Module
) -> Guide | None:
    """The guide of a model, from a config without ``student``; None for none. The model is complete but for it."""
    return None if config is None else MODELS.build(dict(config, student=Student(tuple(specs), num_classes, model)))


def recorded_for_guide(model: Any) -> AbstractContextManager[Mapping[str, Any]]:
    """Record the outputs that the guide of a model needs, while the context is open."""
    return nullcontext({}) if model.guide is None else recorded(model, model.guide.student_paths)


def guide_losses(model: Any, images: Tensor, stages: Stages, outputs: Mapping[str, Any]) -> dict[str, Tensor]:
    """The losses of the guide of a model, named ``guide.*``; none without a guide.

    Args:
        model: the student.
        images: (B, 3, H, W), preprocessed for it.
        stages: its maps and raw prediction.
        outputs: what :func:`recorded_for_guide` recorded meanwhile.
    """
    if model.guide is None:
        return {}
    losses = model.guide(images, stages._replace(recorded=outputs, model=model))
    return {f"guide.{name}": value for name, value in losses.items()}
