"""Labels of channels, in classes of those that are kept or removed together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

__all__ = ["Labels"]


class Labels:
    """Disjoint sets (union-find) of channel labels. A set may be locked, with a reason: its channels stay."""

    def __init__(self) -> None:
        self._parents: list[int] = []
        self._reasons: dict[int, str] = {}  # of locked sets, by their representative

    def new(self, count: int) -> tuple[int, ...]:
        """Labels that are not used yet, each in a set of its own."""
        first = len(self._parents)
        self._parents.extend(range(first, first + count))
        return tuple(range(first, first + count))

    def find(self, label: int) -> int:
        """The representative of a label's set."""
        root = label
        while self._parents[root] != root:
            root = self._parents[root]
        while self._parents[label] != root:
            self._parents[label], label = root, self._parents[label]
        return root

    def union(self, one: int, other: int) -> None:
        """Merge the sets of two labels; the result is locked if one of them is."""
        a, b = self.find(one), self.find(other)
        if a == b:
            return
        self._parents[b] = a
        reason = self._reasons.pop(b, None)
        if reason is not None:
            self._reasons.setdefault(a, reason)

    def tie(self, one: Sequence[int], other: Sequence[int]) -> None:
        """Merge the sets of two sequences pairwise."""
        for a, b in zip(one, other, strict=True):
            self.union(a, b)

    def lock(self, labels: Iterable[int], reason: str) -> None:
        """Lock the sets of labels; the first reason of a set stays."""
        for label in labels:
            self._reasons.setdefault(self.find(label), reason)

    def reason(self, label: int) -> str | None:
        """Why a label's set is locked; None if it is not."""
        return self._reasons.get(self.find(label))
