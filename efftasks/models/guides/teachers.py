"""The teacher of a distillation: building, reading its checkpoint, its images, its classes."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import efftasks.compat  # noqa: F401

# isort: split
from mmengine.model import BaseModel
from torch import Tensor, nn
from torch.nn import functional

from efftasks.checkpoints.files import dataset_meta_of, load_matching, read_checkpoint, weights_of
from efftasks.compression.building import build_model
from efftasks.compression.plan import plan_of
from efftasks.models.guides.terms import ClassMap
from efftasks.models.preprocessors import Normalization, normalization_of
from efftasks.registry import MODELS
from efftasks.structures.errors import UserError
from efftasks.structures.protocols import Elastic, Staged

__all__ = ["TeacherImages", "Trained", "build_teacher", "class_map", "num_classes_of", "trained_teacher"]

# Of mmdet, mmseg and this package: where a model's config states its number of classes.
_HEADS = ("head", "decode_head", "bbox_head")


class Trained(NamedTuple):
    """A teacher with the weights of its checkpoint."""

    network: nn.Module
    classes: tuple[str, ...] | None  # their names, if the checkpoint states them


def build_teacher(config: Mapping[str, Any]) -> Any:
    """Build the model of a config.

    Raises:
        UserError: the config has no type.
    """
    if not config.get("type"):
        raise UserError("model.guide.teacher: got a dict without type, expected the `model` of a config")
    return MODELS.build(copy.deepcopy(dict(config)))


def trained_teacher(network: nn.Module, config: Mapping[str, Any] | None, path: str | os.PathLike) -> Trained:
    """The teacher with the weights of a checkpoint, as compressed as these, and with as many classes.

    Args:
        network: as built from the config; it is used where that fits the checkpoint.
        config: of the dense teacher; None if it was given as a module.
        path: of the checkpoint.

    Raises:
        UserError: the checkpoint cannot be read safely or is of another architecture.
    """
    data = read_checkpoint(path)
    plan, weights = plan_of(data, path), weights_of(data, path)
    classes = tuple(dataset_meta_of(data, path).get("classes") or ()) or None
    if config is None:
        if plan is not None:
            raise UserError(f"{path}: it is of a compressed model; to build that, the guide needs the teacher's config")
    else:
        count = num_classes_of(config)
        is_other = classes is not None and count not in (None, len(classes))
        if classes is not None and is_other:
            config = _with_classes(config, count, len(classes))
        if is_other or plan is not None:
            network = build_model(config, plan=plan, source=path).model
    load_matching(network, weights, name=os.fspath(path))
    if isinstance(network, Elastic):
        network = network.extract()  # the widest
    return Trained(network, classes)


def num_classes_of(config: Mapping[str, Any]) -> int | None:
    """The number of classes that the config of a model states; None if it states none."""
    heads = [config.get(name) for name in _HEADS]
    counts = [head.get("num_classes") for head in heads if isinstance(head, Mapping)]
    return next((count for count in counts if isinstance(count, int)), None)


def _with_classes(node: Any, old: int | None, new: int) -> Any:
    """A copy of a config in which ``num_classes`` is another number; an auxiliary head may have one of its own."""
    if isinstance(node, Mapping):
        changed = {key: _with_classes(value, old, new) for key, value in node.items()}
        if "num_classes" in changed and changed["num_classes"] == old:
            changed["num_classes"] = new
        return changed
    return type(node)(_with_classes(part, old, new) for part in node) if isinstance(node, (list, tuple)) else node


def class_map(
    student: tuple[str, ...] | None, count: int, teacher: tuple[str, ...] | None, teacher_count: int | None
) -> ClassMap:
    """Where the student's classes are among the teacher's: by name, or else in the same order.

    Args:
        student: names of the student's classes; None if they are not known.
        count: their number.
        teacher: names of the teacher's classes; None if they are not known.
        teacher_count: their number; None if it is not known either.

    Raises:
        UserError: the teacher lacks a class, or the numbers differ and names are not known.
    """
    if student and teacher:
        missing = [name for name in student if name not in teacher]
        if missing:
            raise UserError(
                f"model.guide: the teacher has no class {', '.join(map(repr, missing[:3]))}, it has "
                f"{', '.join(teacher[:5])}{', ...' if len(teacher) > 5 else ''}; expected a teacher of the student's "
                "classes, or terms on feature maps only"
            )
        return ClassMap(tuple(teacher.index(name) for name in student))
    if teacher_count not in (None, count):
        raise UserError(
            f"model.guide: the teacher has {teacher_count} classes and the student {count}; expected as many, or "
            "class_names here and a checkpoint of the teacher that names its classes"
        )
    return ClassMap(tuple(range(count)))


class TeacherImages:
    """From the images of the student to those of the teacher: its normalization, color order and size.

    Args:
        student: its preprocessor states the normalization of the images; None for the teacher's.
        teacher: its preprocessor states its own; without one it gets the student's images.
        scale: size of the teacher's images, as a factor on the student's; it is rounded to multiples of the largest
            stride of the maps that the teacher declares.
    """

    def __init__(self, student: nn.Module | None, teacher: nn.Module, scale: float = 1.0) -> None:
        self.source, self.target = _normalization(student), _normalization(teacher)
        self.scale = scale
        specs = teacher.feature_specs if isinstance(teacher, Staged) else ()
        self.divisor = max((spec.stride for spec in specs), default=1)

    def __call__(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) for the student -> (B, 3, H', W') for the teacher."""
        source, target = self.source, self.target
        if source is not None and target is not None and source[:3] != target[:3]:
            pixels = images * _column(source.std, images) + _column(source.mean, images)
            if source.color != target.color:
                pixels = pixels.flip(1)
            images = (pixels - _column(target.mean, images)) / _column(target.std, images)
        height, width = (max(1, round(side * self.scale / self.divisor)) * self.divisor for side in images.shape[2:])
        if images.shape[2:] == (height, width):
            return images
        shrinks = height < images.shape[2]
        return functional.interpolate(images, (height, width), mode="bilinear", align_corners=False, antialias=shrinks)


def _column(values: tuple[float, ...], images: Tensor) -> Tensor:
    return images.new_tensor(values)[:, None, None]


def _normalization(network: nn.Module | None) -> Normalization | None:
    return normalization_of(network.data_preprocessor) if isinstance(network, BaseModel) else None
