"""Which checkpoints training may resume from or start from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from efftasks.checkpoints.files import MatchReport, compare
from efftasks.structures.errors import UserError
from efftasks.structures.features import EXIT_MODULE

__all__ = ["check_resumable", "fitting_weights"]

_NEEDED_TO_RESUME = ("meta", "state_dict", "message_hub", "optimizer")


def fitting_weights(
    model: nn.Module, weights: Mapping[str, Tensor], name: str, start: bool
) -> tuple[dict[str, Tensor], MatchReport]:
    """A complete state dict of a model: the weights of a file where they match, else those of the model.

    To resume, everything must match. To start from a file, each of its tensors must be in the model. Two differences
    are then allowed, and reported: tensors with another number of rows are not loaded (prediction layers for another
    number of classes), and submodules that the file does not have keep their initial weights (a mask branch added to a
    detector). The weights of a guide, and those of the gate of an early exit, may be in either alone. Another width of
    the network changes other dimensions than rows, and is refused.

    Args:
        model: is not changed.
        weights: name -> tensor.
        name: of the file, for the message.
        start: to start from the weights, not to resume.

    Raises:
        UserError: the weights are of another architecture.
    """
    report = compare(model, weights)
    if start:
        report = report.without_guide().tolerating(f"{EXIT_MODULE}.gate.")
    rows_may_differ = start and _differ_in_rows_only(model, weights)
    may_be_missing = start and _are_new_submodules(report.missing, weights)
    if (report.missing and not may_be_missing) or report.unexpected or (report.mismatched and not rows_may_differ):
        raise UserError(f"{name} is of another architecture than the config's model: {report.summary()}")
    return {**model.state_dict(), **{key: weights[key] for key in report.matched}}, report


def check_resumable(checkpoint: Mapping[str, Any], name: str) -> None:
    """Refuse a checkpoint that lacks what resuming needs.

    Raises:
        UserError: a part is missing; the message names it.
    """
    missing = [part for part in _NEEDED_TO_RESUME if not isinstance(checkpoint.get(part), Mapping)]
    missing += [f"meta.{key}" for key in ("epoch", "iter") if "meta" not in missing and key not in checkpoint["meta"]]
    if missing:
        raise UserError(
            f"{name}: training cannot be resumed from it, it has no {', '.join(missing)}; expected an epoch_N.pth of a "
            "work dir (to start anew from its weights, set load_from)"
        )


def _differ_in_rows_only(module: nn.Module, weights: Mapping[str, Tensor]) -> bool:
    expected = module.state_dict()
    return all(expected[key].shape[1:] == weights[key].shape[1:] for key in expected if key in weights)


def _are_new_submodules(missing: Sequence[str], weights: Mapping[str, Tensor]) -> bool:
    """Whether all missing tensors belong to submodules of which the weights have nothing.

    Only an early exit, and submodules of a backbone, neck or head count: a file without any weights of one of the
    latter is not of this model.
    """
    prefixes = {name.rsplit(".", depth)[0] for name in weights for depth in range(1, name.count(".") + 1)}

    def is_new(name: str) -> bool:
        parts = name.split(".")
        new_depths = [n for n in range(1, len(parts)) if ".".join(parts[:n]) not in prefixes]
        return bool(new_depths) and (min(new_depths) >= 2 or parts[0] == EXIT_MODULE)

    return all(is_new(name) for name in missing)
