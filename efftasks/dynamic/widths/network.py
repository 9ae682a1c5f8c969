"""The network that is trained: several widths over one set of weights."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from mmengine.model import BaseModel
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from efftasks.compression.pruning.slices import parameter_slices, sliced
from efftasks.compression.pruning.slicing import cut
from efftasks.dynamic.widths.in_place import InPlaceGuide, Terms, WidestStages
from efftasks.structures.errors import UserError
from efftasks.structures.protocols import HasClassRows, Progressive

__all__ = ["SlimmableNetwork", "width_name"]

NORMS = "narrower"  # name of the norms of narrower widths, below those of the widest


def width_name(width: float) -> str:
    """Of a width, for losses, metrics and files: ``width0.25``."""
    return f"width{width:g}"


class Narrower(nn.Module):
    """A narrower width: a structure of its own that computes with parts of the weights of the widest network.

    Only its batch norms are its own. They are registered in the widest network, beside those that they stand for.

    Args:
        widest: the widest network, without norms of other widths.
        plan: which of its channels this width has.
    """

    def __init__(self, widest: nn.Module, plan: Mapping[str, Any]) -> None:
        super().__init__()
        self.structure: Any = copy.deepcopy(widest)
        cut(self.structure, plan)
        self._slices = parameter_slices(widest, plan)

    @property
    def norms(self) -> dict[str, nn.Module]:
        """Its batch norms by name."""
        return {name: module for name, module in self.structure.named_modules() if isinstance(module, _BatchNorm)}

    def weights(self, shared: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Its weights without those of its norms, parts of the parameters of the widest network."""
        norm_parameters = {f"{name}.{key}" for name in self.norms for key in ("weight", "bias")}
        return {
            name: sliced(shared[name], self._slices.get(name, {}))
            for name, _ in self.structure.named_parameters()
            if name not in norm_parameters
        }

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Narrower:
        super()._apply(fn, recurse)
        for dims in self._slices.values():
            dims.update({dim: fn(left) for dim, left in dims.items() if isinstance(left, Tensor)})
        return self

    def plain(self, shared: Mapping[str, Tensor]) -> nn.Module:
        """A copy of the network, with weights of its own."""
        network: nn.Module = copy.deepcopy(self.structure)
        with torch.no_grad():
            parameters = dict(network.named_parameters())
            for name, weight in self.weights(shared).items():
                parameters[name].copy_(weight)
        return network


class _Networks:
    """Networks that are not registered where they are used: their weights are, by the names of the dense model."""

    def __init__(self, widest: nn.Module, narrower: dict[float, Narrower]) -> None:
        self.widest, self.narrower = widest, narrower


class SlimmableNetwork(BaseModel):
    """A model in several widths, which share their weights and have batch norms of their own.

    Its weights have the names of the dense model's; norms of narrower widths are below those of the widest:
    ``neck.merge.norm.narrower.0.weight``. In training every step runs the widest width, the narrowest, and all or some
    of the others, and the narrower ones learn from the widest. Otherwise it is the active width.

    It implements :class:`~efftasks.structures.protocols.Elastic`.

    Sources: Slimmable Networks (arXiv 1812.08928) for the norms, Universally Slimmable Networks (arXiv 1903.05134) for
    the sandwich rule and in-place distillation.

    Args:
        widest: the network of the largest width, which becomes a part of this one.
        widths: shares of the channels, the largest first.
        plans: of all widths but the largest, see :mod:`~efftasks.compression.pruning.slicing`.
        terms: of the distillation; none trains by annotations alone.
        sampled: how many widths run in a step, the widest and the narrowest included; None for all.
        annotated: whether narrower widths learn from annotations, too.
    """

    def __init__(
        self,
        widest: Any,
        widths: Sequence[float],
        plans: Sequence[Mapping[str, Any]],
        terms: Terms,
        sampled: int | None = None,
        annotated: bool = True,
    ) -> None:
        super().__init__(data_preprocessor=widest.data_preprocessor)
        narrower = {width: Narrower(widest, plan) for width, plan in zip(widths[1:], plans, strict=True)}
        self.widths, self.sampled, self.annotated = tuple(widths), sampled, annotated
        self.active = self.widths[0]
        self._networks = _Networks(widest, narrower)
        if terms and narrower:
            kept = WidestStages()
            for network in narrower.values():
                network.structure.guide = InPlaceGuide(terms, network.structure, widest, kept)
            widest.guide = kept
        for name, child in widest.named_children():
            if name != "guide":
                self.add_module(name, child)
        for name, norm in [(n, m) for n, m in widest.named_modules() if isinstance(m, _BatchNorm)]:
            if narrower:
                norm.add_module(NORMS, nn.ModuleList(network.norms[name] for network in narrower.values()))

    def choices(self) -> tuple[float, ...]:
        """The widths, the largest first."""
        return self.widths

    def class_rows(self) -> dict[str, str]:
        """See :class:`~efftasks.structures.protocols.HasClassRows`: those of the model itself; its heads are parts."""
        widest = self._networks.widest
        return widest.class_rows() if isinstance(widest, HasClassRows) else {}

    def activate(self, choice: float) -> None:
        """Predict with a width from now on.

        Raises:
            UserError: it is none of :meth:`choices`.
        """
        if choice not in self.widths:
            raise UserError(
                f"width: got {choice!r}, expected one of {', '.join(f'{width:g}' for width in self.widths)}"
            )
        self.active = choice

    def extract(self) -> nn.Module:
        """The active width as a plain model, sharing no tensor with this one."""
        if self.active in self._networks.narrower:
            network: Any = self._networks.narrower[self.active].plain(self._shared())
        else:
            network = copy.deepcopy(self._networks.widest)
            for norm in [module for module in network.modules() if isinstance(module, _BatchNorm)]:
                norm._modules.pop(NORMS, None)
        network.guide = None
        return network.train(self.training)

    def set_progress(self, fraction: float) -> None:
        """Set training progress, in [0, 1], in all widths."""
        for network in self._all():
            if isinstance(network, Progressive):
                network.set_progress(fraction)

    def train(self, mode: bool = True) -> SlimmableNetwork:
        """Set the mode of all widths."""
        super().train(mode)
        for network in self._all():
            network.train(mode)  # a backbone may freeze norms
        return self

    def forward(self, inputs: Tensor, data_samples: Any = None, mode: str = "tensor") -> Any:
        """The interface of mmengine: ``loss`` of all widths of a step, ``predict`` and ``tensor`` of the active one."""
        if mode != "loss":
            return self._run(self.active, inputs, data_samples, mode)
        losses: dict[str, Any] = {}
        for width in self.widths_of_step():
            of_width = self._run(width, inputs, data_samples, mode)
            if width == self.widths[0]:
                losses.update(of_width)
                continue
            guided = {name: loss for name, loss in of_width.items() if name.startswith("guide.")}
            chosen = of_width if self.annotated else guided
            losses.update({f"{width_name(width)}.{name}": loss for name, loss in chosen.items()})
        guide = self._networks.widest.guide
        if isinstance(guide, WidestStages):
            guide.stages = None
        return losses

    def widths_of_step(self) -> list[float]:
        """The sandwich rule: the widest, the narrowest, and all others or some of them at random."""
        widest, *between = self.widths[:-1] or self.widths
        ends = list(dict.fromkeys((widest, self.widths[-1])))
        if self.sampled is not None and self.sampled < len(self.widths):
            between = random.sample(between, self.sampled - len(ends))
        return [*ends, *between]

    def _run(self, width: float, *arguments: Any) -> Any:
        if width == self.widths[0]:
            return self._networks.widest(*arguments)
        network = self._networks.narrower[width]
        return functional_call(network.structure, network.weights(self._shared()), arguments)

    def _shared(self) -> dict[str, nn.Parameter]:
        return dict(self._networks.widest.named_parameters())

    def _all(self) -> list[nn.Module]:
        return [self._networks.widest, *(network.structure for network in self._networks.narrower.values())]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> SlimmableNetwork:
        # to(), cuda() and the like: norms of narrower widths are in both, and stay the same objects.
        super()._apply(fn, recurse)
        for network in self._networks.narrower.values():
            network._apply(fn)
        return self
