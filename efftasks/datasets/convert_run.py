"""From a data set as it was exported to the parts that training takes: choose them, divide one, read every image."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from efftasks.datasets.coco_convert import Conversion, UnreadableLabel
from efftasks.datasets.convert_source import Item, Part, Source, part_name, place
from efftasks.datasets.image_files import BrokenImageError, missing_part, read_whole_image
from efftasks.datasets.progress import progress
from efftasks.imaging.images import decode_image
from efftasks.structures.errors import UserError

__all__ = ["choose_parts", "convert"]


def choose_parts(
    source: Source, only: str | None = None, val_share: float | None = None, seed: int = 0
) -> dict[str, Part]:
    """The parts to write: ``train`` and ``val``, and ``test`` where there is one.

    Args:
        source: the data set.
        only: the one part to take; None takes all.
        val_share: how much of the training part, or of a set that is not divided, becomes ``val``; 0 makes none.
        seed: which images those are.

    Raises:
        UserError: there is no validation part and no share is given, or the other way round.
    """
    if val_share is not None and not 0 <= val_share < 1:
        raise UserError(f"--val-share: got {val_share:g}, expected 0 (no validation part) to below 1, such as 0.2")
    parts = {name: part for name, part in source.parts.items() if part.items}
    if only is not None:
        chosen = part_name(only) or only
        if chosen not in parts:
            has = ", ".join(filter(None, parts)) or "no parts"
            raise UserError(f"{source.root}: has no part {only!r}, it has {has}; leave out --split to take everything")
        return _split(parts[chosen], val_share, seed) if val_share else {chosen: parts[chosen]}
    if "train" not in parts:
        if len(parts) != 1 or set(parts) <= {"val", "test"}:
            has = ", ".join(name or "images in no part" for name in parts) or "no image with annotations"
            reason = source.report.first_reason()
            raise UserError(f"{source.root}: has {has}, expected a training part ({reason}); --split takes one alone")
        parts = {"train": next(iter(parts.values()))}
    for name in set(parts) - {"train", "val", "test"}:
        source.report.skip("parts that are none of train, val, test; --split takes one alone", name or "the rest")
    taken: dict[str, Part] = {name: parts[name] for name in ("train", "val", "test") if name in parts}
    if "val" in taken:
        if val_share is not None:
            raise UserError(f"--val-share: {source.root} has a validation part, expected one without; leave it out")
        return taken
    if val_share is None:
        raise UserError(
            f"{source.root}: has no validation part, by which training is judged; --val-share 0.2 sets a fifth of the "
            f"{len(taken['train'].items)} images aside (--seed K: which), --val-share 0 writes the training part alone"
        )
    return {**taken, **(_split(taken["train"], val_share, seed) if val_share else {})}


def _split(part: Part, share: float, seed: int) -> dict[str, Part]:
    """Training and validation part. Copies of one photograph, which Roboflow makes, stay together."""
    groups: dict[str, list[Item]] = {}
    for item in part.items:
        groups.setdefault(part.name(item).split(".rf.")[0], []).append(item)
    if len(groups) < 2:
        raise UserError(f"--val-share: got {share:g} of one image, expected at least two images to divide")
    # a hash, so that an image stays where it is when others are added
    order = sorted(groups, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())
    chosen: set[str] = set()
    count, target = 0, share * len(part.items)
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
    """Read every image and what is on it.

    Args:
        source: the data set.
        parts: those to read.
        file_name: the name of an image in the result, of its part and item.

    Returns:
        For each part the conversion, and the items of its images. Images whose annotations cannot be read are in
        neither; ``source.report`` has them.

    Raises:
        UserError: nothing is left of the training part, or most of its images have annotations of another kind.
    """
    results = {}
    report = source.report
    for name, part in parts.items():
        result, kept = Conversion(source.categories, report), []
        with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
            sizes = pool.map(_size, part.items)
            for item, size in zip(part.items, progress(sizes, len(part.items), f"convert {name}".strip())):
                try:
                    if isinstance(size, str):
                        raise UnreadableLabel("images that cannot be read", f"{place(item.path, source.root)} {size}")
                    shapes = source.shapes(item, *size)
                    result.add_image(file_name(name, item), *size, shapes)
                except UnreadableLabel as error:
                    report.remove(error.reason, error.where)
                    continue
                kept.append(item)
        results[name] = (result, kept)
    _judge(source, parts, results)
    return results


def _size(item: Item) -> tuple[int, int] | str:
    """Width and height of an image, or why it cannot be used."""
    try:
        if item.data is None:
            height, width = read_whole_image(item.path).shape[:2]
            return width, height
        image = None if missing_part(item.data) else decode_image(item.data)
    except BrokenImageError as error:
        return str(error)
    return "does not decode as an image" if image is None else (image.shape[1], image.shape[0])


def _judge(source: Source, parts: dict[str, Part], results: dict[str, tuple[Conversion, list[Item]]]) -> None:
    """Refuse a result that nothing can be learned from, and warn of one that is mostly gone."""
    report = source.report
    total = sum(len(part.items) for part in parts.values())
    for reason, remedy in source.refused.items():
        places = report.removed.get(reason, [])
        if 2 * len(places) > total:
            raise UserError(f"{source.root}: {len(places)} of {total} images have {reason} ({places[0]}); {remedy}")
    kept, gone = sum(len(items) for _, items in results.values()), sum(map(len, report.removed.values()))
    if kept < gone:
        report.warn(f"{gone} of {kept + gone} images were taken out")
    for name, (result, _) in results.items():
        if result.images and not result.annotations:
            what = f"none of {len(result.images)} images of {name or 'the set'} shows an object"
            if name in ("train", "") or len(results) == 1:
                raise UserError(f"{source.root}: {what}: {report.first_reason()}")
            report.warn(f"{what}, so that nothing can be scored on it")
    for one in results:
        for other in results:
            both = {item.path for item in results[one][1]} & {item.path for item in results[other][1]}
            if one < other and both:
                report.warn(f"{len(both)} images are in both {one} and {other}: scores on them mean nothing")
