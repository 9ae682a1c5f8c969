"""From the parameter names of a foreign checkpoint to those here: ordered rules, and an account of every tensor."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

__all__ = ["Conversion", "Layout", "Part", "apply_rules", "convert"]


@dataclass(frozen=True)
class Part:
    """A piece of a tensor that is in several there and in one here: pieces are concatenated by rising order."""

    key: str
    order: int


@dataclass(frozen=True)
class Layout:
    """How one code base names things.

    Attributes:
        rules: (pattern, replacement) in order; each is applied once to every name, with the result of the one before.
        parts: (pattern, replacement, order), tried on the renamed names: pieces of one tensor here.
        recomputed: patterns, on foreign names, of tensors that are made here when needed and have no place.
    """

    rules: Sequence[tuple[str, str]]
    parts: Sequence[tuple[str, str, int]] = ()
    recomputed: Sequence[str] = ()


@dataclass
class Conversion:
    """The converted tensors, and what became of each.

    Attributes:
        state: name here -> tensor.
        mapped: name there -> name here.
        unused: names there that are known to have no place here.
        unknown: names there that no rule leads to a place here.
        missing: names here that the file does not fill.
        mismatched: names whose tensor does not fit its place, and why.
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
        """Counts."""
        counts = {"mapped": self.mapped, "unused": self.unused, "unknown": self.unknown, "missing": self.missing}
        counts["misfits"] = self.mismatched
        return ", ".join(f"{len(names)} {what}" for what, names in counts.items() if names or what == "mapped")

    def listing(self) -> str:
        """Every tensor, a line each."""
        lines = [f"mapped   {there} -> {here}" for there, here in self.mapped.items()]
        lines += [f"unused   {name}" for name in self.unused]
        lines += [f"unknown  {name}" for name in self.unknown]
        lines += [f"missing  {name}" for name in self.missing]
        lines += [f"misfit   {name}" for name in self.mismatched]
        return "\n".join(lines)


def apply_rules(name: str, rules: Sequence[tuple[str, str]]) -> str:
    """The name after all rules."""
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def convert(foreign: Mapping[str, Tensor], own: Mapping[str, Tensor], layout: Layout) -> Conversion:
    """Rename, join and account for the tensors of a foreign checkpoint.

    Batch norms' counters of batches, which no result depends on, are filled in where the file has none.

    Args:
        foreign: name there -> tensor.
        own: the ``state_dict`` of the model to fill; only names and shapes are used.
        layout: how the file names things.
    """
    result = Conversion()
    pieces: dict[str, dict[int, Tensor]] = {}
    for name, tensor in foreign.items():
        if any(re.search(pattern, name) for pattern in layout.recomputed):
            result.unused.append(name)
            continue
        target = _target(name, own, layout)
        if target is None:
            result.unknown.append(name)
            continue
        there = pieces.setdefault(target.key, {})
        if target.order in there:
            if torch.equal(there[target.order], tensor):
                result.unused.append(name)
            else:
                result.mismatched.append(f"{name}, unlike another tensor that goes to {target.key}")
            continue
        there[target.order] = tensor
        result.mapped[name] = target.key
    for key, parts in pieces.items():
        ordered = [parts[order] for order in sorted(parts)]
        joined = ordered[0] if len(ordered) == 1 or ordered[0].dim() == 0 else torch.cat(ordered)
        if joined.shape != own[key].shape:
            result.mismatched.append(f"{key} {tuple(joined.shape)} for {tuple(own[key].shape)}")
        else:
            result.state[key] = joined
    filled = set(pieces)
    for key, tensor in own.items():
        if key in filled:
            continue
        if key.endswith("num_batches_tracked"):
            result.state[key] = torch.zeros_like(tensor, device="cpu")
        else:
            result.missing.append(key)
    return result


def _target(name: str, own: Mapping[str, Tensor], layout: Layout) -> Part | None:
    renamed = apply_rules(name, layout.rules)
    if renamed in own:
        return Part(renamed, 0)
    for pattern, replacement, order in layout.parts:
        key, count = re.subn(pattern, replacement, renamed)
        if count and key in own:
            return Part(key, order)
    return None
