"""Any network of timm that can give feature maps. timm is an extra; nothing of it is imported before one is built."""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from torch import Tensor

from efftasks.models.backbones.base import Backbone, load_weights, select_strides
from efftasks.registry import MODELS
from efftasks.structures.errors import UserError
from efftasks.structures.features import FeatureSpec

__all__ = ["TimmBackbone"]


@MODELS.register_module()
class TimmBackbone(Backbone):
    """A network of timm with ``features_only=True``; its parameters are found under ``body.*``.

    Nothing is downloaded: weights come from a local file.

    Args:
        name: name of a timm model, e.g. ``resnet18``.
        out_strides: ascending choice of the strides the network has; None if ``out_indices`` is given.
        out_indices: timm's own choice of maps, instead of ``out_strides`` (for networks that give a stride twice).
        weights: path of a local checkpoint: of the timm model itself or of this module.
        kwargs: further arguments of ``timm.create_model``, e.g. ``drop_path_rate``.

    Raises:
        UserError: timm is not installed, or it has no such model.
        ValueError: a stride that the network does not have.
    """

    def __init__(
        self,
        name: str,
        out_strides: Sequence[int] | None = (8, 16, 32),
        out_indices: Sequence[int] | None = None,
        weights: str | os.PathLike | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        if "pretrained" in kwargs:
            raise ValueError("pretrained: got an argument that would download, allowed weights=PATH of a local file")
        timm = _import_timm()
        known = timm.list_models()
        if name.split(".")[0] not in known:
            near = difflib.get_close_matches(name, known, n=3)
            raise UserError(f"name: timm has no model {name!r}" + (f", nearest {', '.join(near)}" if near else ""))
        if out_indices is None:
            if out_strides is None:
                raise ValueError("out_strides: got None without out_indices, expected one of the two")
            # Only the built network knows its strides; without what lies behind the last map, it is built again.
            network = timm.create_model(name, features_only=True, **kwargs)
            chosen = select_strides(network.feature_info.reduction(), out_strides)
            out_indices = [network.feature_info.out_indices[i] for i in chosen]
        self.body = timm.create_model(name, features_only=True, out_indices=tuple(out_indices), **kwargs)
        info = self.body.feature_info
        self.specs = tuple(FeatureSpec(c, s) for c, s in zip(info.channels(), info.reduction(), strict=True))
        if weights is not None:
            own = set(self.body.state_dict())
            load_weights(self.body, weights, lambda key: _own_key(key, own))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) -> maps as declared in ``specs``."""
        return tuple(self.body(x))


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
