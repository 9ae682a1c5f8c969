"""Choose the parts of an exported data set, split off a validation part, and convert every image."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from efftasks.datasets.coco_convert import Conversion, UnreadableLabel
from efftasks.datasets.convert_source import Item, Part, Source, display_path, part_name
from efftasks.datasets.image_files import check_whole, read_whole_image
from efftasks.datasets.progress import progress
from efftasks.imaging.file_faults import BrokenImageError
from efftasks.imaging.images import decode_image
from efftasks.structures.errors import UserError

__all__ = ["choose_parts", "convert"]


def choose_parts(
    source: Source, only: str | None = None, val_share: float | None = None, seed: int = 0
) -> dict[str, Part]:
    """The parts to write: ``train``, ``val``, and ``test`` if there is one.

    Args:
        source: the data set.
        only: the only part to take; None takes all.
        val_share: share of the training part, or of a data set without parts, that becomes ``val``; 0 makes no ``val``.
        seed: seed of the choice of those images.

    Raises:
        UserError: there is no validation part and no ``val_share``, or both.
    """
    if val_share is not None and not 0 <= val_share < 1:
        raise UserError(f"--val-share: got {val_share:g}, expected 0 (no validation part) to below 1, such as 0.2")
    parts = {name: part for name, part in source.parts.items() if part.items}
    if only is not None:
        chosen = part_name(only) or only
        if chosen not in parts:
            available = ", ".join(filter(None, parts)) or "no parts"
            raise UserError(
                f"{source.root}: has no part {only!r}, it has {available}; leave out --split to take everything"
            )
        return _split(parts[chosen], val_share, seed) if val_share else {chosen: parts[chosen]}
    if "train" not in parts:
        if len(parts) != 1 or set(parts) <= {"val", "test"}:
            available = ", ".join(name or "images in no part" for name in parts) or "no image with annotations"
            reason = source.report.first_reason()
            raise UserError(
                f"{source.root}: has {available}, expected a training part ({reason}); --split takes one alone"
            )
        parts = {"train": next(iter(parts.values()))}
    for name in set(parts) - {"train", "val", "test"}:
        source.report.skip("parts that are none of train, val, test; --split takes one alone", name or "the rest")
    selected: dict[str, Part] = {name: parts[name] for name in ("train", "val", "test") if name in parts}
    if "val" in selected:
        if val_share is not None:
            raise UserError(f"--val-share: {source.root} has a validation part, expected one without; leave it out")
        return selected
    if val_share is None:
        raise UserError(
            f"{source.root}: has no validation part, by which training is judged; --val-share 0.2 sets a fifth of the "
            f"{len(selected['train'].items)} images aside (--seed K: which), --val-share 0 writes the training part "
            "alone"
        )
    return {**selected, **(_split(selected["train"], val_share, seed) if val_share else {})}


def _split(part: Part, val_share: float, seed: int) -> dict[str, Part]:
    """Split a part into ``train`` and ``val``; augmented copies of one image (Roboflow's) stay together."""
    groups: dict[str, list[Item]] = {}
    for item in part.items:
        groups.setdefault(part.name(item).split(".rf.")[0], []).append(item)
    if len(groups) < 2:
        raise UserError(f"--val-share: got {val_share:g} of one image, expected at least two images to divide")
    # Ordered by a hash, so that images do not change their part when others are added.
    order = sorted(groups, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())
    chosen: set[str] = set()
    count, target = 0, val_share * len(part.items)
    for name in order[:-1]:
        if chosen and count + len(groups[name]) / 2 > target:
            break
        chosen.add(name)
        count += len(groups[name])
    train = [item for name, items in groups.items() if name not in chosen for item in items]
    val = [item for name, items in groups.items() if name in chosen for item in items]
    return {"train": Part(part.folder, train), "val": Part(part.folder, val)}


def convert(
    source: Source, parts: dict[str, Part], file_name: Callable[[str, Item], str]
) -> dict[str, tuple[Conversion, list[Item]]]:
    """Read every image and its annotations.

    Args:
        source: the data set.
        parts: the parts to read.
        file_name: gives the file name of an image in the result from the name of its part and its item.

    Returns:
        For each part the conversion and the items of its images. Images whose annotations cannot be read are left out
        and listed in ``source.report``.

    Raises:
        UserError: the training part has no objects left, or most of its images have annotations of another format.
    """
    results = {}
    report = source.report
    for name, part in parts.items():
        result, items = Conversion(source.categories, report), []
        with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
            sizes = pool.map(_size, part.items)
            for item, size in zip(part.items, progress(sizes, len(part.items), f"convert {name}".strip())):
                try:
                    if isinstance(size, str):
                        raise UnreadableLabel(
                            "images that cannot be read", f"{display_path(item.path, source.root)} {size}"
                        )
                    shapes = source.shapes(item, *size)
                    result.add_image(file_name(name, item), *size, shapes)
                except UnreadableLabel as error:
                    report.remove(error.reason, error.where)
                    continue
                items.append(item)
        results[name] = (result, items)
    _check_results(source, parts, results)
    return results


def _size(item: Item) -> tuple[int, int] | str:
    """Width and height of an image, or the reason why it cannot be used."""
    try:
        if item.data is None:
            height, width = read_whole_image(item.path).shape[:2]
            return width, height
        check_whole(item.data)
        height, width = decode_image(item.data).shape[:2]
        return width, height
    except BrokenImageError as error:
        return str(error)


def _check_results(source: Source, parts: dict[str, Part], results: dict[str, tuple[Conversion, list[Item]]]) -> None:
    """Raise an error for a result without objects to train on, and warn if most images are left out."""
    report = source.report
    total = sum(len(part.items) for part in parts.values())
    for reason, remedy in source.refused.items():
        places = report.removed.get(reason, [])
        if 2 * len(places) > total:
            raise UserError(f"{source.root}: {len(places)} of {total} images have {reason} ({places[0]}); {remedy}")
    kept, removed = sum(len(items) for _, items in results.values()), sum(map(len, report.removed.values()))
    if kept < removed:
        report.warn(f"{removed} of {kept + removed} images were taken out")
    for name, (result, _) in results.items():
        if result.images and not result.annotations:
            message = f"none of {len(result.images)} images of {name or 'the set'} shows an object"
            if name in ("train", "") or len(results) == 1:
                raise UserError(f"{source.root}: {message}: {report.first_reason()}")
            report.warn(f"{message}, so that nothing can be scored on it")
    for first in results:
        for second in results:
            shared = {item.path for item in results[first][1]} & {item.path for item in results[second][1]}
            if first < second and shared:
                report.warn(f"{len(shared)} images are in both {first} and {second}: scores on them mean nothing")
