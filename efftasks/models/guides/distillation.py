"""Distillation by a list of terms, from a teacher of any kind."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from mmengine.logging import MMLogger
from torch import Tensor, nn

from efftasks.models.backbones.base import PROBE_SIZE
from efftasks.models.guides.base import Guide, Student
from efftasks.models.guides.recording import observe
from efftasks.models.guides.sources import Measured, Networks
from efftasks.models.guides.teachers import TeacherImages, build_teacher, class_map, num_classes_of, trained_teacher
from efftasks.models.guides.terms import ClassMap, has_head
from efftasks.models.pose_heads.simcc_head import SimCCHead
from efftasks.registry import MODELS
from efftasks.structures.errors import UserError
from efftasks.structures.features import Stages
from efftasks.structures.protocols import Staged

__all__ = ["Distillation", "FeatureGuide"]


@MODELS.register_module()
class Distillation(Guide):
    """Adds the losses of terms, each of which compares a part of the student with a part of the teacher.

    The teacher gets the images of the student with its own normalization and color order. Adapters and other parameters
    of the terms are ``guide.terms.*`` of a checkpoint: training resumes with them, and everything else ignores them.

    Args:
        student: given by the model.
        teacher: config of a model: this package's, or one of mmdet or mmseg with ``_scope_``. In a config file also
            the name or path of a config. Or a built module.
        weights: path of the teacher's checkpoint, which is read when training begins; in a config file the top-level
            ``teacher_weights`` if it is None. The plan of a compressed one is replayed. None leaves the teacher as it
            is built.
        terms: name -> config of a :class:`~efftasks.models.guides.terms.Term`, without ``networks``; None removes one
            of a base config.
        teacher_scale: size of the teacher's images as a factor on the student's.
        fade: training progress (begin, end) between which the weight of all terms falls linearly from 1 to 0: ``(0.0,
            1.0)`` over the whole training; with two equal ones the terms stop there. In a config file also points of
            ``schedule``. None for a constant weight.
        class_names: of the student; filled from the config's ``classes``.
        probe_size: (height, width) of the blank image by which outputs of modules are measured.

    Raises:
        UserError: a term names what student or teacher do not have.
    """

    linked_progress: ClassVar[tuple[str, ...]] = ("fade",)
    linked_teacher: ClassVar[tuple[str, ...]] = ("teacher", "weights", "class_names")

    def __init__(
        self,
        student: Student,
        teacher: Mapping[str, Any] | nn.Module,
        terms: Mapping[str, Mapping[str, Any] | None],
        weights: str | os.PathLike | None = None,
        teacher_scale: float = 1.0,
        fade: Sequence[float] | None = None,
        class_names: Sequence[str] | None = None,
        probe_size: tuple[int, int] = PROBE_SIZE,
    ) -> None:
        network: Any = teacher if isinstance(teacher, nn.Module) else build_teacher(teacher)
        super().__init__(network)
        self._config = None if isinstance(teacher, nn.Module) else teacher
        if weights is None and self._config is not None:
            MMLogger.get_current_instance().warning(
                "model.guide: the teacher has no weights, so what it teaches is noise; give teacher_weights=PATH of "
                "its checkpoint"
            )
        if fade is not None and not (len(fade) == 2 and 0 <= fade[0] <= fade[1]):
            raise ValueError(f"model.guide.fade: got {fade!r}, expected two numbers in ascending order")
        if teacher_scale != 1 and has_head(network, SimCCHead):
            raise UserError(
                f"model.guide.teacher_scale: got {teacher_scale}, expected 1: a SimCCHead reads images of one size"
            )
        self.fade, self.progress = None if fade is None else tuple(fade), 0.0
        self.num_classes = student.num_classes
        self.class_names = None if class_names is None else tuple(class_names)
        specs = network.feature_specs if isinstance(network, Staged) else ()
        of_student = Measured(student.model, student.specs, probe_size)
        of_teacher = Measured(network, specs, probe_size)
        self.terms: Any = nn.ModuleDict(
            {
                name: MODELS.build(dict(config, networks=Networks(of_student, of_teacher, f"model.guide.terms.{name}")))
                for name, config in terms.items()
                if config is not None
            }
        )
        if not self.terms:
            raise UserError("model.guide.terms: got none, expected at least one")
        self.student_paths = self._paths(lambda term: term.student_paths)
        self.teacher_paths = self._paths(lambda term: term.teacher_paths)
        self.images = TeacherImages(student.model, network, teacher_scale)
        self._weights = weights
        self._classes: ClassMap | None = None
        self._has_begun = False

    def _paths(self, of: Any) -> tuple[str, ...]:
        return tuple(dict.fromkeys(path for term in self.terms.values() for path in of(term)))

    def set_progress(self, fraction: float) -> None:
        """Set training progress, in [0, 1], on which ``fade`` depends."""
        self.progress = fraction

    @property
    def factor(self) -> float:
        """The current factor on all losses, in [0, 1]."""
        if self.fade is None:
            return 1.0
        begin, end = self.fade
        if self.progress >= end:
            return 0.0
        return min(1.0, (end - self.progress) / (end - begin)) if end > begin else 1.0

    def forward(self, images: Tensor, stages: Stages) -> dict[str, Tensor]:
        """``loss_{name}`` of each term, or ``loss_{name}_{part}`` of a term with several.

        Raises:
            UserError: the teacher's checkpoint cannot be used, or its classes are others.
        """
        if not self._has_begun:
            # Building a teacher draws random numbers, which a resumed training would draw in another epoch.
            with torch.random.fork_rng([images.device] if images.device.type == "cuda" else []):
                self._begin(images.device)
        factor = self.factor
        if factor == 0:
            return self._silent(images)
        with torch.no_grad():
            seen = observe(self.teacher, self.images(images), self.teacher_paths)
        losses = {}
        for name, term in self.terms.items():
            for part, value in term(stages, seen, self._classes).items():
                losses[_name(name, part)] = factor * value
        return losses

    def _begin(self, device: torch.device) -> None:
        """Read the teacher's checkpoint, and find the student's classes among the teacher's."""
        names = None
        if self._weights is not None:
            trained = trained_teacher(self.teacher, self._config, self._weights)
            names = trained.classes
            if trained.network is not self.teacher:
                self.set_teacher(trained.network.to(device))
        if any(term.compares_classes for term in self.terms.values()):
            count = num_classes_of(self._config or {}) if names is None else len(names)
            self._classes = class_map(self.class_names, self.num_classes, names, count)
        self._has_begun = True

    def _silent(self, images: Tensor) -> dict[str, Tensor]:
        """Losses of 0, with a gradient of 0 for all parameters, which distributed training needs."""
        losses = {}
        for name, term in self.terms.items():
            zero = sum((parameter.sum() * 0 for parameter in term.parameters()), images.new_zeros(()))
            losses.update({_name(name, part): zero for part in term.parts})
        return losses


def _name(term: str, part: str) -> str:
    return f"loss_{term}_{part}" if part else f"loss_{term}"


@MODELS.register_module()
class FeatureGuide(Distillation):
    """Mean squared error between feature maps of student and teacher: a :class:`Distillation` with one such term.

    Args:
        student: given by the model.
        teacher: as :class:`Distillation` has it.
        weights: as :class:`Distillation` has it.
        indices: of the compared maps, in student and teacher.
        weight: of the loss.

    Raises:
        UserError: there are no such maps.
    """

    linked_teacher: ClassVar[tuple[str, ...]] = ("teacher", "weights")

    def __init__(
        self,
        student: Student,
        teacher: Mapping[str, Any] | nn.Module,
        weights: str | os.PathLike | None = None,
        indices: Sequence[int] = (-1,),
        weight: float = 1.0,
    ) -> None:
        loss = dict(type="FeatureMSELoss", weight=weight)
        term = dict(type="MapTerm", loss=loss, student=[f"features[{i}]" for i in indices])
        super().__init__(student, teacher, dict(features=term), weights)
