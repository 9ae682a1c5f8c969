"""The record of the values that linking filled in, kept in the config so that linking can be undone and redone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from mmengine.config import Config, ConfigDict

__all__ = ["ABSENT", "Links", "Place", "unshared_copy", "walk"]

ABSENT = "absent"  # recorded as the value of a key that does not exist
KEY = "linked"  # the top-level key of the record
PAIRS = "in_order"  # key in the record for a dict as a list of (key, value)

# Keys and indices that lead from the config to a value.
Place = tuple[Any, ...]


class _Link(NamedTuple):
    source: str  # the top-level key that the value comes from
    place: Place
    before: Any  # the old value
    value: Any  # the new value


class Links:
    """The places that linking filled, with their old and new values.

    Args:
        cfg: the config; its record is read if it has one.
    """

    def __init__(self, cfg: Config) -> None:
        self._cfg = cfg
        self._links = [
            _Link(group["source"], _parse_place(place), _from_pairs(group["before"]), group["value"])
            for group in cfg.get(KEY) or ()
            for place in group["places"]
        ]

    @property
    def sources(self) -> set[str]:
        """The top-level keys from which at least one place was filled."""
        return {link.source for link in self._links}

    def fill(self, place: Place, value: Any, source: str) -> None:
        """Set the value at a place, and record it."""
        node = self._node(place[:-1])
        before = node[place[-1]] if not isinstance(node, dict) or place[-1] in node else ABSENT
        node[place[-1]] = value
        self._links.append(_Link(source, place, before, unshared_copy(value)))  # places inside it may be filled later

    def remove(self, place: Place, source: str) -> None:
        """Delete the key at a place, and record its value."""
        node = self._node(place[:-1])
        self._links.append(_Link(source, place, node.pop(place[-1]), ABSENT))

    def undo(self, keep: frozenset[str] = frozenset(), sources: frozenset[str] | None = None) -> None:
        """Restore the old values, except where the filled value was changed since.

        Args:
            keep: top-level keys that are not undone.
            sources: of the values that are undone; None for all.
        """
        remaining = []
        for link in reversed(self._links):
            is_other = sources is not None and link.source not in sources
            if is_other or (link.place[0] in keep and len(link.place) == 1):
                remaining.append(link)
                continue
            node = self._node(link.place[:-1])
            if node is None or not _has_value(node, link.place[-1], link.value):
                continue
            if link.before == ABSENT:
                del node[link.place[-1]]
            else:
                node[link.place[-1]] = link.before
        self._links = remaining[::-1]

    def save(self) -> None:
        """Write the record into the config, grouped by value."""
        groups: list[dict[str, Any]] = []
        for link in self._links:
            for group in groups:
                same = group["source"] == link.source and _equal(group["before"], _as_pairs(link.before))
                if same and _equal(group["value"], link.value):
                    group["places"].append("/".join(map(str, link.place)))
                    break
            else:
                places = ["/".join(map(str, link.place))]
                before, value = _as_pairs(link.before), unshared_copy(link.value)
                groups.append(dict(source=link.source, before=before, value=value, places=places))
        self._cfg[KEY] = groups

    def _node(self, place: Place) -> Any:
        """The value at a place; None if it no longer exists."""
        node: Any = self._cfg._cfg_dict  # read each time: merging options replaces the dict
        for key in place:
            if isinstance(node, dict):
                node = node.get(key)
            elif isinstance(node, (list, tuple)):
                node = node[key] if isinstance(key, int) and key < len(node) else None
            else:
                return None
        return node


def walk(node: Any, place: Place = ()) -> Iterator[tuple[Place, dict[str, Any]]]:
    """Every dict of a config with its place, outer dicts first."""
    if isinstance(node, dict):
        yield place, node
        for key in list(node):
            if not (place == () and key == KEY):
                yield from walk(node[key], (*place, key))
    elif isinstance(node, (list, tuple)):
        for i, part in enumerate(node):
            yield from walk(part, (*place, i))


def unshared_copy(node: Any) -> Any:
    """A deep copy in which no dict, list or tuple occurs twice, so that setting a value changes one place only."""
    if isinstance(node, dict):
        copied: Any = type(node)()
        for key, value in node.items():
            copied[key] = unshared_copy(value)
        return copied
    if type(node) in (list, tuple):
        return type(node)(unshared_copy(part) for part in node)
    return node


def _parse_place(text: str) -> Place:
    return tuple(int(part) if part.isdigit() else part for part in text.split("/"))


def _as_pairs(value: Any) -> Any:
    """A dict as a list of (key, value), to keep its order: dumped configs sort the keys of dicts."""
    return {PAIRS: [[key, unshared_copy(part)] for key, part in value.items()]} if isinstance(value, dict) else value


def _from_pairs(value: Any) -> Any:
    pairs = value.get(PAIRS) if isinstance(value, dict) else None
    return value if pairs is None else ConfigDict({key: unshared_copy(part) for key, part in pairs})


def _has_value(node: Any, key: Any, value: Any) -> bool:
    if value == ABSENT:
        return isinstance(node, dict) and key not in node
    try:
        return _equal(node[key], value)
    except (KeyError, IndexError, TypeError):
        return False


def _equal(a: Any, b: Any) -> bool:
    """Whether two values are equal: a list equals a tuple, as in dumped configs, but True does not equal 1."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_equal(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(map(_equal, a, b))
    return type(a) is type(b) and bool(a == b)
