"""What linking has filled in, kept in the config itself, so that it can be taken back and filled in anew."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from mmengine.config import Config, ConfigDict

__all__ = ["ABSENT", "Links", "Place", "fresh", "walk"]

ABSENT = "absent"  # what is recorded where the key did not exist
KEY = "linked"  # the top-level key of the record
PAIRS = "in_order"  # of the record: the keys and values of a dict

# Keys and indices that lead from the config to a value.
Place = tuple[Any, ...]


class _Link(NamedTuple):
    source: str  # the top-level key whose value it is
    place: Place
    before: Any
    value: Any


class Links:
    """The places that linking filled, with what was there before.

    Args:
        cfg: the config; its record, if it has one, is taken up.
    """

    def __init__(self, cfg: Config) -> None:
        self._cfg = cfg
        self._links = [
            _Link(group["source"], _place(place), _unpaired(group["before"]), group["value"])
            for group in cfg.get(KEY) or ()
            for place in group["places"]
        ]

    @property
    def sources(self) -> set[str]:
        """The top-level keys that some place took."""
        return {link.source for link in self._links}

    def fill(self, place: Place, value: Any, source: str) -> None:
        """Set the value at a place, and remember it."""
        node = self._node(place[:-1])
        before = node[place[-1]] if not isinstance(node, dict) or place[-1] in node else ABSENT
        node[place[-1]] = value
        self._links.append(_Link(source, place, before, fresh(value)))  # others may fill places inside of it

    def remove(self, place: Place, source: str) -> None:
        """Take a key away, and remember what it had."""
        node = self._node(place[:-1])
        self._links.append(_Link(source, place, node.pop(place[-1]), ABSENT))

    def take_back(self, keep: frozenset[str] = frozenset()) -> None:
        """Restore what was there before, where the value is still the one that was filled in.

        Args:
            keep: top-level keys that stay, with their record.
        """
        stay = []
        for link in reversed(self._links):
            if link.place[0] in keep and len(link.place) == 1:
                stay.append(link)
                continue
            node = self._node(link.place[:-1])
            if node is None or not _holds(node, link.place[-1], link.value):
                continue
            if link.before == ABSENT:
                del node[link.place[-1]]
            else:
                node[link.place[-1]] = link.before
        self._links = stay[::-1]

    def save(self) -> None:
        """Write the record into the config, grouped by value."""
        groups: list[dict[str, Any]] = []
        for link in self._links:
            for group in groups:
                same = group["source"] == link.source and _alike(group["before"], _paired(link.before))
                if same and _alike(group["value"], link.value):
                    group["places"].append("/".join(map(str, link.place)))
                    break
            else:
                places = ["/".join(map(str, link.place))]
                before, value = _paired(link.before), fresh(link.value)
                groups.append(dict(source=link.source, before=before, value=value, places=places))
        self._cfg[KEY] = groups

    def _node(self, place: Place) -> Any:
        """What is at a place; None where it does not exist any more."""
        node: Any = self._cfg._cfg_dict  # merging options puts another one in its place
        for key in place:
            if isinstance(node, dict):
                node = node.get(key)
            elif isinstance(node, (list, tuple)):
                node = node[key] if isinstance(key, int) and key < len(node) else None
            else:
                return None
        return node


def walk(node: Any, place: Place = ()) -> Iterator[tuple[Place, dict[str, Any]]]:
    """Every dict of a config, outer ones first, with its place."""
    if isinstance(node, dict):
        yield place, node
        for key in list(node):
            if not (place == () and key == KEY):
                yield from walk(node[key], (*place, key))
    elif isinstance(node, (list, tuple)):
        for i, part in enumerate(node):
            yield from walk(part, (*place, i))


def fresh(node: Any) -> Any:
    """A copy of dicts, lists and tuples in which no two places share one: setting one of them sets no other."""
    if isinstance(node, dict):
        copied: Any = type(node)()
        for key, value in node.items():
            copied[key] = fresh(value)
        return copied
    if type(node) in (list, tuple):
        return type(node)(fresh(part) for part in node)
    return node


def _place(text: str) -> Place:
    return tuple(int(part) if part.isdigit() else part for part in text.split("/"))


def _paired(value: Any) -> Any:
    """A dict with its keys in order, which a dumped one has not: it is sorted by name."""
    return {PAIRS: [[key, fresh(part)] for key, part in value.items()]} if isinstance(value, dict) else value


def _unpaired(value: Any) -> Any:
    pairs = value.get(PAIRS) if isinstance(value, dict) else None
    return value if pairs is None else ConfigDict({key: fresh(part) for key, part in pairs})


def _holds(node: Any, key: Any, value: Any) -> bool:
    if value == ABSENT:
        return isinstance(node, dict) and key not in node
    try:
        return _alike(node[key], value)
    except (KeyError, IndexError, TypeError):
        return False


def _alike(one: Any, other: Any) -> bool:
    """Whether two values are equal; a dumped config may have a list for a tuple, and True is not 1."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_alike(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(_alike, one, other))
    return type(one) is type(other) and bool(one == other)
