"""A quick check of a COCO file before training and testing, for what would make them fail or be worthless.

:func:`look` reads the file once and counts; :func:`judge` turns the counts into findings for a task. ``efftasks
dataset check`` reads every image and reports every fault.
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
from efftasks.datasets.image_files import image_size, is_file
from efftasks.datasets.pixel_depth import quick_check_range
from efftasks.imaging.images import UnreadableImage, read_pixels
from efftasks.structures.errors import UserError
from efftasks.structures.pixel_range import PixelRange

__all__ = ["CocoLook", "CocoNeeds", "judge", "look", "quick_check_coco"]

_FILES = 2000  # images whose files must exist, evenly spread
_HEADERS = 32  # images whose size is read
_DECODED = 6  # images that are decoded
_DECODED_RUNS = 4000  # annotations whose RLE is decoded
_SLACK = 1.0  # pixels by which a box may exceed its image


@dataclass(frozen=True)
class CocoNeeds:
    """The annotations that a task needs.

    Args:
        training: whether the file is trained on; otherwise it is scored.
        masks: whether masks are needed; then a file without masks is an error.
        keypoints: likewise for keypoints.
    """

    training: bool
    masks: bool = False
    keypoints: bool = False


@dataclass
class CocoLook:
    """Counts of a file, as plain data; of annotations only those of an image of the file and of a class.

    ``broken`` is the message of an error that no reader survives; then nothing is counted.
    """

    broken: str | None = None
    images: int = 0
    annotations: int = 0  # all of the file
    objects: int = 0  # annotations with an extent that are not crowds
    crowds: int = 0
    masks: int = 0  # objects with a mask
    keypoints: int = 0  # objects with a labeled keypoint
    without_size: int = 0
    boxless: int = 0  # objects whose box is computed from their mask or keypoints
    outside: int = 0  # boxes partly outside their image
    outside_all: int = 0  # boxes completely outside their image
    fractions: int = 0  # boxes within 0 and 1, as if relative to the image size
    unknown_images: int = 0
    unknown_categories: int = 0
    other_categories: dict[str, int] = field(default_factory=dict)  # categories that are no classes -> annotations
    unused_classes: list[str] = field(default_factory=list)
    same_files: int = 0  # images that share their file with another
    sizeless_images: int = 0
    files: int = 0  # image files that were looked for
    missing: list[str] = field(default_factory=list)
    headers: int = 0  # images whose size was read
    wrong_sizes: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    label_maps: int = 0  # label maps that were looked for
    missing_label_maps: list[str] = field(default_factory=list)
    depth_errors: list[str] = field(default_factory=list)  # about images with more than 8 bits
    depth_warnings: list[str] = field(default_factory=list)


def quick_check_coco(
    path: str | Path,
    images: str | Path,
    needs: CocoNeeds,
    classes: Sequence[str] | None = None,
    keypoints: dict[str, Any] | None = None,
) -> list[Finding]:
    """Check a COCO file for a task.

    Args:
        path: the annotation file.
        images: the folder that ``file_name`` is relative to.
        needs: the annotations that the task needs.
        classes: class names in the order of the labels; None takes those of the file.
        keypoints: ``metainfo.keypoints`` of the config.
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
    """Read a file and count; the other arguments are those of :func:`quick_check_coco`.

    Args:
        label_map: gives the path of an image's label map from its ``file_name``; None if there are no label maps.
        pixel_range: that of the config, for images of more than 8 bits.
    """
    counts = CocoLook()
    try:
        data = read_coco(path)
        ids = match_classes(path, data["categories"], classes)
        points = None
        if needs.keypoints:
            used_categories = [c for c in data["categories"] if c["name"] in ids]
            metadata = category_keypoints(path, used_categories, keypoints)
            points = len(metadata) if metadata is not None else None
        names = _file_names(path, data["images"])
        _look_at_annotations(path, data, ids, needs.masks, points, counts)
    except UserError as error:
        counts.broken = str(error)
        return counts
    counts.images = len(data["images"])
    counts.same_files = len(names) - len(set(names))
    counts.sizeless_images = sum(image_size_of(image) is None for image in data["images"])
    _look_at_files(Path(images), data["images"], counts, pixel_range)
    if label_map is not None:
        label_maps = [label_map(name) for name in _sample(names, _FILES)]
        counts.label_maps = len(label_maps)
        counts.missing_label_maps = [str(file) for file in label_maps if not is_file(file)]
    return counts


def _file_names(path: str | Path, images: Sequence[dict]) -> list[str]:
    try:
        return [file_name_of(image) for image in images]
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error


def _look_at_annotations(
    path: str | Path, data: dict, ids: dict[str, int], masks: bool, points: int | None, counts: CocoLook
) -> None:
    sizes = {image["id"]: image_size_of(image) for image in data["images"]}
    names = {category["id"]: category["name"] for category in data["categories"]}
    classes = {number: name for name, number in ids.items()}
    other_categories: Counter[str] = Counter()
    used = set()
    counts.annotations = len(data["annotations"])
    step = -(-counts.annotations // _DECODED_RUNS)
    for number, annotation in enumerate(data["annotations"]):
        category = annotation["category_id"]
        if annotation["image_id"] not in sizes:
            counts.unknown_images += 1
        elif category not in names:
            counts.unknown_categories += 1
        elif category not in classes:
            other_categories[names[category]] += 1
        else:
            try:
                usable = _look_at_object(annotation, sizes[annotation["image_id"]], masks, points, counts)
                if masks and number % step == 0:
                    _decode_runs(annotation)
            except ValueError as error:
                raise UserError(f"{path}: {annotation_name(annotation)}: {error}") from error
            if usable:
                used.add(category)
    counts.other_categories = dict(other_categories)
    counts.unused_classes = [name for name, number in ids.items() if number not in used]


def _look_at_object(
    annotation: dict, size: tuple[int, int] | None, masks: bool, points: int | None, counts: CocoLook
) -> bool:
    """Count one annotation of a class; returns whether it is an object."""
    box = object_box(annotation, size)
    crowd = is_crowd(annotation)
    if box is None:
        counts.without_size += 1
        return False
    if box_of(annotation) is None:
        counts.boxless += 1
    if size is not None:
        height, width = size
        left, top, right, bottom = box
        counts.outside += max(-left, -top, right - width, bottom - height) > _SLACK
        counts.outside_all += right <= 0 or bottom <= 0 or left >= width or top >= height
    counts.fractions += min(box) >= 0 and max(box) <= 1
    if crowd:
        counts.crowds += 1
        return False
    counts.objects += 1
    if masks:
        segmentation = segmentation_of(annotation)
        counts.masks += segmentation is not None
        if isinstance(segmentation, dict):
            check_rle_size(segmentation, size)
    if points is not None:
        rows = keypoints_of(annotation, points)
        counts.keypoints += rows is not None and any(row[2] > 0 for row in rows)
    return True


def _decode_runs(annotation: dict) -> None:
    segmentation = segmentation_of(annotation)
    if isinstance(segmentation, dict):
        rle_runs(segmentation)


def _look_at_files(folder: Path, images: Sequence[dict], counts: CocoLook, pixel_range: PixelRange | None) -> None:
    sampled = _sample(images, _FILES)
    counts.files = len(sampled)
    existing = []
    for image in sampled:
        if is_file(folder / image["file_name"]):
            existing.append(image)
        else:
            counts.missing.append(image["file_name"])
    for finding in quick_check_range([folder / image["file_name"] for image in existing], pixel_range):
        (counts.depth_errors if finding.level == "error" else counts.depth_warnings).append(finding.message)
    for number, image in enumerate(_sample(existing, _HEADERS)):
        path = folder / image["file_name"]
        try:
            if number % (_HEADERS // _DECODED) == 0:
                height, width = read_pixels(path).shape[:2]
            else:
                height, width = image_size(path)
        except UnreadableImage:
            counts.unreadable.append(image["file_name"])
            continue
        annotated_size = image_size_of(image)
        counts.headers += 1
        if annotated_size is not None and annotated_size != (height, width):
            counts.wrong_sizes.append(
                f"{image['file_name']} is {width} x {height}, the file says {annotated_size[1]} x {annotated_size[0]}"
            )


def _sample(values: Sequence[Any], number: int) -> list[Any]:
    """At most ``number`` of the values, evenly spread."""
    if len(values) <= number:
        return list(values)
    return [values[i * len(values) // number] for i in range(number)]


def judge(path: str | Path, images: str | Path, counts: CocoLook, needs: CocoNeeds) -> list[Finding]:
    """The findings that follow from the counts for a task, errors first."""
    if counts.broken is not None:
        return [Finding("error", counts.broken)]
    errors = [*(f"{path}: {error}" for error in _errors(images, counts, needs)), *counts.depth_errors]
    warnings = [*_warnings(path, counts, needs), *counts.depth_warnings]
    return [Finding("error", error) for error in errors] + [Finding("warning", warning) for warning in warnings]


def _errors(images: str | Path, counts: CocoLook, needs: CocoNeeds) -> Iterator[str]:
    if len(counts.missing) * 2 > counts.files:
        yield (
            f"{len(counts.missing)} of {counts.files} image files are not in {images} (such as {counts.missing[0]}), "
            "is that the folder which 'file_name' is relative to?"
        )
    if len(counts.wrong_sizes) * 2 > counts.headers:
        yield (
            f"{len(counts.wrong_sizes)} of {counts.headers} pictures have another size than the file says "
            f"({counts.wrong_sizes[0]}), so that boxes do not fit them"
        )
    if counts.label_maps and len(counts.missing_label_maps) * 2 > counts.label_maps:
        yield (
            f"{len(counts.missing_label_maps)} of {counts.label_maps} label maps are missing (such as "
            f"{counts.missing_label_maps[0]}), does seg_map name their place?"
        )
    if counts.objects == 0 and (needs.training or counts.annotations > counts.crowds):
        yield (
            f"none of {counts.annotations} annotations is an object of an image of the file and of one of the classes "
            f"({_reasons(counts)}), expected at least one"
        )
        return
    if counts.objects and counts.fractions == counts.objects + counts.crowds:
        yield "all boxes lie within 0 and 1, as shares of the image do; expected x, y, width, height in pixels"
    for required, number, description in (
        (needs.masks, counts.masks, "a mask in 'segmentation'"),
        (needs.keypoints, counts.keypoints, "a labeled keypoint in 'keypoints'"),
    ):
        if required and counts.objects and number == 0:
            verb = "trains on" if needs.training else "scores"
            yield f"none of {counts.objects} objects has {description}, which this config {verb}"


def _reasons(counts: CocoLook) -> str:
    reasons = {
        "of images that are not in it": counts.unknown_images,
        "of unknown categories": counts.unknown_categories,
        "of categories that are no classes": sum(counts.other_categories.values()),
        "without size": counts.without_size,
        "crowds": counts.crowds,
    }
    return ", ".join(f"{number} {reason}" for reason, number in reasons.items() if number) or "it has no annotations"


def _warnings(path: str | Path, counts: CocoLook, needs: CocoNeeds) -> Iterator[str]:
    yield from _warnings_of_files(path, counts)
    if not needs.training and counts.objects == 0:
        yield (
            f"{path}: has no objects, so there is nothing to score: every score is -1, and no best.pth is kept (use "
            "the last epoch_N.pth)"
        )
    if counts.without_size:
        yield without_size_warning(path, counts.without_size)
    if counts.boxless:
        yield (
            f"{path}: {counts.boxless} objects have no box of any size, that around their mask or their keypoints is "
            "taken"
        )
    for number, description in (
        (counts.unknown_images, "images that are not in the file"),
        (counts.unknown_categories, "categories that are not in the file"),
    ):
        if number:
            yield f"{path}: {number} annotations are of {description}, and are left out"
    if counts.other_categories:
        names = _list_some(counts.other_categories)
        number = sum(counts.other_categories.values())
        yield f"{path}: {number} annotations are of categories that are no classes ({names}), and are left out"
    if needs.training and counts.unused_classes:
        yield _unused_classes(path, counts)
    if counts.outside * 10 > counts.objects + counts.crowds:
        yield (
            f"{path}: {counts.outside} of {counts.objects + counts.crowds} boxes reach outside of their image, "
            f"{counts.outside_all} lie outside; are they x, y, width, height in pixels (not x1, y1, x2, y2)?"
        )
    elif counts.outside_all:
        yield f"{path}: {counts.outside_all} boxes lie outside of their image: nobody can learn or find their objects"


def _warnings_of_files(path: str | Path, counts: CocoLook) -> Iterator[str]:
    for missing, checked, description in (
        (counts.missing, counts.files, "image files"),
        (counts.missing_label_maps, counts.label_maps, "label maps"),
    ):
        if missing and len(missing) * 2 <= checked:
            yield f"{path}: {len(missing)} of {checked} {description} are missing (such as {missing[0]})"
    if counts.unreadable:
        yield (
            f"{path}: {len(counts.unreadable)} of {counts.headers + len(counts.unreadable)} pictures looked at cannot "
            f"be decoded (such as {counts.unreadable[0]})"
        )
    if counts.wrong_sizes and len(counts.wrong_sizes) * 2 <= counts.headers:
        yield (
            f"{path}: {len(counts.wrong_sizes)} of {counts.headers} pictures looked at have another size than the file "
            f"says ({counts.wrong_sizes[0]})"
        )
    if counts.sizeless_images:
        yield f"{path}: {counts.sizeless_images} images have no 'width' and 'height', those of the pictures are taken"
    if counts.same_files:
        yield f"{path}: {counts.same_files} images share their file with another image"


def _unused_classes(path: str | Path, counts: CocoLook) -> str:
    names = counts.unused_classes
    return (
        f"{path}: {len(names)} of the classes have no object to learn from ({_list_some(names)}); to leave out what is "
        "none, such as the root category of an export, name the others as `classes` in the config, or with "
        "--cfg-options \"classes=['a','b']\""
    )


def _list_some(names: Sequence[str] | dict[str, int], most: int = 5) -> str:
    listed = list(names)
    return ", ".join(map(repr, listed[:most])) + (", ..." if len(listed) > most else "")
