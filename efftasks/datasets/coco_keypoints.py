"""Keypoints of a COCO file: what its categories say of them, and the rows of an annotation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from efftasks.structures.errors import UserError
from efftasks.structures.keypoints import KeypointFacts, keypoint_facts

__all__ = ["category_keypoints", "keypoint_rows"]


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


def keypoint_rows(path: str | Path, annotation: Mapping[str, Any], count: int) -> list[list[float]] | None:
    """The keypoints of an annotation as ``count`` rows of x, y, visibility; None where it has none.

    Raises:
        UserError: the list has another length than 3 ``count``.
    """
    flat = annotation.get("keypoints")
    if not flat:
        return None
    if len(flat) != 3 * count:
        raise UserError(
            f"{path}: annotation {annotation.get('id')}: 'keypoints' has {len(flat)} numbers, expected {3 * count}, "
            f"three for each of {count} keypoints"
        )
    return [list(flat[i : i + 3]) for i in range(0, len(flat), 3)]
