"""From the parameter names of a foreign checkpoint to those of this package: ordered rules, and a report."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

__all__ = ["Conversion", "Layout", "Part", "apply_rules", "convert"]


@dataclass(frozen=True)
class Part:
    """A piece of a tensor that is split in the foreign checkpoint; pieces are concatenated in ascending order."""

    key: str
    order: int


@dataclass(frozen=True)
class Layout:
    """The names of one code base.

    Attributes:
        rules: (pattern, replacement), applied in order to every name.
        parts: (pattern, replacement, order) for renamed names that are pieces of a tensor of this package.
        recomputed: patterns of foreign names whose tensors this package computes and does not store.
    """

    rules: Sequence[tuple[str, str]]
    parts: Sequence[tuple[str, str, int]] = ()
    recomputed: Sequence[str] = ()


@dataclass
class Conversion:
    """The converted tensors, with a report.

    Attributes:
        state: name in this package -> tensor.
        mapped: foreign name -> name in this package.
        unused: foreign names that this package does not need.
        unknown: foreign names that no rule maps to a name of this package.
        missing: names of this package that the file lacks.
        mismatched: names whose tensor has another shape or value, with the reason.
    """

    state: dict[str, Tensor] = field(default_factory=dict)
    mapped: dict[str, str] = field(default_factory=dict)
    unused: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    mismatched: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether nothing is unknown, missing or a misfit."""
        return not (self.unknown or self.missing or self.mismatched)

    def summary(self) -> str:
        """The number of tensors of each kind, in words."""
        counts = {"mapped": self.mapped, "unused": self.unused, "unknown": self.unknown, "missing": self.missing}
        counts["misfits"] = self.mismatched
        return ", ".join(f"{len(names)} {kind}" for kind, names in counts.items() if names or kind == "mapped")

    def listing(self) -> str:
        """All tensors, one line for each."""
        lines = [f"mapped   {name} -> {target}" for name, target in self.mapped.items()]
        lines += [f"unused   {name}" for name in self.unused]
        lines += [f"unknown  {name}" for name in self.unknown]
        lines += [f"missing  {name}" for name in self.missing]
        lines += [f"misfit   {name}" for name in self.mismatched]
        return "\n".join(lines)


def apply_rules(name: str, rules: Sequence[tuple[str, str]]) -> str:
    """The name after the application of all rules."""
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def convert(foreign: Mapping[str, Tensor], state: Mapping[str, Tensor], layout: Layout) -> Conversion:
    """Rename and join the tensors of a foreign checkpoint, and report on each.

    Missing counters of batches of batch norms, which no result depends on, are set to 0.

    Args:
        foreign: foreign name -> tensor.
        state: the ``state_dict`` of the model; only names and shapes are used.
        layout: the names of the file.
    """
    result = Conversion()
    pieces: dict[str, dict[int, Tensor]] = {}
    for name, tensor in foreign.items():
        if any(re.search(pattern, name) for pattern in layout.recomputed):
            result.unused.append(name)
            continue
        target = _target(name, state, layout)
        if target is None:
            result.unknown.append(name)
            continue
        same_key = pieces.setdefault(target.key, {})
        if target.order in same_key:
            if torch.equal(same_key[target.order], tensor):
                result.unused.append(name)
            else:
                result.mismatched.append(f"{name}, unlike another tensor that goes to {target.key}")
            continue
        same_key[target.order] = tensor
        result.mapped[name] = target.key
    for key, parts in pieces.items():
        ordered = [parts[order] for order in sorted(parts)]
        joined = ordered[0] if len(ordered) == 1 or ordered[0].dim() == 0 else torch.cat(ordered)
        if joined.shape != state[key].shape:
            result.mismatched.append(f"{key} {tuple(joined.shape)} for {tuple(state[key].shape)}")
        else:
            result.state[key] = joined
    filled = set(pieces)
    for key, tensor in state.items():
        if key in filled:
            continue
        if key.endswith("num_batches_tracked"):
            result.state[key] = torch.zeros_like(tensor, device="cpu")
        else:
            result.missing.append(key)
    return result


def _target(name: str, state: Mapping[str, Tensor], layout: Layout) -> Part | None:
    renamed = apply_rules(name, layout.rules)
    if renamed in state:
        return Part(renamed, 0)
    for pattern, replacement, order in layout.parts:
        key, count = re.subn(pattern, replacement, renamed)
        if count and key in state:
            return Part(key, order)
    return None
