"""Which weights a training may resume from or start from, and which it refuses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from efftasks.checkpoints.files import MatchReport, compare
from efftasks.structures.errors import UserError

__all__ = ["check_resumable", "fitting_weights"]

_NEEDED_TO_RESUME = ("meta", "state_dict", "message_hub", "optimizer")


def fitting_weights(
    model: nn.Module, weights: Mapping[str, Tensor], name: str, start: bool
) -> tuple[dict[str, Tensor], MatchReport]:
    """Weights of all of the model's parts: those of a file, and the model's own where the file's do not fit.

    To resume, everything must match. To start from them, every tensor of the file must have its place, and those with
    another number of rows are left out and named: prediction layers for another number of classes. Whole parts that
    the file does not have start anew, and are named: masks of a head that was a detector's. Another width of the
    network also changes other dimensions, and is refused.

    Args:
        model: it is not changed.
        weights: name -> tensor.
        name: of the file, for the message.
        start: to start from them, not to resume.

    Raises:
        UserError: they are of another architecture.
    """
    report = compare(model, weights)
    tolerated = start and _differ_in_rows_only(model, weights)
    new = start and _are_of_new_parts(report.missing, weights)
    if (report.missing and not new) or report.unexpected or (report.mismatched and not tolerated):
        raise UserError(f"{name} is of another architecture than the config's model: {report.summary()}")
    return {**model.state_dict(), **{key: weights[key] for key in report.matched}}, report


def check_resumable(checkpoint: Mapping[str, Any], name: str) -> None:
    """Refuse a checkpoint that lacks what resuming needs.

    Raises:
        UserError: it names what is absent.
    """
    absent = [part for part in _NEEDED_TO_RESUME if not isinstance(checkpoint.get(part), Mapping)]
    absent += [f"meta.{key}" for key in ("epoch", "iter") if "meta" not in absent and key not in checkpoint["meta"]]
    if absent:
        raise UserError(
            f"{name}: training cannot be resumed from it, it has no {', '.join(absent)}; expected an epoch_N.pth of a "
            "work dir (to start anew from its weights, set load_from)"
        )


def _differ_in_rows_only(module: nn.Module, weights: Mapping[str, Tensor]) -> bool:
    own = module.state_dict()
    return all(own[key].shape[1:] == weights[key].shape[1:] for key in own if key in weights)


def _are_of_new_parts(missing: Sequence[str], weights: Mapping[str, Tensor]) -> bool:
    """Whether missing tensors belong to whole parts, inside of what the model consists of, that the weights lack.

    A backbone, neck or head that is missing as a whole is no new part: nothing of the file would say so.
    """
    known = {name.rsplit(".", depth)[0] for name in weights for depth in range(1, name.count(".") + 1)}

    def is_new(name: str) -> bool:
        parts = name.split(".")
        absent = [n for n in range(1, len(parts)) if ".".join(parts[:n]) not in known]
        return bool(absent) and min(absent) >= 2

    return all(is_new(name) for name in missing)
