"""Keypoints of a COCO file: what its categories say of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from efftasks.structures.errors import UserError
from efftasks.structures.keypoints import KeypointFacts, keypoint_facts

__all__ = ["category_keypoints"]


def category_keypoints(
    path: str | Path, categories: Sequence[Mapping[str, Any]], said: Mapping[str, Any] | None
) -> KeypointFacts | None:
    """The facts of a file's keypoints, or None where neither its categories nor the config have any.

    Args:
        path: the annotation file, for the message.
        categories: those in use. Some may be without keypoints: their objects have none.
        said: what the config states of them, see :func:`keypoint_facts`.

    Raises:
        UserError: two categories, or the config and a category, differ in the number of keypoints.
    """
    with_names = [category for category in categories if category.get("keypoints")]
    for category in with_names:
        _check_names(path, category)
    if not with_names:
        return keypoint_facts(said) if said else None
    first = with_names[0]
    for other in with_names[1:]:
        if len(other["keypoints"]) != len(first["keypoints"]):
            raise UserError(
                f"{path}: category {first['name']!r} has {len(first['keypoints'])} keypoints and category "
                f"{other['name']!r} has {len(other['keypoints'])}, expected as many in every category that has any"
            )
    named = (said or {}).get("names") or first["keypoints"]
    if len(named) != len(first["keypoints"]):
        raise UserError(
            f"{path}: category {first['name']!r} has {len(first['keypoints'])} keypoints, metainfo.keypoints names "
            f"{len(named)}, expected as many"
        )
    # COCO counts the keypoints of a skeleton from 1.
    skeleton = [(a - 1, b - 1) for a, b in first.get("skeleton") or ()]
    return keypoint_facts(said or {}, first["keypoints"], skeleton)


def _check_names(path: str | Path, category: Mapping[str, Any]) -> None:
    names, skeleton = category["keypoints"], category.get("skeleton") or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(
            f"{path}: category {category['name']!r}: 'keypoints' is {str(names)[:60]}, expected a list of names"
        )
    pairs = skeleton if isinstance(skeleton, list) else [skeleton]
    for pair in pairs:
        good = isinstance(pair, (list, tuple)) and len(pair) == 2
        if not good or not all(type(end) is int and 1 <= end <= len(names) for end in pair):
            raise UserError(
                f"{path}: category {category['name']!r}: 'skeleton' has {str(pair)[:60]}, expected pairs of numbers "
                f"from 1 to {len(names)}"
            )
