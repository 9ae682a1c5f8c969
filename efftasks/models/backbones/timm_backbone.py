"""Any network of timm that can give feature maps. timm is an extra; nothing of it is imported before one is built."""

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


@MODELS.register_module()
class TimmBackbone(Backbone):
    """A network of timm with ``features_only=True``; its parameters are found under ``body.*``.

    Channels and strides are measured by a dry run, not believed; maps with channels last are turned.

    Args:
        name: name of a timm model, e.g. ``resnet18``, also with the tag of its weights: ``resnet18.a1_in1k``.
        out_strides: ascending choice of the strides the network has; None if ``out_indices`` is given.
        out_indices: timm's own choice of maps, instead of ``out_strides`` (for networks that give a stride twice).
        pretrained: let timm fetch the weights of the tag, or of its default tag, from the net.
        weights: path of a local checkpoint instead: of the timm model itself or of this module.
        kwargs: further arguments of ``timm.create_model``: ``drop_path_rate``, or ``img_size=(height, width)`` for
            networks that are made for one input size.

    Raises:
        UserError: timm is not installed, has no such model, cannot fetch the weights, or the network gives no maps or
            takes one input size only.
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
        known = timm.list_models()
        if name.split(".")[0] not in known:
            near = difflib.get_close_matches(name, known, n=3)
            raise UserError(f"name: timm has no model {name!r}" + (f", nearest {', '.join(near)}" if near else ""))
        if out_indices is None:
            if out_strides is None:
                raise ValueError("out_strides: got None without out_indices, expected one of the two")
            # Only the built network knows its strides; without what lies behind the last map, it is built again.
            info = _create(timm, name, **kwargs).feature_info
            try:
                chosen = select_strides(info.reduction(), out_strides)
            except ValueError as error:
                raise ValueError(f"timm's {name}: {error}") from None
            out_indices = [info.out_indices[i] for i in chosen]
        self.body = _create(timm, name, out_indices=tuple(out_indices), pretrained=pretrained, **kwargs)
        size = _pair(kwargs.get("img_size", PROBE_SIZE))
        maps = _dry_run(self.body, name, size)
        channels = self.body.feature_info.channels()
        self.channels_last = [m.shape[1] for m in maps] != channels and [m.shape[-1] for m in maps] == channels
        self.name, self.probe_size = name, size
        self.specs = specs_of(f"timm's {name}", self._turned(maps), size)
        if weights is not None:
            own = set(self.body.state_dict())
            load_weights(self.body, weights, lambda key: _own_key(key, own))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) -> maps as declared in ``specs``."""
        return self._turned(self.body(x))

    def _measured(self) -> tuple[FeatureSpec, ...]:
        maps = self._turned(_dry_run(self.body, self.name, self.probe_size))
        return specs_of(f"timm's {self.name}", maps, self.probe_size)

    def _turned(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return tuple(m.permute(0, 3, 1, 2) if self.channels_last else m for m in maps)

    def fold(self) -> TimmBackbone:
        """A copy whose branches are merged where timm can; batch norms are left to the runtime."""
        folded = copy.deepcopy(self).eval()
        folded.body = _import_timm().utils.model.reparameterize_model(folded.body, inplace=True)
        return folded


def _create(timm: ModuleType, name: str, **kwargs: Any) -> Any:
    try:
        return timm.create_model(name, features_only=True, **kwargs)
    except (RuntimeError, NotImplementedError, AttributeError, AssertionError, OSError) as error:
        wanted = "fetch the weights of" if kwargs.get("pretrained") else "make a feature extractor of"
        hint = "; give a local file as weights" if kwargs.get("pretrained") else ""
        raise UserError(f"timm could not {wanted} {name}: {_first_line(error)}{hint}") from error


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


def _own_key(key: str, own: set[str]) -> str:
    """timm's feature wrappers join the first two parts of some names (``stages_0.x``), or put ``model.`` before all."""
    joined = key.replace(".", "_", 1)
    return next((name for name in (key, joined, f"model.{key}") if name in own), key)
