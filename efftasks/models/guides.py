"""Knowledge distillation: a guide is a part of a model that owns a teacher and is used in training only.

A model (`Detector`, `Segmentor`, `PoseEstimator`) passes the images and its stages to its guide, and adds the losses of
the guide to its own. The names of the model's weights stay the same.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from mmengine.logging import MMLogger
from torch import Tensor, nn
from torch.nn import functional

from efftasks.checkpoints.files import load_matching, read_state_dict
from efftasks.registry import MODELS
from efftasks.structures.features import FeatureSpec, Stages

__all__ = ["FeatureGuide", "Guide", "Student", "build_guide"]


class Student(NamedTuple):
    """The description of a model for its guide."""

    specs: tuple[FeatureSpec, ...]  # of the feature maps of its stages
    num_classes: int  # the number of keypoints for a pose estimator


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
    """

    def __init__(self, teacher: nn.Module) -> None:
        super().__init__()
        self._teacher = _Unregistered(teacher.requires_grad_(False).eval())

    @property
    def teacher(self) -> Any:
        """The teacher network."""
        return self._teacher.module

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Guide:
        # to(), cuda(), double() and the like of this module and of its parents call this.
        super()._apply(fn, recurse)
        self.teacher._apply(fn)
        return self

    @abstractmethod
    def forward(self, images: Tensor, stages: Stages) -> dict[str, Tensor]:
        """The weighted losses, by name.

        Args:
            images: (B, 3, H, W), preprocessed for the student.
            stages: the student's feature maps and raw prediction.
        """


def build_guide(config: Mapping[str, Any] | None, specs: Sequence[FeatureSpec], num_classes: int) -> Guide | None:
    """The guide of a model, from a config without ``student``; None for none."""
    return None if config is None else MODELS.build(dict(config, student=Student(tuple(specs), num_classes)))


@MODELS.register_module()
class FeatureGuide(Guide):
    """Mean squared error between feature maps of student and teacher, the student's projected by a 1x1 convolution.

    Source: FitNets (arXiv 1412.6550, section 2.2).

    Args:
        student: given by the model.
        teacher: config of a model with ``stages``, or the model itself. It gets the images of the student, with
            the same normalization.
        weights: path of the teacher's checkpoint, which is read when training begins. None leaves the teacher as it is
            built.
        indices: of the compared maps, in student and teacher; the student's are average-pooled to the teacher's size.
        weight: of the loss.

    Raises:
        ValueError: there are no such maps.
    """

    def __init__(
        self,
        student: Student,
        teacher: Mapping[str, Any] | nn.Module,
        weights: str | os.PathLike | None = None,
        indices: Sequence[int] = (-1,),
        weight: float = 1.0,
    ) -> None:
        is_built = isinstance(teacher, nn.Module)
        network: Any = teacher if is_built else MODELS.build(dict(teacher))  # type: ignore[arg-type]
        if weights is None and not is_built:
            MMLogger.get_current_instance().warning("the guide's teacher has no weights: what it teaches is noise")
        super().__init__(network)
        teacher_specs = network.feature_specs
        if not indices or not all(
            -len(maps) <= i < len(maps) for i in indices for maps in (student.specs, teacher_specs)
        ):
            raise ValueError(
                f"indices: got {indices!r}, allowed are indices of {len(student.specs)} and {len(teacher_specs)} maps"
            )
        self.indices, self.weight = tuple(indices), weight
        self._weights = weights  # until they are read
        self.projections = nn.ModuleList(
            nn.Conv2d(student.specs[i].channels, teacher_specs[i].channels, 1) for i in indices
        )

    def forward(self, images: Tensor, stages: Stages) -> dict[str, Tensor]:
        """``loss_features``, the mean over the compared maps."""
        if self._weights is not None:
            load_matching(self.teacher, read_state_dict(self._weights), name=os.fspath(self._weights))
            self._weights = None
        with torch.no_grad():
            maps = self.teacher.stages(images).features
        errors = []
        for i, projection in zip(self.indices, self.projections):
            projected = functional.interpolate(projection(stages.features[i]), maps[i].shape[2:], mode="area")
            errors.append(functional.mse_loss(projected.float(), maps[i].float()))
        return dict(loss_features=self.weight * torch.stack(errors).mean())
