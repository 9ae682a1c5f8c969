"""Metadata of keypoints: names, OKS sigmas, pairs that swap in a horizontal flip, and the skeleton.

Standard library only. Sigmas of COCO's persons: pycocotools' ``Params.setKpParams`` (BSD-2-Clause), with the metric of
Ruggero Ronchi and Perona, arXiv 1707.05388.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from efftasks.structures.errors import UserError

__all__ = ["KeypointMetadata", "keypoint_metadata", "mirrored_names"]

_ARM = {"shoulder": 0.079, "elbow": 0.072, "wrist": 0.062}
_LEG = {"hip": 0.107, "knee": 0.087, "ankle": 0.089}
_FACE = {"eye": 0.025, "ear": 0.035}
# Sigmas of the 17 keypoints of COCO's persons, by name.
_PERSON = {
    "nose": 0.026,
    **{f"{side}_{part}": sigma for part, sigma in {**_FACE, **_ARM, **_LEG}.items() for side in ("left", "right")},
}
DEFAULT_SIGMA = 0.05  # for keypoints without a measured sigma


@dataclass(frozen=True)
class KeypointMetadata:
    """The P keypoints of a data set's objects.

    Attributes:
        names: name of each keypoint.
        sigmas: OKS sigma of each: the spread of annotations, relative to the square root of the object's area.
        flip_pairs: pairs of indices that swap when the image is flipped.
        skeleton: pairs of indices to connect in drawings.
    """

    names: tuple[str, ...]
    sigmas: tuple[float, ...]
    flip_pairs: tuple[tuple[int, int], ...] = ()
    skeleton: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        if not self.names:
            raise UserError("keypoints.names: got none, expected at least one name")
        if len(self.sigmas) != len(self.names) or any(not sigma > 0 for sigma in self.sigmas):
            raise UserError(
                f"keypoints.sigmas: got {self.sigmas}, expected {len(self.names)} numbers above 0, one for each name"
            )
        for field in ("flip_pairs", "skeleton"):
            for pair in getattr(self, field):
                if len(pair) != 2 or not all(0 <= i < len(self.names) for i in pair):
                    raise UserError(f"keypoints.{field}: got {pair}, expected pairs of 0 to {len(self.names) - 1}")
        indices = [i for pair in self.flip_pairs for i in pair]
        if len(set(indices)) != len(indices):
            raise UserError(f"keypoints.flip_pairs: got {self.flip_pairs}, expected each keypoint in one pair at most")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def mirror(self) -> tuple[int, ...]:
        """For each keypoint the index of the one that takes its place in a flipped image."""
        order = list(range(len(self.names)))
        for a, b in self.flip_pairs:
            order[a], order[b] = b, a
        return tuple(order)

    def to_dict(self) -> dict[str, Any]:
        """As plain data, for checkpoints; :func:`keypoint_metadata` reads it."""
        return asdict(self)


def keypoint_metadata(
    config: Mapping[str, Any], names: Sequence[str] = (), skeleton: Sequence = ()
) -> KeypointMetadata:
    """The metadata of a config, completed by that of the data.

    Args:
        config: any of ``names``, ``sigmas`` (one number for all, or one for each), ``flip_pairs`` (of indices or
            names), ``skeleton`` (of indices from 0).
        names: names in the data, used if ``config`` has none.
        skeleton: skeleton in the data, indices from 0.

    Returns:
        The metadata. Default sigmas are those of COCO's persons by name, and 0.05 for other names. Default flip pairs
        are names that differ in ``left`` and ``right`` (or ``l_`` and ``r_``).

    Raises:
        UserError: ``config`` has an unknown key, or its values do not fit together.
    """
    unknown = set(config) - {"names", "sigmas", "flip_pairs", "skeleton"}
    if unknown:
        raise UserError(f"keypoints: got {', '.join(sorted(unknown))}, expected names, sigmas, flip_pairs, skeleton")
    names = tuple(config.get("names") or names)
    sigmas = config.get("sigmas")
    if sigmas is None:
        sigmas = [_PERSON.get(name, DEFAULT_SIGMA) for name in names]
    elif isinstance(sigmas, (int, float)):
        sigmas = [sigmas] * len(names)
    pairs = config.get("flip_pairs")
    pairs = mirrored_names(names) if pairs is None else [tuple(_index(i, names) for i in pair) for pair in pairs]
    edges = config.get("skeleton")
    return KeypointMetadata(
        names=names,
        sigmas=tuple(float(sigma) for sigma in sigmas),
        flip_pairs=tuple((int(a), int(b)) for a, b in pairs),
        skeleton=tuple((int(a), int(b)) for a, b in (skeleton if edges is None else edges)),
    )


def mirrored_names(names: Sequence[str]) -> list[tuple[int, int]]:
    """Pairs of indices of names that differ only in left and right."""
    pairs = []
    for i, name in enumerate(names):
        for left, right in (("left", "right"), ("Left", "Right"), ("l_", "r_")):
            matches = left in name if len(left) > 2 else name.startswith(left)
            other = name.replace(left, right, 1)
            if matches and other in names:
                pairs.append((i, names.index(other)))
                break
    return pairs


def _index(entry: int | str, names: Sequence[str]) -> int:
    if isinstance(entry, str):
        if entry not in names:
            raise UserError(f"keypoints.flip_pairs: got {entry!r}, expected one of {', '.join(names)}")
        return names.index(entry)
    return int(entry)
