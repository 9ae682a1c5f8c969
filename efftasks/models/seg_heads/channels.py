"""For composites with a decode head of mmseg's form: its input channels, and its labels in pixels of the image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import efftasks.compat  # noqa: F401

# isort: split
import torch
from mmseg.models.decode_heads import STDCHead
from torch import Tensor, nn

from efftasks.imaging.label_maps import cell_indices
from efftasks.models.layers.prediction import outputs_of
from efftasks.structures.features import FeatureSpec

__all__ = ["class_rows_of", "labels_on_original", "with_channels"]

# Layers of mmseg's heads, and of those that inherit from them, with an output for each class.
_CLASS_LAYERS = ("conv_seg", "p_cls_seg", "aux_cls_seg")


def class_rows_of(head: nn.Module, prefix: str, kind: str) -> dict[str, str]:
    """The ``class_rows`` of a head of mmseg's form, see :class:`~efftasks.structures.protocols.HasClassRows`.

    A head of edges (STDCHead) has none.
    """
    if isinstance(head, STDCHead):
        return {}
    layers = [(name, layer) for name, layer in head.named_children() if name in _CLASS_LAYERS]
    return dict.fromkeys([tensor for name, layer in layers for tensor in outputs_of(layer, f"{prefix}.{name}")], kind)


def with_channels(head: Mapping[str, Any], specs: Sequence[FeatureSpec]) -> dict[str, Any]:
    """A head's config with ``in_channels``, by default the channels of the maps of its ``in_index``."""
    if "in_channels" in head:
        return dict(head)
    index = head.get("in_index", -1)
    indices = index if isinstance(index, Sequence) else [index]
    if not all(-len(specs) <= i < len(specs) for i in indices):
        raise ValueError(f"{head['type']}.in_index: got {index}, allowed are indices of {len(specs)} maps")
    channels = [specs[i].channels for i in indices]
    return dict(head, in_channels=channels if isinstance(index, Sequence) else channels[0])


def labels_on_original(labels: Tensor, extent: tuple[int, int], meta: Mapping[str, Any]) -> Tensor:
    """Label map of the original image from one of the network input.

    The image is at the top left of the input, which may be padded on the right and at the bottom.

    Args:
        labels: (h, w), at the stride of the input or at a larger one.
        extent: height and width of the network input.
        meta: ``ori_shape`` and ``scale_factor`` of the image.
    """
    height, width = meta.get("ori_shape", extent)
    across, down = meta.get("scale_factor", (1.0, 1.0))
    rows = cell_indices(height, int(height * down + 0.5), extent[0], labels.shape[0])
    columns = cell_indices(width, int(width * across + 0.5), extent[1], labels.shape[1])
    return labels[torch.from_numpy(rows).to(labels.device)[:, None], torch.from_numpy(columns).to(labels.device)]
