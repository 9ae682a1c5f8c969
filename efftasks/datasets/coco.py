"""The COCO data set of detection, instance segmentation and keypoints; what would give an AP of 0 is an error."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from mmdet.datasets.base_det_dataset import BaseDetDataset

from efftasks.annotations.coco import (
    annotation_name,
    area_of,
    file_name_of,
    image_size_of,
    is_crowd,
    keypoints_of,
    object_box,
    read_coco,
    segmentation_of,
)
from efftasks.datasets.coco_keypoints import category_keypoints
from efftasks.datasets.image_files import image_size
from efftasks.datasets.semantic_values import label_values
from efftasks.datasets.skipping import SkipUnreadable
from efftasks.imaging.images import UnreadableImage
from efftasks.registry import DATASETS
from efftasks.structures.errors import UserError
from efftasks.structures.image_fit import PAD_VALUE
from efftasks.structures.keypoints import KeypointMetadata

__all__ = ["CocoDetection", "match_classes", "read_coco"]


def match_classes(path: str | Path, categories: Sequence[dict], classes: Sequence[str] | None) -> dict[str, int]:
    """Class name -> category id, in the order of the labels.

    Args:
        path: the annotation file, for messages.
        categories: its categories.
        classes: class names in the order of the labels; None takes those of the file, ordered by id.

    Raises:
        UserError: a name is not a category of the file, or occurs twice.
    """
    ids = {category["name"]: int(category["id"]) for category in sorted(categories, key=lambda c: c["id"])}
    if len(ids) != len(categories):
        names = [category["name"] for category in categories]
        repeated = sorted({name for name in names if names.count(name) > 1})
        raise UserError(f"{path}: category names occur twice ({', '.join(repeated)}), expected each once")
    if classes is None:
        return ids
    if len(set(classes)) != len(classes):
        raise UserError(f"metainfo.classes: names occur twice in {tuple(classes)}, expected each once")
    for name in classes:
        if name not in ids:
            nearest = difflib.get_close_matches(name, ids, n=1)
            listed = ", ".join(map(repr, list(ids)[:10]))
            hint = f"did you mean {nearest[0]!r}?" if nearest else f"the file has {listed}"
            raise UserError(f"{path}: metainfo.classes names {name!r}, which is no category of the file; {hint}")
    return {name: ids[name] for name in classes}


@DATASETS.register_module()
class CocoDetection(SkipUnreadable, BaseDetDataset):
    """Boxes, masks and keypoints of a COCO file, and optionally a label map of each image.

    Labels follow the order of ``metainfo.classes``, without it that of the category ids, which may have gaps.
    ``metainfo`` gets ``category_ids``, the id of each label. If the categories or the given metainfo have keypoints, it
    also gets ``keypoints``, see :class:`efftasks.structures.keypoints.KeypointMetadata`. Images without objects are
    kept; unreadable ones are skipped, see :class:`SkipUnreadable`.

    Args:
        attempts: number of unreadable images in a row after which training stops.
        seg_map: path of an image's label map, relative to ``data_root``; ``{folder}`` and ``{stem}`` are replaced by
            the folder and the stem of the image's file name. It needs ``metainfo.semantic_classes``, and takes
            ``label_values`` and ``ignore`` as :class:`efftasks.datasets.semantic.SemanticFolder` does.
        kwargs: of mmengine's BaseDataset: ann_file, data_root, data_prefix, metainfo, pipeline, test_mode, indices...
            ``file_name`` is relative to ``data_prefix.img``, without it to ``data_root``.
    """

    METAINFO: dict[str, Any] = {}
    annotations: ClassVar[str] = "coco"  # the format of ann_file
    linked_values: ClassVar[tuple[str, ...]] = ("label_values", "ignore")

    def __init__(self, *args: Any, attempts: int = 50, seg_map: str | None = None, **kwargs: Any) -> None:
        self.attempts = attempts
        self.seg_map = seg_map
        self.keypoints: KeypointMetadata | None = None
        super().__init__(*args, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Read the annotation file; one dict per image."""
        data = read_coco(self.ann_file)
        ids = match_classes(self.ann_file, data["categories"], self._metainfo.get("classes"))
        self._metainfo["classes"] = tuple(ids)
        self._metainfo["category_ids"] = tuple(ids.values())
        labels = {category_id: label for label, category_id in enumerate(ids.values())}
        used_categories = sorted((c for c in data["categories"] if c["id"] in labels), key=lambda c: labels[c["id"]])
        self.keypoints = category_keypoints(self.ann_file, used_categories, self._metainfo.get("keypoints"))
        if self.keypoints is not None:
            self._metainfo["keypoints"] = self.keypoints.to_dict()
        self._check_seg_map()
        annotations: dict[Any, list[dict]] = {}
        for annotation in data["annotations"]:
            annotations.setdefault(annotation["image_id"], []).append(annotation)
        self._check_usable(data, annotations, labels)
        return [self._parse(image, annotations.get(image["id"], []), labels) for image in data["images"]]

    def _check_seg_map(self) -> None:
        if self.seg_map is None:
            return
        if not self._metainfo.get("semantic_classes"):
            raise UserError(f"seg_map: got {self.seg_map!r} without metainfo.semantic_classes, expected their names")
        try:
            self.seg_map.format(folder="", stem="")
        except (KeyError, IndexError, ValueError) as error:
            raise UserError(f"seg_map: got {self.seg_map!r}, expected no fields but {{folder}} and {{stem}}") from error
        metainfo = self._metainfo
        classes, values, ignore = (metainfo.get(key) for key in ("semantic_classes", "label_values", "ignore"))
        self._label_values = label_values(classes, values, ignore)

    def _check_usable(self, data: dict, annotations: dict[Any, list[dict]], labels: dict[int, int]) -> None:
        image_ids = {image["id"] for image in data["images"]}
        usable = sum(a["category_id"] in labels for i, rows in annotations.items() if i in image_ids for a in rows)
        if usable == 0 and not self.test_mode:
            raise UserError(
                f"{self.ann_file}: none of {len(data['annotations'])} annotations belongs to an image of the "
                f"file and to one of the classes {self._metainfo['classes']}, expected at least one to train on"
            )

    def _parse(self, image: dict, annotations: Sequence[dict], labels: dict[int, int]) -> dict:
        try:
            path = Path(self.data_prefix.get("img", self.data_root or ""), file_name_of(image))
        except ValueError as error:
            raise UserError(f"{self.ann_file}: {error}") from error
        height, width = image_size_of(image) or self._size_of_picture(image, path)
        instances = []
        for row in annotations:
            if row["category_id"] in labels:
                try:
                    instance = self._instance((height, width), row, labels)
                except ValueError as error:
                    raise UserError(f"{self.ann_file}: {annotation_name(row)}: {error}") from error
                if instance is not None:
                    instances.append(instance)
        info = dict(img_path=str(path), img_id=image["id"], width=width, height=height, instances=instances)
        if self.keypoints is not None:
            info["keypoint_mirror"] = self.keypoints.mirror
        if self.seg_map is not None:
            file = Path(image["file_name"])
            folder = "/".join(file.parent.parts)  # not "." where there is none
            info["label_values"] = self._label_values
            info["seg_map_path"] = str(Path(self.data_root, self.seg_map.format(folder=folder, stem=file.stem)))
        return info

    def _size_of_picture(self, image: dict, path: Path) -> tuple[int, int]:
        """The (height, width) of an image for which the annotation file states none."""
        try:
            return image_size(path)
        except UnreadableImage as error:
            raise UserError(
                f"{self.ann_file}: image {image['id']} ({image['file_name']}) has no 'width' and 'height', and {error}"
            ) from error

    def _instance(self, size: tuple[int, int], annotation: dict, labels: dict[int, int]) -> dict | None:
        """One object with mmdet's keys, and its id; None if its box has no area inside the image.

        Raises:
            ValueError: a field is broken; the message does not name the annotation.
        """
        left, top, right, bottom = object_box(annotation, size) or (0.0, 0.0, 0.0, 0.0)
        box = [max(left, 0.0), max(top, 0.0), min(right, size[1]), min(bottom, size[0])]
        if box[2] <= box[0] or box[3] <= box[1]:
            return None
        instance: dict[str, Any] = {
            "bbox": box,
            "bbox_label": labels[annotation["category_id"]],
            "ignore_flag": int(is_crowd(annotation)),
            "id": annotation.get("id"),
        }
        segmentation, area = segmentation_of(annotation), area_of(annotation)
        if segmentation is not None:
            instance["mask"] = segmentation
        if area is not None:
            instance["area"] = area
        if self.keypoints is not None:
            rows = keypoints_of(annotation, len(self.keypoints))
            if rows is not None:
                instance["keypoints"] = rows
        return instance

    def blank_image(self, info: dict) -> dict[str, Any]:
        """A gray image of the annotated size."""
        shape = (int(info["height"]), int(info["width"]))
        return dict(img=np.full((*shape, 3), PAD_VALUE, np.uint8), img_shape=shape, ori_shape=shape)
