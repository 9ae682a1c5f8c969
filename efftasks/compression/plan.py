"""What was done to a dense network, as plain data: a checkpoint carries it, and it is replayed before the weights.

In a file, under ``meta.compression_plan``::

    {"version": 1, "dense": "<sha256>", "steps": [{"type": "LowRank", "plan": {"ranks": {"neck.merge.conv": 12}}}]}
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import nn

from efftasks.structures.errors import UserError

__all__ = ["KEY", "CompressionPlan", "Step", "architecture_digest", "plan_of"]

KEY = "compression_plan"  # in a checkpoint's meta
VERSION = 1


class Step(NamedTuple):
    """One transform that was applied."""

    type: str  # its name in the registry
    plan: dict[str, Any]  # what it decided: strings, numbers, lists and dicts


@dataclass(frozen=True)
class CompressionPlan:
    """All transforms of a model, in order.

    Attributes:
        dense: :func:`architecture_digest` of the model before the first of them.
        steps: what was decided.
    """

    dense: str
    steps: tuple[Step, ...]

    def as_data(self) -> dict[str, Any]:
        """As checkpoints keep it."""
        return dict(version=VERSION, dense=self.dense, steps=[step._asdict() for step in self.steps])

    @classmethod
    def of_data(cls, data: Any, source: str) -> CompressionPlan:
        """Read what :meth:`as_data` gave.

        Raises:
            UserError: it is something else; ``source`` and the field are named.
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
        return cls(dense, tuple(Step(step["type"], dict(step["plan"])) for step in steps))


def plan_of(checkpoint: Mapping[str, Any], source: Any) -> CompressionPlan | None:
    """The plan in what was read from a checkpoint file; None where its model is as the config says.

    Args:
        checkpoint: the file's content.
        source: its path, for messages.

    Raises:
        UserError: there is one and it cannot be read.
    """
    meta = checkpoint.get("meta")
    data = meta.get(KEY) if isinstance(meta, Mapping) else None
    return None if data is None else CompressionPlan.of_data(data, f"{source}: meta.{KEY}")


def architecture_digest(model: nn.Module) -> str:
    """A digest of the names and shapes of a model's weights, but for the first dimension of each shape.

    That one is the number of classes in prediction layers: a compressed checkpoint may start the training of others.
    """
    rows = [f"{name} {tuple(value.shape[1:])}" for name, value in sorted(model.state_dict().items())]
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()
