"""The one seam for a teacher: a guide is a part of a model that only training has, and that owns what is learnt from.

A model (`Detector`, `Segmentor`, `PoseEstimator`) hands its guide the images and its own stages, and adds the losses
that it gets back. Weights keep their names: what is trained is the model itself, with one part more.
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
    """What a guide is told of the model that it is a part of."""

    specs: tuple[FeatureSpec, ...]  # of the maps of its stages
    num_classes: int  # of a pose estimator the keypoints


class _Held:
    """Keeps a module out of its owner's parameters, buffers, state dict and modes."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module


class Guide(nn.Module, ABC):
    """Losses that draw a student to a teacher; training only.

    The teacher is no part of this module's ``parameters()``, ``state_dict()`` and ``train()``: checkpoints, averages of
    weights, optimizers and synchronisation among processes do not see it. It has no gradient, stays in evaluation mode,
    and follows ``to()``. What a guide itself learns (projections) is a part of the model and of its checkpoints.

    Args:
        teacher: any module; it belongs to the guide from now on.
    """

    def __init__(self, teacher: nn.Module) -> None:
        super().__init__()
        self._held = _Held(teacher.requires_grad_(False).eval())

    @property
    def teacher(self) -> Any:
        """The network that is learnt from."""
        return self._held.module

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Guide:
        # What to(), cuda(), double() and the like of this module, and of those that hold it, come down to.
        super()._apply(fn, recurse)
        self.teacher._apply(fn)
        return self

    @abstractmethod
    def forward(self, images: Tensor, stages: Stages) -> dict[str, Tensor]:
        """The weighted losses, by name.

        Args:
            images: (B, 3, H, W), preprocessed for the student.
            stages: what the student made of them.
        """


def build_guide(config: Mapping[str, Any] | None, specs: Sequence[FeatureSpec], num_classes: int) -> Guide | None:
    """The guide of a model, from a config without ``student``; None for none."""
    return None if config is None else MODELS.build(dict(config, student=Student(tuple(specs), num_classes)))


@MODELS.register_module()
class FeatureGuide(Guide):
    """The mean squared error between chosen maps of student and teacher, the student's through a 1x1 convolution.

    Source: FitNets (arXiv 1412.6550, section 2.2).

    Args:
        student: given by the model.
        teacher: config of a model of any kind with ``stages``, or the model itself. It gets the images as the student
            does, with the same normalization.
        weights: path of the teacher's checkpoint, which is read when training begins: nobody else needs it. None leaves
            the teacher as it is built.
        indices: of the maps compared, in student and teacher alike; the student's are averaged to the teacher's size.
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
        given = isinstance(teacher, nn.Module)
        network: Any = teacher if given else MODELS.build(dict(teacher))  # type: ignore[arg-type]
        if weights is None and not given:
            MMLogger.get_current_instance().warning("the guide's teacher has no weights: what it teaches is noise")
        super().__init__(network)
        others = network.feature_specs
        if not indices or not all(-len(maps) <= i < len(maps) for i in indices for maps in (student.specs, others)):
            raise ValueError(
                f"indices: got {indices!r}, allowed are indices of {len(student.specs)} and {len(others)} maps"
            )
        self.indices, self.weight = tuple(indices), weight
        self._weights = weights  # until they are read
        self.projections = nn.ModuleList(nn.Conv2d(student.specs[i].channels, others[i].channels, 1) for i in indices)

    def forward(self, images: Tensor, stages: Stages) -> dict[str, Tensor]:
        """``loss_features``, the mean over the chosen maps."""
        if self._weights is not None:
            load_matching(self.teacher, read_state_dict(self._weights), name=os.fspath(self._weights))
            self._weights = None
        with torch.no_grad():
            maps = self.teacher.stages(images).features
        errors = []
        for i, projection in zip(self.indices, self.projections):
            own = functional.interpolate(projection(stages.features[i]), maps[i].shape[2:], mode="area")
            errors.append(functional.mse_loss(own.float(), maps[i].float()))
        return dict(loss_features=self.weight * torch.stack(errors).mean())
