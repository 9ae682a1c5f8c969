"""The base of backbones, the wrapper of networks of other libraries, and the loading of local weights.

A backbone declares the channels and stride of every map (after detectron2's ``ShapeSpec``); necks and heads read them.
"""

from __future__ import annotations

import copy
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise

import efftasks.compat  # noqa: F401

import torch
from mmengine.logging import MMLogger
from mmengine.model import BaseModule
from torch import Tensor, nn

from efftasks.checkpoints.files import MatchReport, load_matching, read_state_dict
from efftasks.registry import MODELS
from efftasks.structures.errors import UserError
from efftasks.structures.features import FeatureSpec

__all__ = [
    "PROBE_SIZE",
    "Backbone",
    "ProbedBackbone",
    "build_backbone",
    "check_scale",
    "load_weights",
    "probe",
    "scaled_channels",
    "select_strides",
    "specs_of",
]

# (height, width): different multiples of 128, divisible by all usual strides.
PROBE_SIZE = (256, 384)

# Prefixes of the network in a checkpoint: a detector's wrapped backbone, a detector's backbone, a wrapper.
_PREFIXES = ("backbone.body.", "backbone.", "body.")


class Backbone(nn.Module, ABC):
    """A network from an image batch to feature maps, finest first.

    It is not an mmengine ``BaseModule``: weights are initialized or loaded at construction, and ``init_weights`` of the
    runner must not overwrite loaded ones.

    Attributes:
        frozen: see :meth:`freeze`.
    """

    _specs: tuple[FeatureSpec, ...] = ()
    _shapes: tuple[torch.Size, ...] = ()  # of all parameters when the specs were set or measured
    frozen: tuple[str, ...] = ()

    @property
    def specs(self) -> tuple[FeatureSpec, ...]:
        """Channels and stride of each map that ``forward`` gives, in the same order.

        A constructor sets them, best in its last lines. If shapes of parameters have changed since then (layers were
        pruned or replaced), they are measured again by a dry run.
        """
        shapes = tuple(parameter.shape for parameter in self.parameters())
        if shapes != self._shapes:
            self._specs, self._shapes = self._measured(), shapes
        return self._specs

    @specs.setter
    def specs(self, specs: Sequence[FeatureSpec]) -> None:
        """Set the specs, which hold for the current shapes of the parameters."""
        self._specs, self._shapes = tuple(specs), tuple(parameter.shape for parameter in self.parameters())

    def _measured(self) -> tuple[FeatureSpec, ...]:
        return specs_of(type(self).__name__, _selected(type(self).__name__, probe(self), None))

    def freeze(self, parts: Sequence[str]) -> None:
        """Freeze parts in training: submodules by name, and ``norms`` for every batch norm.

        Frozen parameters get no gradient; frozen batch norms use their running statistics and do not update them.

        Raises:
            ValueError: no submodule has such a name.
        """
        self.frozen = tuple(parts)
        for part in self.frozen:
            if part != "norms" and part not in self._modules:
                raise ValueError(f"frozen: got {part!r}, allowed 'norms' and {tuple(self._modules)}")
        for module in self._frozen_modules():
            module.requires_grad_(False)
        self.train(self.training)

    def _frozen_modules(self) -> Iterator[nn.Module]:
        yield from (self._modules[part] for part in self.frozen if part != "norms")  # type: ignore[misc]
        if "norms" in self.frozen:
            yield from (module for module in self.modules() if isinstance(module, nn.BatchNorm2d))

    def train(self, mode: bool = True) -> Backbone:
        """Set training mode for all modules but frozen batch norms."""
        super().train(mode)
        if "norms" in self.frozen:
            for module in self._frozen_modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    @property
    def divisor(self) -> int:
        """Sides of the input must be multiples of this, in pixels: the largest stride."""
        return max(spec.stride for spec in self._specs or self.specs)  # not measured again: pruning changes no stride

    @abstractmethod
    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) -> one (B, C_i, H / s_i, W / s_i) for each of ``specs``."""


@MODELS.register_module()
class ProbedBackbone(Backbone):
    """Any network that returns a tuple of maps; its channels and strides are measured by a dry run.

    Args:
        backbone: a module, or the config of a registered one (``dict(type="mmdet.CSPNeXt", ...)``). Its parameters are
            named ``body.*``.
        out_indices: of the outputs to return, finest first; None for all.
        weights: path of a local checkpoint for ``backbone``: of the network, or of a whole model (``backbone.*``).

    Raises:
        ValueError: the outputs are not a tuple of 4-D maps, or their strides are not whole and ascending.
    """

    def __init__(
        self,
        backbone: nn.Module | Mapping,
        out_indices: Sequence[int] | None = None,
        weights: str | os.PathLike | None = None,
    ) -> None:
        super().__init__()
        self.out_indices = None if out_indices is None else tuple(out_indices)
        self.body: nn.Module
        if isinstance(backbone, nn.Module):
            self.body = backbone
            self._init_pending = False
        else:
            self.body = MODELS.build(copy.deepcopy(backbone))
            self._init_pending = weights is None
        name = type(self.body).__name__
        self.specs = specs_of(name, _selected(name, probe(self.body), self.out_indices))
        if weights is not None:
            load_weights(self.body, weights)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) -> maps as declared in ``specs``."""
        maps = self.body(x)
        if self.out_indices is not None:
            return tuple(maps[i] for i in self.out_indices)
        return tuple(maps)

    def init_weights(self) -> None:
        """mmengine's deferred initialization of the wrapped network, unless it was built or loaded before."""
        if self._init_pending and isinstance(self.body, BaseModule):
            self.body.init_weights()
        self._init_pending = False


def build_backbone(backbone: nn.Module | Mapping) -> Backbone:
    """A backbone from a module or a config; the config is not changed.

    Networks that are not a :class:`Backbone` (of mmdet or mmseg by their scoped name) are wrapped in
    :class:`ProbedBackbone`.

    Raises:
        UserError: neither a module nor a config with a ``type``.
    """
    if isinstance(backbone, Backbone):
        return backbone
    if isinstance(backbone, nn.Module):
        return ProbedBackbone(backbone)
    if not isinstance(backbone, Mapping) or "type" not in backbone:
        raise UserError(f"backbone: got {backbone!r}, allowed a config (dict with a type) or a torch module")
    kind = backbone["type"]
    if isinstance(kind, str):
        kind = MODELS.get(kind)
    if kind is None or (
        isinstance(kind, type) and issubclass(kind, Backbone)
    ):  # None: the error of build() lists the registered types
        return MODELS.build(copy.deepcopy(backbone))
    return ProbedBackbone(backbone)


def load_weights(
    module: nn.Module, path: str | os.PathLike, rename: Callable[[str], str | None] | None = None
) -> MatchReport:
    """Load the matching tensors of a local checkpoint into ``module``, and log which match.

    Args:
        module: the network, its parameters named as in ``module.state_dict()``.
        path: a checkpoint of the network, or of a model with the network under ``backbone.*``.
        rename: from a key of another project to that of this package; a result of None drops the key.

    Raises:
        ValueError: no tensor matches in name and shape.
    """
    state = read_state_dict(path)
    expected = list(module.state_dict())
    for prefix in _PREFIXES:
        inner = {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}
        if inner and not any(key.startswith(prefix) for key in expected):
            state = inner
            break
    if rename is not None:
        renamed = {key: rename(key) for key in state}
        state = {new: state[key] for key, new in renamed.items() if new is not None}
    report = load_matching(module, state, strict=False)
    if not report.matched:
        raise ValueError(
            f"{os.fspath(path)}: no tensor fits {type(module).__name__} in name and shape "
            f"(the file has {_first(list(state))}; expected {_first(expected)})"
        )
    MMLogger.get_current_instance().info(f"weights of {type(module).__name__} from {path}: {report.summary()}")
    return report


def check_scale(width: float, depth: float, kernel_size: int | None) -> None:
    """Check that factors are positive and the kernel is odd.

    Raises:
        ValueError: naming the argument.
    """
    for name, value in (("width", width), ("depth", depth)):
        if value <= 0:
            raise ValueError(f"{name}: got {value}, allowed a positive number")
    if kernel_size is not None and (kernel_size < 1 or kernel_size % 2 == 0):
        raise ValueError(f"kernel_size: got {kernel_size}, allowed an odd positive number")


def scaled_channels(channels: int, width: float) -> int:
    """``channels * width`` rounded to a multiple of 8, at least 8; unchanged for a ``width`` of 1."""
    return channels if width == 1 else max(8, int(channels * width / 8 + 0.5) * 8)


def select_strides(available: Sequence[int], out_strides: Sequence[int]) -> tuple[int, ...]:
    """Indices into ``available`` of the ``out_strides``; of several maps with one stride, the last (deepest).

    Raises:
        ValueError: ``out_strides`` is empty, not ascending, or has a stride that is not available.
    """
    out_strides = tuple(out_strides)
    index = {stride: i for i, stride in enumerate(available)}
    if not out_strides or any(a >= b for a, b in pairwise(out_strides)) or not set(out_strides) <= set(index):
        raise ValueError(f"out_strides: got {out_strides}, allowed an ascending choice of {tuple(index)}")
    return tuple(index[stride] for stride in out_strides)


def _first(keys: list[str], count: int = 3) -> str:
    return ", ".join(keys[:count]) + (f", ... {len(keys)} in all" if len(keys) > count else "")


def probe(
    module: nn.Module, size: tuple[int, int] = PROBE_SIZE, run: Callable[[Tensor], object] | None = None
) -> object:
    """The output of ``module`` for one black image, without a change of modes, buffers and the random state.

    Args:
        module: takes (1, 3, height, width).
        size: (height, width).
        run: runs the module on the image; None to call it.
    """
    modes = {part: part.training for part in module.modules()}
    buffers = {buffer: buffer.clone() for buffer in module.buffers()}
    parameter = next(iter(module.parameters()), torch.zeros(0))
    device = parameter.device
    try:
        module.eval()
        with torch.no_grad(), torch.random.fork_rng([device] if device.type == "cuda" else []):
            return (run or module)(torch.zeros(1, 3, *size, device=device, dtype=parameter.dtype))
    finally:
        for part, training in modes.items():
            part.training = training  # not train(), which may freeze norms
        with torch.no_grad():
            for buffer, value in buffers.items():
                buffer.copy_(value)


def _selected(name: str, outputs: object, out_indices: Sequence[int] | None) -> list[Tensor]:
    if not isinstance(outputs, (tuple, list)) or not outputs:
        raise ValueError(f"backbone {name}: got {type(outputs).__name__} as output, expected a tuple of 4-D maps")
    if out_indices is not None:
        bad = [i for i in out_indices if not -len(outputs) <= i < len(outputs)]
        if bad or not out_indices:
            raise ValueError(
                f"out_indices: got {tuple(out_indices)}, allowed indices of {len(outputs)} outputs of {name}"
            )
        outputs = [outputs[i] for i in out_indices]
    for i, output in enumerate(outputs):
        if not isinstance(output, Tensor) or output.dim() != 4:
            got = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
            raise ValueError(f"backbone {name}: output {i} has {got}, expected a 4-D map (B, C, H, W)")
    return list(outputs)


def specs_of(name: str, maps: Sequence[Tensor], size: tuple[int, int] = PROBE_SIZE) -> tuple[FeatureSpec, ...]:
    """Channels and strides of the maps (1, C_i, H_i, W_i) of a network for an input of ``size``.

    Raises:
        ValueError: a stride is not whole, or they do not ascend.
    """
    height, width = size
    specs = []
    for i, feature in enumerate(maps):
        h, w = feature.shape[-2:]
        stride = height // h
        if stride * h != height or stride * w != width:
            raise ValueError(
                f"backbone {name}: output {i} is {h}x{w} for an input of {height}x{width}, expected one whole stride"
            )
        specs.append(FeatureSpec(feature.shape[1], stride))
    strides = [spec.stride for spec in specs]
    if strides != sorted(strides):
        raise ValueError(f"backbone {name}: strides {strides} do not ascend; choose outputs with out_indices")
    return tuple(specs)
