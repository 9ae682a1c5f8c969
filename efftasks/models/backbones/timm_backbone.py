"""Any network of timm with feature maps. timm is an extra, which is imported when a backbone is built."""

from __future__ import annotations

import copy
import difflib
import os
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from efftasks.models.backbones.base import PROBE_SIZE, Backbone, load_weights, probe, select_strides, specs_of
from efftasks.registry import MODELS
from efftasks.structures.errors import UserError
from efftasks.structures.features import FeatureSpec

__all__ = ["TimmBackbone"]

_REPARAMETRIZING = ("fuse", "reparameterize", "switch_to_deploy")  # what timm's reparameterize_model looks for


@MODELS.register_module()
class TimmBackbone(Backbone):
    """A network of timm with ``features_only=True``; its parameters are named ``body.*``.

    Channels and strides are measured by a dry run; maps with channels last are transposed.

    Args:
        name: name of a timm model, e.g. ``resnet18``, with or without the tag of its weights: ``resnet18.a1_in1k``.
        out_strides: ascending choice of the strides the network has; None if ``out_indices`` is given.
        out_indices: timm's ``out_indices``, instead of ``out_strides`` (for networks with several maps of a stride).
        pretrained: download the weights of the tag, or of the default tag.
        weights: path of a local checkpoint instead: of the timm model or of this module.
        kwargs: further arguments of ``timm.create_model``: ``drop_path_rate``, or ``img_size=(height, width)`` for
            networks with a fixed input size.

    Raises:
        UserError: timm is not installed, has no such model or cannot download the weights, or the network has no maps
            or a fixed input size.
        ValueError: a stride that the network does not have.
    """

    def __init__(
        self,
        name: str,
        out_strides: Sequence[int] | None = (8, 16, 32),
        out_indices: Sequence[int] | None = None,
        pretrained: bool = False,
        weights: str | os.PathLike | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        if pretrained and weights is not None:
            raise ValueError("weights: got a file and pretrained=True, allowed one of them")
        timm = _import_timm()
        available = timm.list_models()
        if name.split(".")[0] not in available:
            near = difflib.get_close_matches(name, available, n=3)
            raise UserError(f"name: timm has no model {name!r}" + (f", nearest {', '.join(near)}" if near else ""))
        if out_indices is None:
            if out_strides is None:
                raise ValueError("out_strides: got None without out_indices, expected one of the two")
            # The strides are known after a first build; the second is without the layers after the last map.
            info = _create(timm, name, **kwargs).feature_info
            try:
                selected = select_strides(info.reduction(), out_strides)
            except ValueError as error:
                raise ValueError(f"timm's {name}: {error}") from None
            out_indices = [info.out_indices[i] for i in selected]
        self.body = _create(timm, name, out_indices=tuple(out_indices), pretrained=pretrained, **kwargs)
        size = _pair(kwargs.get("img_size", PROBE_SIZE))
        maps = _dry_run(self.body, name, size)
        channels = self.body.feature_info.channels()
        self.channels_last = [m.shape[1] for m in maps] != channels and [m.shape[-1] for m in maps] == channels
        self.name, self.probe_size = name, size
        self.specs = specs_of(f"timm's {name}", self._channels_first(maps), size)
        if weights is not None:
            expected = set(self.body.state_dict())
            load_weights(self.body, weights, lambda key: _renamed_key(key, expected))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) -> maps as declared in ``specs``."""
        return self._channels_first(self.body(x))

    def _measured(self) -> tuple[FeatureSpec, ...]:
        maps = self._channels_first(_dry_run(self.body, self.name, self.probe_size))
        return specs_of(f"timm's {self.name}", maps, self.probe_size)

    def _channels_first(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return tuple(m.permute(0, 3, 1, 2) if self.channels_last else m for m in maps)

    @property
    def reads_parts(self) -> tuple[str, ...]:
        """All below the blocks that timm reparametrizes: it reads their weights when it folds."""
        return tuple(
            f"{name}.{part}"
            for name, block in self.named_modules()
            if any(callable(getattr(block, verb, None)) for verb in _REPARAMETRIZING)
            for part, _ in block.named_modules()
            if part
        )

    def fold(self) -> TimmBackbone:
        """A copy reparametrized by timm; batch norms are left to the runtime."""
        folded = copy.deepcopy(self).eval()
        folded.body = _import_timm().utils.model.reparameterize_model(folded.body, inplace=True)
        return folded


def _create(timm: ModuleType, name: str, **kwargs: Any) -> Any:
    try:
        return timm.create_model(name, features_only=True, **kwargs)
    except (RuntimeError, NotImplementedError, AttributeError, AssertionError, OSError) as error:
        action = "fetch the weights of" if kwargs.get("pretrained") else "make a feature extractor of"
        hint = "; give a local file as weights" if kwargs.get("pretrained") else ""
        raise UserError(f"timm could not {action} {name}: {_first_line(error)}{hint}") from error


def _dry_run(body: nn.Module, name: str, size: tuple[int, int]) -> list[Tensor]:
    try:
        maps = probe(body, size)
    except (RuntimeError, AssertionError, IndexError) as error:
        raise UserError(
            f"timm's {name} does not take inputs of {size[0]}x{size[1]} ({_first_line(error)}): it is made for one "
            "size; choose another network, or give img_size=(height, width) where timm has that for it"
        ) from error
    assert isinstance(maps, list)
    return maps


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _pair(size: int | Sequence[int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def _import_timm() -> ModuleType:
    try:
        import timm
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision that does not fit this torch
        raise UserError(
            f"TimmBackbone needs timm, which cannot be imported ({error}); "
            'install it with: pip install "efftasks[timm]"'
        ) from error
    return timm


def _renamed_key(key: str, expected: set[str]) -> str:
    """timm's feature wrappers join the first two parts of some names (``stages_0.x``), or put ``model.`` before all."""
    joined = key.replace(".", "_", 1)
    return next((name for name in (key, joined, f"model.{key}") if name in expected), key)
