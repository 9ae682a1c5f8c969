"""Whole checkpoints of others: which code base wrote them, how many classes they know, and taking other classes.

Pure functions on names and tensors; reading, choosing a config and writing are the caller's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from efftasks.models.published import huggingface
from efftasks.models.published.authors import AUTHORS
from efftasks.models.published.rules import Layout
from efftasks.structures.errors import UserError

__all__ = ["COCO_IDS", "FAMILIES", "class_count", "layout_of", "regression_scale", "take_rows", "without_placeholders"]

FAMILIES = ("dfine", "deim", "deimv2", "rtdetrv2")

# Ids of COCO's 80 categories in order: label i of a model trained on COCO is category COCO_IDS[i].
COCO_IDS = tuple(i for i in range(1, 91) if i not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83))

_HUGGINGFACE = {
    "rtdetrv2": huggingface.RTDETRV2,
    "dfine": huggingface.DFINE,
    "deim": huggingface.DFINE,
    "deimv2": huggingface.DEIMV2,
}
_CLASS_ROWS = re.compile(r"^head\.(?:selection\.score_head|decoder\.score_heads\.\d+|denoising\.embedding)\.")


def layout_of(foreign: Mapping[str, Tensor], family: str) -> Layout:
    """How the tensors of a file are named.

    Raises:
        UserError: neither the authors' names nor those of transformers.
    """
    if "decoder.enc_score_head.bias" in foreign:
        return AUTHORS
    if "model.enc_score_head.bias" in foreign:
        return _HUGGINGFACE[family]
    first = ", ".join(list(foreign)[:3])
    raise UserError(
        f"the file has neither the names of the authors' checkpoints nor of transformers' (it begins with {first}); "
        f"expected a checkpoint of one of {', '.join(FAMILIES)}"
    )


def class_count(foreign: Mapping[str, Tensor]) -> int:
    """How many classes a file's model knows."""
    return next(len(tensor) for name, tensor in foreign.items() if name.endswith("enc_score_head.bias"))


def regression_scale(foreign: Mapping[str, Tensor]) -> float | None:
    """The scale of the sides' distributions, where the file says it."""
    return next((float(tensor) for name, tensor in foreign.items() if name.endswith("decoder.reg_scale")), None)


def without_placeholders(foreign: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """A file's tensors without those of a projection that is exactly the identity, and the names left out.

    transformers has a linear layer and a layer norm before the query selection of DEIMv2 which the authors' HGNetV2
    models do not have; its converted checkpoints carry the identity and a norm of ones there.
    """
    names = [f"model.enc_output.{part}.{what}" for part in (0, 1) for what in ("weight", "bias")]
    if not all(name in foreign for name in names):
        return dict(foreign), []
    linear, shift, scale, offset = (foreign[name].float() for name in names)
    width = len(shift)
    wanted = (torch.eye(width), torch.zeros(width), torch.ones(width), torch.zeros(width))
    if not all(torch.equal(a.cpu(), b) for a, b in zip((linear, shift, scale, offset), wanted)):
        return dict(foreign), []
    return {name: tensor for name, tensor in foreign.items() if name not in names}, names


def take_rows(state: Mapping[str, Tensor], rows: Sequence[int]) -> dict[str, Tensor]:
    """The tensors of a model for other classes: label i becomes what label ``rows[i]`` was.

    The embedding of denoising queries keeps its last row, which stands for padding.
    """
    index = torch.as_tensor(rows, dtype=torch.long)
    result = dict(state)
    for name, tensor in state.items():
        if _CLASS_ROWS.match(name):
            taken = tensor[index]
            result[name] = torch.cat([taken, tensor[-1:]]) if ".denoising." in name else taken
    return result
