"""In-place distillation: narrower networks learn from what the widest one predicts for the same batch.

Source: Universally Slimmable Networks (arXiv 1903.05134, section 3.3).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from efftasks.models.det_heads.o2o_head import O2OHead
from efftasks.models.detectors import Detector
from efftasks.models.guides.sources import Measured, Networks
from efftasks.models.guides.terms import ClassMap, Term
from efftasks.models.segmentors import Segmentor
from efftasks.registry import MODELS
from efftasks.structures.errors import UserError
from efftasks.structures.features import Stages

__all__ = ["InPlaceGuide", "WidestStages", "default_terms"]

Terms = Mapping[str, Mapping[str, Any]]  # name -> config of a term


def default_terms(model: nn.Module) -> Terms:
    """The terms of a model: the one-to-many branch of an ``O2OHead``, or the logits of a segmentor.

    Raises:
        UserError: it is another model.
    """
    if isinstance(model, Segmentor):
        return dict(logits=dict(type="LogitTerm", loss=dict(type="LogitKLLoss")))
    head = model.head if isinstance(model, Detector) else model
    if isinstance(head, O2OHead):
        return dict(one_to_many=dict(type="OneToManyTerm"))
    raise UserError(
        f"model_transforms: Slimmable: got a {type(head).__name__}, for which no distillation from the widest width is "
        "known; set distillation=dict() to train all widths by annotations alone"
    )


class WidestStages(nn.Module):
    """In the place of the guide of the widest network: keeps its stages of the current batch, without gradients.

    Attributes:
        student_paths: modules of the network whose outputs are kept as well.
        stages: of the current batch; None between batches.
    """

    def __init__(self) -> None:
        super().__init__()
        self.student_paths: tuple[str, ...] = ()
        self.stages: Stages | None = None

    def set_progress(self, fraction: float) -> None:
        """Progress changes nothing."""

    def forward(self, images: Tensor, stages: Stages) -> dict[str, Tensor]:
        """Keep the stages; there is no loss."""
        tensors = (stages.features, stages.raw, dict(stages.recorded))
        features, raw, recorded = pytree.tree_map_only(Tensor, Tensor.detach, tensors)
        self.stages = Stages(features, raw, recorded, stages.model)
        return {}


class InPlaceGuide(nn.Module):
    """The guide of a narrower network, with the widest one as teacher.

    Args:
        terms: configs of :class:`~efftasks.models.guides.terms.Term` by name.
        student: the narrower network.
        teacher: the widest one.
        widest: keeps its stages.

    Raises:
        UserError: a term does not fit the networks, or has weights of its own.
    """

    def __init__(self, terms: Terms, student: nn.Module, teacher: nn.Module, widest: WidestStages) -> None:
        super().__init__()
        # In a list, since it is no part of this module: it belongs to the widest network.
        self._widest = [widest]
        specs = [
            network.feature_specs if isinstance(network, (Detector, Segmentor)) else ()
            for network in (student, teacher)
        ]
        built: dict[str, Term] = {}
        for name, config in terms.items():
            place = f"model_transforms: Slimmable.distillation.{name}"
            networks = Networks(Measured(student, specs[0]), Measured(teacher, specs[1]), place)
            built[name] = MODELS.build(dict(config, networks=networks))
            if next(built[name].parameters(), None) is not None:
                raise UserError(
                    f"{place}: it has weights of its own, since the maps of the widths have other channels; compare "
                    "predictions"
                )
        self.terms = nn.ModuleDict(built)
        self.student_paths = tuple(dict.fromkeys(path for term in built.values() for path in term.student_paths))
        widest.student_paths = tuple(dict.fromkeys(path for term in built.values() for path in term.teacher_paths))

    def set_progress(self, fraction: float) -> None:
        """Progress changes nothing."""

    def forward(self, images: Tensor, stages: Stages) -> dict[str, Tensor]:
        """The losses of all terms, by name."""
        teacher = self._widest[0].stages
        assert teacher is not None, "the widest network runs first"
        classes = _all_classes(stages.model)
        losses = {}
        for name, term in self.terms.items():
            for part, loss in term(stages, teacher, classes).items():
                losses[f"loss_{name}_{part}" if part else f"loss_{name}"] = loss
        return losses


def _all_classes(model: Any) -> ClassMap | None:
    """Every class is one of the teacher's, in the same order. Maps of a segmentor may be of other things as well."""
    return None if isinstance(model, Segmentor) else ClassMap(tuple(range(model.head.num_classes)))
