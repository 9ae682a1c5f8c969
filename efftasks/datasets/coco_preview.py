"""Draw the annotations of a COCO file on its images, to check them by eye before training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from efftasks.annotations.coco import read_json
from efftasks.datasets import coco_rules as rules
from efftasks.datasets.coco_check import images_beside
from efftasks.datasets.coco_masks import decode_mask
from efftasks.datasets.coco_rules import Content
from efftasks.datasets.image_files import read_whole_image, write_image
from efftasks.datasets.preview import SHEET, Preview, draw_sheet, fit_picture
from efftasks.datasets.progress import progress
from efftasks.imaging.drawing import draw_instances
from efftasks.imaging.file_faults import BrokenImageError
from efftasks.structures.errors import UserError

__all__ = ["fit_mask", "preview_coco"]

_HARMLESS = ("box-outside", "keypoint-count", "keypoint-outside", "keypoint-names", "keypoint-visibility")


def preview_coco(path: str | Path, images: str | Path | None, out: str | Path, num: int = 16, seed: int = 0) -> Preview:
    """Draw boxes with class names, masks and keypoints on some images of a COCO file.

    Args:
        path: the annotation file.
        images: the folder that ``file_name`` is relative to; None takes that of ``images_beside``.
        out: the folder to write to.
        num: number of images, chosen at random and shown in the order of the file.
        seed: seed of the choice.

    Raises:
        UserError: the file or the folder is missing or unusable, or none of the images can be read.
    """
    if num < 1:
        raise UserError(f"num: got {num}, expected at least 1")
    images = images_beside(path) if images is None else images
    if images is None:
        raise UserError(f"{path}: there is no folder 'images' beside the folder of the file, name one with --images")
    if not Path(images).is_dir():
        raise UserError(f"{images}: no such folder of images")
    content, faults = rules.structure(read_json(path))
    usable = [image for image in content.images if isinstance(image.get("file_name"), str)]
    if not usable:
        raise UserError(f"{path}: {faults[0].message if faults else 'no image has a file_name'}")
    target = Path(out)
    target.mkdir(parents=True, exist_ok=True)
    result = Preview()
    annotations = _drawable_annotations(content, result)
    chosen = np.sort(np.random.default_rng(seed).permutation(len(usable))[:num])
    pictures: list[NDArray[np.uint8]] = []
    for index in progress(chosen, len(chosen), "preview"):
        image = usable[int(index)]
        try:
            picture = read_whole_image(Path(images) / image["file_name"])
        except BrokenImageError as error:
            result.left_out.append(f"image {image.get('id')}: {Path(images) / image['file_name']} {error}")
            continue
        pictures.append(_draw(picture, annotations.get(str(image.get("id")), []), content))
        file = target / _flat_name(image, result.files)
        write_image(file, pictures[-1])
        result.files.append(file)
    if not pictures:
        raise UserError(f"{images}: none of {len(chosen)} images can be read, the first: {result.left_out[0]}")
    result.sheet = target / SHEET
    write_image(result.sheet, draw_sheet(pictures))
    return result


def _drawable_annotations(content: Content, result: Preview) -> dict[str, list[dict[str, Any]]]:
    """The annotations of each image that can be drawn."""
    faults = [*rules.references(content), *rules.boxes(content), *rules.masks(content), *rules.keypoints(content, None)]
    broken = {str(fault.annotation_id) for fault in faults if fault.rule not in _HARMLESS}
    drawable: dict[str, list[dict[str, Any]]] = {}
    count = 0
    for annotation in content.annotations:
        category_id = annotation.get("category_id")
        has_category = isinstance(category_id, int) and category_id in content.category_of
        has_box = annotation.get("bbox") is not None and rules.is_key(annotation.get("image_id"))
        if has_category and has_box and str(annotation.get("id")) not in broken:
            drawable.setdefault(str(annotation["image_id"]), []).append(annotation)
        else:
            count += 1
    if count:
        result.left_out.append(f"{count} broken annotations; `efftasks dataset check` names them")
    return drawable


def _flat_name(image: dict[str, Any], files: Sequence[Path]) -> str:
    """A file name in the output folder, whatever folder the image is in."""
    name = Path(image["file_name"].replace("\\", "/").strip("/").replace("/", "_")).stem + ".jpg"
    used = name == SHEET or any(file.name == name for file in files)
    return f"{image.get('id')}_{name}" if used else name


def _draw(picture: NDArray[np.uint8], annotations: Sequence[dict[str, Any]], content: Content) -> NDArray[np.uint8]:
    canvas, scale = fit_picture(picture)
    height, width = canvas.shape[:2]
    ids = list(content.category_of)[::-1]  # in the order of the file
    names = [str(content.category_of[key].get("name")) for key in ids]
    boxes = np.array([annotation["bbox"] for annotation in annotations], float).reshape(-1, 4) * scale
    boxes[:, 2:] += boxes[:, :2]
    masks = np.zeros((len(annotations), height, width), bool)
    for layer, annotation in zip(masks, annotations, strict=True):
        if annotation.get("segmentation"):
            mask = fit_mask(annotation["segmentation"], *picture.shape[:2])
            layer[:] = cv2.resize(mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST) > 0
    points, skeleton = _keypoints(annotations, content, scale)
    return draw_instances(
        canvas,
        boxes,
        [ids.index(annotation["category_id"]) for annotation in annotations],
        names,
        masks=masks,
        keypoints=points,
        skeleton=skeleton,
        keypoint_hidden=points[:, :, 2] == 1,
    )


def _keypoints(
    annotations: Sequence[dict[str, Any]], content: Content, scale: float
) -> tuple[NDArray[np.float64], list[tuple[int, int]]]:
    """Scaled keypoints (K, P, 3), padded with zeros, and the skeleton of the first category that has one."""
    lists = [np.array(a.get("keypoints") or [], float).reshape(-1, 3) for a in annotations]
    points = np.zeros((len(lists), max((len(rows) for rows in lists), default=0), 3))
    for into, rows in zip(points, lists, strict=True):
        into[: len(rows)] = rows * (scale, scale, 1)
    for category in content.category_of.values():
        pairs = category.get("skeleton")
        named = isinstance(category.get("keypoints"), list)
        if named and pairs and not list(rules.keypoints(Content(categories=[category]), None)):
            return points, [(a - 1, b - 1) for a, b in pairs if max(a, b) <= points.shape[1]]
    return points, []


def fit_mask(segmentation: Any, height: int, width: int) -> NDArray[np.bool_]:
    """Decode a mask to bool (height, width); an RLE of another size is cropped or padded."""
    size = segmentation["size"] if isinstance(segmentation, dict) else (height, width)
    left, top, crop = decode_mask(segmentation, (size[0], size[1]))
    mask = np.zeros((height, width), bool)
    target = mask[top : top + crop.shape[0], left : left + crop.shape[1]]
    target[:] = crop[: target.shape[0], : target.shape[1]]
    return mask
