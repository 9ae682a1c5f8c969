"""Checkpoints of other projects: their code base, their number of classes, and the selection of classes.

Pure functions on names and tensors; reading, choosing a config and writing are the caller's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from efftasks.models.published import huggingface
from efftasks.models.published.authors import AUTHORS
from efftasks.models.published.detrpose import DETRPOSE
from efftasks.models.published.rules import Layout
from efftasks.structures.errors import UserError

__all__ = [
    "COCO_IDS",
    "FAMILIES",
    "MMSEG",
    "MMSEG_FAMILIES",
    "POSE",
    "class_count",
    "layout_of",
    "regression_scale",
    "take_rows",
    "without_placeholders",
]

MMSEG = "mmseg"  # segmentors that are made of mmseg's parts alone, and have its names:
MMSEG_FAMILIES = ("bisenetv2", "ddrnet", "fastscnn", "pidnet", "stdc")
POSE = "detrpose"  # its labels are category ids
FAMILIES = ("dfine", "deim", "deimv2", "rtdetrv2", POSE, MMSEG)

# Ids of COCO's 80 categories in order: label i of a model trained on COCO is category COCO_IDS[i].
COCO_IDS = tuple(i for i in range(1, 91) if i not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83))

_POSE_LABELS, _POSE_SCORES = "transformer.label_enc.weight", "transformer.enc_out_class_embed.bias"
_SEGMENTATION = "decode_head.conv_seg.bias"
_HUGGINGFACE = {
    "rtdetrv2": huggingface.RTDETRV2,
    "dfine": huggingface.DFINE,
    "deim": huggingface.DFINE,
    "deimv2": huggingface.DEIMV2,
}


def layout_of(foreign: Mapping[str, Tensor], family: str) -> Layout:
    """The naming of the tensors of a file.

    Raises:
        UserError: neither the authors' names nor those of transformers.
    """
    if family == MMSEG:
        if _SEGMENTATION in foreign:
            return Layout(rules=())
    elif family == POSE:
        if _POSE_LABELS in foreign and _POSE_SCORES in foreign:
            return DETRPOSE
    elif "decoder.enc_score_head.bias" in foreign:
        return AUTHORS
    elif "model.enc_score_head.bias" in foreign:
        return _HUGGINGFACE[family]
    first = ", ".join(list(foreign)[:3])
    raise UserError(
        f"the file has neither the names of the authors' checkpoints nor of transformers' (it begins with {first}); "
        f"expected a checkpoint of {family}, one of {', '.join(FAMILIES)}"
    )


def class_count(foreign: Mapping[str, Tensor]) -> int:
    """The number of classes of a file's model."""
    last_layers = ("enc_score_head.bias", _POSE_SCORES, _SEGMENTATION)
    return next(len(tensor) for name, tensor in foreign.items() if name.endswith(last_layers))


def regression_scale(foreign: Mapping[str, Tensor]) -> float | None:
    """The scale of the distributions of box sides; None where the file has none."""
    return next(
        (
            float(tensor)
            for name, tensor in foreign.items()
            if name.endswith(("decoder.reg_scale", "transformer.reg_scale"))
        ),
        None,
    )


def without_placeholders(foreign: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """A file's tensors without those of a projection that is exactly the identity, and the names left out.

    transformers has a linear layer and a layer norm before the query selection of DEIMv2 which the authors' HGNetV2
    models do not have; its converted checkpoints carry the identity and a norm of ones there. DETRPose has 81 rows of
    denoising labels, of which it uses those of its classes.
    """
    if _POSE_LABELS in foreign and _POSE_SCORES in foreign:
        return {**foreign, _POSE_LABELS: foreign[_POSE_LABELS][: class_count(foreign)]}, []
    names = [f"model.enc_output.{layer}.{parameter}" for layer in (0, 1) for parameter in ("weight", "bias")]
    if not all(name in foreign for name in names):
        return dict(foreign), []
    linear, shift, scale, offset = (foreign[name].float() for name in names)
    width = len(shift)
    identity = (torch.eye(width), torch.zeros(width), torch.ones(width), torch.zeros(width))
    if not all(torch.equal(a.cpu(), b) for a, b in zip((linear, shift, scale, offset), identity)):
        return dict(foreign), []
    return {name: tensor for name, tensor in foreign.items() if name not in names}, names


def take_rows(state: Mapping[str, Tensor], labels: Sequence[int], class_rows: Mapping[str, int]) -> dict[str, Tensor]:
    """The tensors of a model for other classes.

    Args:
        state: of the model.
        labels: for each new class its label in ``state``.
        class_rows: name of a tensor -> the number of its first rows that belong to classes; further rows are kept.
            Tensors that ``state`` lacks are passed over.
    """
    index = torch.as_tensor(labels, dtype=torch.long)
    result = dict(state)
    for name in class_rows.keys() & state.keys():
        tensor = state[name]
        result[name] = torch.cat([tensor[index], tensor[class_rows[name] :]])
    return result
