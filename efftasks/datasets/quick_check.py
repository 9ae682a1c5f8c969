"""A quick look at a COCO file before the first step: what would make a training or a score wrong, or nothing.

:func:`look` reads the file once and counts; :func:`judge` says what the counts mean for a task. ``efftasks dataset
check`` reads every picture and names every fault.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from efftasks.annotations.coco import (
    annotation_name,
    box_of,
    check_rle_size,
    file_name_of,
    image_size_of,
    is_crowd,
    keypoints_of,
    object_box,
    read_coco,
    rle_runs,
    segmentation_of,
    without_size_warning,
)
from efftasks.datasets.coco import match_classes
from efftasks.datasets.coco_keypoints import category_keypoints
from efftasks.datasets.findings import Finding
from efftasks.datasets.image_files import image_size
from efftasks.datasets.pixel_depth import quick_check_range
from efftasks.imaging.images import UnreadableImage, read_pixels
from efftasks.structures.errors import UserError
from efftasks.structures.pixel_range import PixelRange

__all__ = ["CocoLook", "CocoNeeds", "judge", "look", "quick_check_coco"]

_FILES = 2000  # images whose files are looked for, spread evenly
_HEADERS = 32  # pictures whose size is read
_DECODED = 6  # pictures that are decoded
_DECODED_RUNS = 4000  # annotations whose run lengths are decoded
_SLACK = 1.0  # pixels that a box may reach outside


@dataclass(frozen=True)
class CocoNeeds:
    """What a task takes from a file.

    Args:
        training: the file is trained on; otherwise it is scored.
        masks: objects need masks; where none has any, that is an error.
        keypoints: likewise.
    """

    training: bool
    masks: bool = False
    keypoints: bool = False


@dataclass
class CocoLook:
    """What is in a file, as plain data. Annotations count where their image is in the file and their category a class.

    ``broken`` is a sentence on what stops whoever reads it; then the rest is not counted. Of places the first is named.
    """

    broken: str | None = None
    images: int = 0
    annotations: int = 0  # all of the file
    objects: int = 0  # with a box of some size, no crowds
    crowds: int = 0
    masks: int = 0  # objects with a mask
    keypoints: int = 0  # objects with a labelled keypoint
    without_size: int = 0
    boxless: int = 0  # objects whose box is that of their mask or keypoints
    outside: int = 0  # boxes that reach outside their image
    outside_all: int = 0  # boxes that lie outside their image
    fractions: int = 0  # boxes within 0..1, as of files with shares of the image
    unknown_images: int = 0
    unknown_categories: int = 0
    other_categories: dict[str, int] = field(default_factory=dict)  # not among the classes: name -> annotations
    unused_classes: list[str] = field(default_factory=list)
    same_files: int = 0  # images that share their file with another
    sizeless_images: int = 0
    files: int = 0  # looked for
    missing: list[str] = field(default_factory=list)
    headers: int = 0  # sizes looked at
    wrong_sizes: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    label_maps: int = 0  # looked for
    missing_label_maps: list[str] = field(default_factory=list)
    depth_errors: list[str] = field(default_factory=list)  # of pictures with more than 8 bits
    depth_warnings: list[str] = field(default_factory=list)


def quick_check_coco(
    path: str | Path,
    images: str | Path,
    needs: CocoNeeds,
    classes: Sequence[str] | None = None,
    keypoints: dict[str, Any] | None = None,
) -> list[Finding]:
    """What a task would stumble over in a COCO file, and what it would go wrong on in silence.

    Args:
        path: the annotation file.
        images: the folder that ``file_name`` is relative to.
        needs: what the task takes from the file.
        classes: the names of the classes, in the order of their labels; None takes the file's.
        keypoints: what a config states of keypoints.
    """
    return judge(path, images, look(path, images, needs, classes, keypoints), needs)


def look(
    path: str | Path,
    images: str | Path,
    needs: CocoNeeds,
    classes: Sequence[str] | None = None,
    keypoints: dict[str, Any] | None = None,
    label_map: Callable[[str], Path] | None = None,
    pixel_range: PixelRange | None = None,
) -> CocoLook:
    """Read and count; see :func:`quick_check_coco`.

    ``label_map`` is where that of a file name is, ``pixel_range`` what a config states of pictures of more than 8 bits.
    """
    found = CocoLook()
    try:
        data = read_coco(path)
        ids = match_classes(path, data["categories"], classes)
        points = None
        if needs.keypoints:
            used = [c for c in data["categories"] if c["name"] in ids]
            facts = category_keypoints(path, used, keypoints)
            points = len(facts) if facts is not None else None
        names = _file_names(path, data["images"])
        _look_at_annotations(path, data, ids, needs.masks, points, found)
    except UserError as error:
        found.broken = str(error)
        return found
    found.images = len(data["images"])
    found.same_files = len(names) - len(set(names))
    found.sizeless_images = sum(image_size_of(image) is None for image in data["images"])
    _look_at_files(Path(images), data["images"], found, pixel_range)
    if label_map is not None:
        maps = [label_map(name) for name in _spread(names, _FILES)]
        found.label_maps = len(maps)
        found.missing_label_maps = [str(file) for file in maps if not file.is_file()]
    return found


def _file_names(path: str | Path, images: Sequence[dict]) -> list[str]:
    try:
        return [file_name_of(image) for image in images]
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error


def _look_at_annotations(
    path: str | Path, data: dict, ids: dict[str, int], masks: bool, points: int | None, found: CocoLook
) -> None:
    sizes = {image["id"]: image_size_of(image) for image in data["images"]}
    names = {category["id"]: category["name"] for category in data["categories"]}
    classes = {number: name for name, number in ids.items()}
    others: Counter[str] = Counter()
    used = set()
    found.annotations = len(data["annotations"])
    step = -(-found.annotations // _DECODED_RUNS)
    for number, annotation in enumerate(data["annotations"]):
        category = annotation["category_id"]
        if annotation["image_id"] not in sizes:
            found.unknown_images += 1
        elif category not in names:
            found.unknown_categories += 1
        elif category not in classes:
            others[names[category]] += 1
        else:
            try:
                usable = _look_at_object(annotation, sizes[annotation["image_id"]], masks, points, found)
                if masks and number % step == 0:
                    _decode_runs(annotation)
            except ValueError as error:
                raise UserError(f"{path}: {annotation_name(annotation)}: {error}") from error
            if usable:
                used.add(category)
    found.other_categories = dict(others)
    found.unused_classes = [name for name, number in ids.items() if number not in used]


def _look_at_object(
    annotation: dict, size: tuple[int, int] | None, masks: bool, points: int | None, found: CocoLook
) -> bool:
    """Count one annotation of a class; returns whether it is an object."""
    box = object_box(annotation, size)
    crowd = is_crowd(annotation)
    if box is None:
        found.without_size += 1
        return False
    if box_of(annotation) is None:
        found.boxless += 1
    if size is not None:
        height, width = size
        left, top, right, bottom = box
        found.outside += max(-left, -top, right - width, bottom - height) > _SLACK
        found.outside_all += right <= 0 or bottom <= 0 or left >= width or top >= height
    found.fractions += min(box) >= 0 and max(box) <= 1
    if crowd:
        found.crowds += 1
        return False
    found.objects += 1
    if masks:
        outline = segmentation_of(annotation)
        found.masks += outline is not None
        if isinstance(outline, dict):
            check_rle_size(outline, size)
    if points is not None:
        rows = keypoints_of(annotation, points)
        found.keypoints += rows is not None and any(row[2] > 0 for row in rows)
    return True


def _decode_runs(annotation: dict) -> None:
    outline = segmentation_of(annotation)
    if isinstance(outline, dict):
        rle_runs(outline)


def _look_at_files(folder: Path, images: Sequence[dict], found: CocoLook, pixel_range: PixelRange | None) -> None:
    chosen = _spread(images, _FILES)
    found.files = len(chosen)
    there = []
    for image in chosen:
        if _is_file(folder / image["file_name"]):
            there.append(image)
        else:
            found.missing.append(image["file_name"])
    for finding in quick_check_range([folder / image["file_name"] for image in there], pixel_range):
        (found.depth_errors if finding.level == "error" else found.depth_warnings).append(finding.message)
    for number, image in enumerate(_spread(there, _HEADERS)):
        path = folder / image["file_name"]
        try:
            if number % (_HEADERS // _DECODED) == 0:
                height, width = read_pixels(path).shape[:2]
            else:
                height, width = image_size(path)
        except UnreadableImage:
            found.unreadable.append(image["file_name"])
            continue
        stated = image_size_of(image)
        found.headers += 1
        if stated is not None and stated != (height, width):
            found.wrong_sizes.append(
                f"{image['file_name']} is {width} x {height}, the file says {stated[1]} x {stated[0]}"
            )


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # such as a name that is too long
        return False


def _spread(values: Sequence[Any], number: int) -> list[Any]:
    """At most so many, evenly."""
    if len(values) <= number:
        return list(values)
    return [values[i * len(values) // number] for i in range(number)]


def judge(path: str | Path, images: str | Path, found: CocoLook, needs: CocoNeeds) -> list[Finding]:
    """What the counts of a file mean for a task: errors first."""
    if found.broken is not None:
        return [Finding("error", found.broken)]
    errors = [Finding("error", f"{path}: {what}") for what in _errors(images, found, needs)]
    errors += [Finding("error", what) for what in found.depth_errors]
    warnings = [Finding("warning", what) for what in (*_warnings(path, found, needs), *found.depth_warnings)]
    return errors + warnings


def _errors(images: str | Path, found: CocoLook, needs: CocoNeeds) -> Iterator[str]:
    if len(found.missing) * 2 > found.files:
        yield (
            f"{len(found.missing)} of {found.files} image files are not in {images} (such as {found.missing[0]}), is "
            "that the folder which 'file_name' is relative to?"
        )
    if len(found.wrong_sizes) * 2 > found.headers:
        yield (
            f"{len(found.wrong_sizes)} of {found.headers} pictures have another size than the file says "
            f"({found.wrong_sizes[0]}), so that boxes do not fit them"
        )
    if found.label_maps and len(found.missing_label_maps) * 2 > found.label_maps:
        yield (
            f"{len(found.missing_label_maps)} of {found.label_maps} label maps are missing (such as "
            f"{found.missing_label_maps[0]}), does seg_map name their place?"
        )
    if found.objects == 0 and (needs.training or found.annotations > found.crowds):
        yield (
            f"none of {found.annotations} annotations is an object of an image of the file and of one of the classes "
            f"({_why_none(found)}), expected at least one"
        )
        return
    if found.objects and found.fractions == found.objects + found.crowds:
        yield "all boxes lie within 0 and 1, as shares of the image do; expected x, y, width, height in pixels"
    for needed, number, what in (
        (needs.masks, found.masks, "a mask in 'segmentation'"),
        (needs.keypoints, found.keypoints, "a labelled keypoint in 'keypoints'"),
    ):
        if needed and found.objects and number == 0:
            verb = "trains on" if needs.training else "scores"
            yield f"none of {found.objects} objects has {what}, which this config {verb}"


def _why_none(found: CocoLook) -> str:
    reasons = {
        "of images that are not in it": found.unknown_images,
        "of unknown categories": found.unknown_categories,
        "of categories that are no classes": sum(found.other_categories.values()),
        "without size": found.without_size,
        "crowds": found.crowds,
    }
    return ", ".join(f"{number} {what}" for what, number in reasons.items() if number) or "it has no annotations"


def _warnings(path: str | Path, found: CocoLook, needs: CocoNeeds) -> Iterator[str]:
    yield from _warnings_of_files(path, found)
    if not needs.training and found.objects == 0:
        yield (
            f"{path}: has no objects, so there is nothing to score: every score is -1, and no best.pth is kept (use "
            "the last epoch_N.pth)"
        )
    if found.without_size:
        yield without_size_warning(path, found.without_size)
    if found.boxless:
        yield (
            f"{path}: {found.boxless} objects have no box of any size, that around their mask or their keypoints is "
            "taken"
        )
    for number, what in (
        (found.unknown_images, "images that are not in the file"),
        (found.unknown_categories, "categories that are not in the file"),
    ):
        if number:
            yield f"{path}: {number} annotations are of {what}, and are left out"
    if found.other_categories:
        names = _some(found.other_categories)
        number = sum(found.other_categories.values())
        yield f"{path}: {number} annotations are of categories that are no classes ({names}), and are left out"
    if needs.training and found.unused_classes:
        yield _unused(path, found)
    if found.outside * 10 > found.objects + found.crowds:
        yield (
            f"{path}: {found.outside} of {found.objects + found.crowds} boxes reach outside of their image, "
            f"{found.outside_all} lie outside; are they x, y, width, height in pixels (not x1, y1, x2, y2)?"
        )
    elif found.outside_all:
        yield f"{path}: {found.outside_all} boxes lie outside of their image: nobody can learn or find their objects"


def _warnings_of_files(path: str | Path, found: CocoLook) -> Iterator[str]:
    for missing, looked, what in (
        (found.missing, found.files, "image files"),
        (found.missing_label_maps, found.label_maps, "label maps"),
    ):
        if missing and len(missing) * 2 <= looked:
            yield f"{path}: {len(missing)} of {looked} {what} are missing (such as {missing[0]})"
    if found.unreadable:
        yield (
            f"{path}: {len(found.unreadable)} of {found.headers + len(found.unreadable)} pictures looked at cannot be "
            f"decoded (such as {found.unreadable[0]})"
        )
    if found.wrong_sizes and len(found.wrong_sizes) * 2 <= found.headers:
        yield (
            f"{path}: {len(found.wrong_sizes)} of {found.headers} pictures looked at have another size than the file "
            f"says ({found.wrong_sizes[0]})"
        )
    if found.sizeless_images:
        yield f"{path}: {found.sizeless_images} images have no 'width' and 'height', those of the pictures are taken"
    if found.same_files:
        yield f"{path}: {found.same_files} images share their file with another image"


def _unused(path: str | Path, found: CocoLook) -> str:
    names = found.unused_classes
    return (
        f"{path}: {len(names)} of the classes have no object to learn from ({_some(names)}); to leave out what is "
        "none, such as the root category of an export, name the others as `classes` in the config, or with "
        "--cfg-options \"classes=['a','b']\""
    )


def _some(names: Sequence[str] | dict[str, int], most: int = 5) -> str:
    listed = list(names)
    return ", ".join(map(repr, listed[:most])) + (", ..." if len(listed) > most else "")
