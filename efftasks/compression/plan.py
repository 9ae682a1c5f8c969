"""The compression plan: the steps applied to a dense network, as plain data in checkpoints, replayed on loading.

In a file, under ``meta.compression_plan``::

    {"version": 1, "dense": "<sha256>", "steps": [
        {"type": "LowRank", "plan": {"ranks": {"neck.merge.conv": 12}}, "config": {"type": "LowRank", "layers": [...]}}
    ]}
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import nn

from efftasks.structures.errors import UserError
from efftasks.structures.features import GUIDE_PREFIX

__all__ = ["KEY", "CompressionPlan", "Step", "architecture_digest", "plain", "plan_of", "undecided"]

KEY = "compression_plan"  # in a checkpoint's meta
VERSION = 1


class Step(NamedTuple):
    """One transform that was applied."""

    type: str  # its name in the registry
    plan: dict[str, Any]  # the result of ``decide``: strings, numbers, lists and dicts
    config: dict[str, Any] | None = None  # the transform in the config, as :func:`plain`; unknown in older plans


@dataclass(frozen=True)
class CompressionPlan:
    """All transforms of a model, in order.

    Attributes:
        dense: :func:`architecture_digest` of the model before the first of them.
        steps: in order.
    """

    dense: str
    steps: tuple[Step, ...]

    def as_data(self) -> dict[str, Any]:
        """The plan as plain data, for checkpoints."""
        return dict(version=VERSION, dense=self.dense, steps=[step._asdict() for step in self.steps])

    @classmethod
    def of_data(cls, data: Any, source: str) -> CompressionPlan:
        """The plan of the data of :meth:`as_data`.

        Raises:
            UserError: the data are invalid; ``source`` and the field are named.
        """
        if not isinstance(data, Mapping) or data.get("version") != VERSION:
            got = data.get("version") if isinstance(data, Mapping) else type(data).__name__
            raise UserError(
                f"{source}: version: got {got!r}, expected a plan of version {VERSION}; a newer efftasks may read it"
            )
        dense, steps = data.get("dense"), data.get("steps")
        if not isinstance(dense, str) or not isinstance(steps, (list, tuple)):
            raise UserError(f"{source}: expected the digest 'dense' and the list 'steps', got {sorted(data)}")
        for i, step in enumerate(steps):
            complete = isinstance(step, Mapping) and isinstance(step.get("type"), str)
            if not complete or not isinstance(step.get("plan"), Mapping):
                raise UserError(f"{source}: steps[{i}]: got {step!r}, expected a dict with 'type' and 'plan'")
            if not isinstance(step.get("config") or {}, Mapping):
                raise UserError(f"{source}: steps[{i}].config: got {step['config']!r}, expected a dict")
        return cls(dense, tuple(Step(step["type"], dict(step["plan"]), step.get("config")) for step in steps))


def plain(value: Any) -> Any:
    """A part of a config as plain data, in which equal parts are equal: lists for tuples, names for classes."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items() if key != "_scope_"}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value.__name__ if isinstance(value, type) else value


def undecided(
    plan: CompressionPlan | None, transforms: Sequence[Mapping[str, Any]], source: Any
) -> Sequence[Mapping[str, Any]]:
    """The transforms of a config that a plan does not have yet.

    A config lists the whole chain. The plan has its first steps, or all of them; a config without transforms takes the
    plan as it is. A step is that of the config if type and arguments are equal; of older plans only the type is known.

    Args:
        plan: of a checkpoint; None for a dense one.
        transforms: the config's ``model_transforms``.
        source: of the plan, for messages.

    Raises:
        UserError: a step of the plan is another one than that of the config, or the config has fewer.
    """
    if plan is None or not transforms:
        return () if plan is not None else transforms
    for i, (step, config) in enumerate(zip(plan.steps, transforms)):
        expected = plain(config)
        kind = str(expected["type"]).rpartition(".")[2]
        arguments = None if step.config is None else {**step.config, "type": kind}
        if step.type != kind or arguments not in (None, {**expected, "type": kind}):
            got = step.type if step.config is None else step.config
            raise UserError(
                f"{source}: step {i + 1} of its compression plan is {got}, but model_transforms has {expected}; list "
                "the steps of the checkpoint first, or remove model_transforms"
            )
    if len(plan.steps) > len(transforms):
        raise UserError(
            f"{source}: its compression plan has {len(plan.steps)} steps, but model_transforms has {len(transforms)}; "
            "list all steps of the checkpoint, or remove model_transforms"
        )
    return transforms[len(plan.steps) :]


def plan_of(checkpoint: Mapping[str, Any], source: Any) -> CompressionPlan | None:
    """The plan in a checkpoint; None if its model is the dense one.

    Args:
        checkpoint: the content of the file.
        source: its path, for messages.

    Raises:
        UserError: the plan is invalid.
    """
    meta = checkpoint.get("meta")
    data = meta.get(KEY) if isinstance(meta, Mapping) else None
    return None if data is None else CompressionPlan.of_data(data, f"{source}: meta.{KEY}")


def architecture_digest(model: nn.Module) -> str:
    """A digest of the names and shapes of a model's weights, without the first dimension of each shape.

    That is the number of classes in prediction layers, which may differ when training starts from a checkpoint. The
    weights of a guide do not count: with a teacher and without, it is the same model.
    """
    state = {name: value for name, value in model.state_dict().items() if not name.startswith(GUIDE_PREFIX)}
    rows = [f"{name} {tuple(value.shape[1:])}" for name, value in sorted(state.items())]
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()
