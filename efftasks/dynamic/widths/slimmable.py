"""Slimmable training as a step of a config."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.logging import MMLogger
from torch import nn

from efftasks.compression.plan import plain
from efftasks.compression.pruning.slicing import cut
from efftasks.compression.transform import DecideContext, ModelTransform, refuse_early_exit
from efftasks.dynamic.widths.in_place import default_terms
from efftasks.dynamic.widths.network import SlimmableNetwork
from efftasks.dynamic.widths.plans import relative_plan, width_plans
from efftasks.models.detectors import Detector
from efftasks.models.segmentors import Segmentor
from efftasks.registry import MODEL_TRANSFORMS
from efftasks.structures.errors import UserError

__all__ = ["Slimmable"]


@MODEL_TRANSFORMS.register_module()
class Slimmable(ModelTransform):
    """Trains a model in several widths at once, from which one is chosen afterwards, without further training.

    A width has a share of the channels of every layer; what it predicts keeps its shape. Widths share all weights but
    those and the statistics of batch norms. It must be the last transform. A checkpoint has all widths;
    ``efftasks export --width 0.5`` and the like choose one, and the widest is the default.

    With a single width it is a network of that width, trained alone.

    Args:
        widths: shares of the channels, in (0, 1].
        sampled: how many widths run in a training step: the widest, the narrowest, and the rest at random; None for
            all.
        ground_truth: ``all``: annotations teach all widths, and the widest the narrower ones; ``widest``: annotations
            teach the widest alone. That is for segmentors: one-to-one predictions of detectors cannot be taught by
            another network.
        distillation: name -> config of a :class:`~efftasks.models.guides.terms.Term`, as in the guide
            ``Distillation``; empty for none, None for the terms that fit the model.
        ranked: whether the channels with the largest weights are those of narrower widths, if there are trained
            weights; else the first channels of each layer are.
        round_to: layers with fewer channels have a multiple of this.

    Raises:
        ValueError: an argument is not in its range.
    """

    def __init__(
        self,
        widths: Sequence[float] = (1.0, 0.75, 0.5, 0.25),
        sampled: int | None = None,
        ground_truth: str = "all",
        distillation: Mapping[str, Mapping[str, Any]] | None = None,
        ranked: bool = True,
        round_to: int = 8,
    ) -> None:
        shares = sorted({float(width) for width in widths}, reverse=True)
        if not shares or len(shares) < len(widths) or not 0 < shares[-1] <= shares[0] <= 1:
            raise ValueError(f"Slimmable.widths: got {tuple(widths)}, expected different numbers above 0, at most 1")
        if sampled is not None and not min(2, len(shares)) <= sampled <= len(shares):
            raise ValueError(
                f"Slimmable.sampled: got {sampled}, allowed are integers from {min(2, len(shares))} to {len(shares)}, "
                "the number of widths"
            )
        if ground_truth not in ("all", "widest"):
            raise ValueError(f"Slimmable.ground_truth: got {ground_truth!r}, allowed are 'all' and 'widest'")
        if round_to < 1:
            raise ValueError(f"Slimmable.round_to: got {round_to}, allowed are integers from 1")
        self.widths, self.sampled, self.ground_truth = shares, sampled, ground_truth
        self.distillation, self.ranked, self.round_to = distillation, ranked, round_to

    def decide(self, model: nn.Module, context: DecideContext) -> dict[str, Any]:
        """``widths``, a plan for each, and how they are trained.

        The plan of the largest width is on the dense model, the others are on that width.

        Raises:
            UserError: the model cannot be narrower, has a guide or an early exit, or the config has no image size.
        """
        if context.image_size is None:
            raise UserError("Slimmable: the config has no image_size, expected (height, width) in pixels")
        if not isinstance(model, (Detector, Segmentor)):
            raise UserError(
                f"model_transforms: Slimmable: got a {type(model).__name__}, expected a Detector or a Segmentor"
            )
        refuse_early_exit(model, "model_transforms: Slimmable")
        if model.guide is not None:
            raise UserError(
                "model_transforms: Slimmable: the model has a guide, whose place the widest width takes; remove "
                "model.guide"
            )
        terms = default_terms(model) if self.distillation is None else self.distillation
        only_widest = self.ground_truth == "widest"
        if only_widest and (isinstance(model, Detector) or not terms):
            raise UserError(
                "model_transforms: Slimmable.ground_truth: got 'widest', which leaves narrower widths without a loss "
                "of their predictions; set 'all'"
            )
        plans = width_plans(model, context.image_size, self.widths, self.ranked and context.has_weights, self.round_to)
        base = plans[0]
        MMLogger.get_current_instance().info(f"Slimmable: widths {', '.join(f'{width:g}' for width in self.widths)}")
        return dict(
            widths=list(self.widths),
            plans=[base, *(relative_plan(plan, base) for plan in plans[1:])],
            terms=plain(terms),
            sampled=self.sampled,
            annotated=not only_widest,
        )

    @staticmethod
    def apply(model: nn.Module, plan: Mapping[str, Any]) -> nn.Module:
        """The model in all widths."""
        base, *narrower = plan["plans"]
        cut(model, base)
        return SlimmableNetwork(
            model, plan["widths"], narrower, plan["terms"], plan["sampled"], plan["annotated"]
        ).train(model.training)
