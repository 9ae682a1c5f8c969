"""The keypoint metadata of a COCO file, from its categories and the config."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from efftasks.structures.errors import UserError
from efftasks.structures.keypoints import KeypointMetadata, keypoint_metadata

__all__ = ["category_keypoints"]


def category_keypoints(
    path: str | Path, categories: Sequence[Mapping[str, Any]], config: Mapping[str, Any] | None
) -> KeypointMetadata | None:
    """Names, sigmas, mirror pairs and skeleton of a file's keypoints; None if neither categories nor config have any.

    Args:
        path: the annotation file, for messages.
        categories: the categories in use; those without keypoints have objects without keypoints.
        config: ``metainfo.keypoints`` of the config, see :func:`keypoint_metadata`.

    Raises:
        UserError: two categories, or the config and a category, differ in the number of keypoints.
    """
    annotated = [category for category in categories if category.get("keypoints")]
    for category in annotated:
        _check_names(path, category)
    if not annotated:
        return keypoint_metadata(config) if config else None
    first = annotated[0]
    for other in annotated[1:]:
        if len(other["keypoints"]) != len(first["keypoints"]):
            raise UserError(
                f"{path}: category {first['name']!r} has {len(first['keypoints'])} keypoints and category "
                f"{other['name']!r} has {len(other['keypoints'])}, expected as many in every category that has any"
            )
    names = (config or {}).get("names") or first["keypoints"]
    if len(names) != len(first["keypoints"]):
        raise UserError(
            f"{path}: category {first['name']!r} has {len(first['keypoints'])} keypoints, metainfo.keypoints names "
            f"{len(names)}, expected as many"
        )
    # COCO counts the keypoints of a skeleton from 1.
    skeleton = [(a - 1, b - 1) for a, b in first.get("skeleton") or ()]
    return keypoint_metadata(config or {}, first["keypoints"], skeleton)


def _check_names(path: str | Path, category: Mapping[str, Any]) -> None:
    names, skeleton = category["keypoints"], category.get("skeleton") or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(
            f"{path}: category {category['name']!r}: 'keypoints' is {str(names)[:60]}, expected a list of names"
        )
    pairs = skeleton if isinstance(skeleton, list) else [skeleton]
    for pair in pairs:
        valid = isinstance(pair, (list, tuple)) and len(pair) == 2
        if not valid or not all(type(end) is int and 1 <= end <= len(names) for end in pair):
            raise UserError(
                f"{path}: category {category['name']!r}: 'skeleton' has {str(pair)[:60]}, expected pairs of numbers "
                f"from 1 to {len(names)}"
            )
