"""COCO-form detection data, read strictly: nothing that would give a silent zero AP passes in silence."""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmdet.datasets.base_det_dataset import BaseDetDataset

from efftasks.datasets.coco_keypoints import category_keypoints, keypoint_rows
from efftasks.datasets.coco_masks import mask_bounds
from efftasks.datasets.semantic_values import label_values
from efftasks.datasets.skipping import SkipUnreadable
from efftasks.registry import DATASETS
from efftasks.structures.errors import UserError
from efftasks.structures.keypoints import KeypointFacts

__all__ = ["CocoDetection", "match_classes", "read_coco"]


def read_coco(path: str | Path) -> dict[str, Any]:
    """Read a COCO annotation file and check that it has the parts that everything needs.

    Raises:
        UserError: the file is missing, empty, no JSON, or lacks images or categories.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: the annotation file cannot be read ({error.strerror})") from error
    try:
        data = json.loads(text) if text.strip() else None
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: the annotation file is not JSON ({error})") from error
    if not isinstance(data, dict) or not data:
        raise UserError(f"{path}: the annotation file is empty, expected COCO's images, annotations and categories")
    for key in ("images", "categories"):
        if not isinstance(data.get(key), list) or not data[key]:
            raise UserError(f"{path}: '{key}' is missing or empty, expected a list as COCO has it")
    if not isinstance(data.get("annotations", []), list):
        raise UserError(f"{path}: 'annotations' is not a list, expected one as COCO has it")
    return data


def match_classes(path: str | Path, categories: Sequence[dict], classes: Sequence[str] | None) -> dict[str, int]:
    """Category id of each class, in the order of the labels.

    Args:
        path: the annotation file, for the message.
        categories: its categories.
        classes: the names wanted, in the order of the labels; None takes the file's, ordered by id.

    Raises:
        UserError: a name is not a category of the file, or is there twice.
    """
    known = {category["name"]: int(category["id"]) for category in sorted(categories, key=lambda c: c["id"])}
    if len(known) != len(categories):
        names = [category["name"] for category in categories]
        twice = sorted({name for name in names if names.count(name) > 1})
        raise UserError(f"{path}: category names occur twice ({', '.join(twice)}), expected each once")
    if classes is None:
        return known
    if len(set(classes)) != len(classes):
        raise UserError(f"metainfo.classes: names occur twice in {tuple(classes)}, expected each once")
    for name in classes:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"the file has {', '.join(map(repr, list(known)[:10]))}"
            raise UserError(f"{path}: metainfo.classes names {name!r}, which is no category of the file; {hint}")
    return {name: known[name] for name in classes}


@DATASETS.register_module()
class CocoDetection(SkipUnreadable, BaseDetDataset):
    """Boxes, masks and keypoints of a COCO file, and a label map of each image beside it.

    Labels follow the order of ``metainfo.classes``, or of the category ids where no classes are given; ids may have
    gaps. ``metainfo`` also has ``category_ids``, the id of each label, and ``keypoints``, see
    :class:`efftasks.structures.keypoints.KeypointFacts`, where the categories or the given metainfo have any. Images
    without objects are kept; those that cannot be read are skipped, see :class:`SkipUnreadable`.

    Args:
        attempts: how many images in a row may be unreadable before training gives up.
        seg_map: where the label map of an image is, relative to ``data_root``; ``{folder}`` and ``{stem}`` stand for
            those of its file name. Then ``metainfo`` must have ``semantic_classes``, their names, and may have
            ``label_values`` and ``ignore`` as for :class:`efftasks.datasets.semantic.SemanticFolder`.
        kwargs: as mmengine's BaseDataset: ann_file, data_root, data_prefix, metainfo, pipeline, test_mode, indices...
    """

    METAINFO: dict[str, Any] = {}

    def __init__(self, *args: Any, attempts: int = 50, seg_map: str | None = None, **kwargs: Any) -> None:
        self.attempts = attempts
        self.seg_map = seg_map
        self.keypoints: KeypointFacts | None = None
        super().__init__(*args, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Read the annotation file; one dict an image."""
        data = read_coco(self.ann_file)
        ids = match_classes(self.ann_file, data["categories"], self._metainfo.get("classes"))
        self._metainfo["classes"] = tuple(ids)
        self._metainfo["category_ids"] = tuple(ids.values())
        labels = {category_id: label for label, category_id in enumerate(ids.values())}
        used = sorted((c for c in data["categories"] if c["id"] in labels), key=lambda c: labels[c["id"]])
        self.keypoints = category_keypoints(self.ann_file, used, self._metainfo.get("keypoints"))
        if self.keypoints is not None:
            self._metainfo["keypoints"] = self.keypoints.to_dict()
        self._check_seg_map()
        annotations: dict[int, list[dict]] = {}
        for annotation in data.get("annotations", []):
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
        facts = self._metainfo
        self._label_values = label_values(facts["semantic_classes"], facts.get("label_values"), facts.get("ignore"))

    def _check_usable(self, data: dict, annotations: dict[int, list[dict]], labels: dict[int, int]) -> None:
        known = {image["id"] for image in data["images"]}
        used = sum(a["category_id"] in labels for i, rows in annotations.items() if i in known for a in rows)
        if used == 0 and not self.test_mode:
            raise UserError(
                f"{self.ann_file}: none of {len(data.get('annotations', []))} annotations belongs to an image of the "
                f"file and to one of the classes {self._metainfo['classes']}, expected at least one to train on"
            )

    def _parse(self, image: dict, annotations: Sequence[dict], labels: dict[int, int]) -> dict:
        found = [self._instance(image, row, labels) for row in annotations if row["category_id"] in labels]
        info = {
            "img_path": str(Path(self.data_prefix.get("img", ""), image["file_name"])),
            "img_id": image["id"],
            "width": image["width"],
            "height": image["height"],
            "instances": [instance for instance in found if instance is not None],
        }
        if self.keypoints is not None:
            info["keypoint_mirror"] = self.keypoints.mirror
        if self.seg_map is not None:
            file = Path(image["file_name"])
            folder = "/".join(file.parent.parts)  # not "." where there is none
            info["label_values"] = self._label_values
            info["seg_map_path"] = str(Path(self.data_root, self.seg_map.format(folder=folder, stem=file.stem)))
        return info

    def _instance(self, image: dict, annotation: dict, labels: dict[int, int]) -> dict | None:
        """One object as mmdet names its parts, with its id and what else is annotated; None without extent."""
        left, top, right, bottom = self._box(image, annotation)
        box = [max(left, 0.0), max(top, 0.0), min(right, image["width"]), min(bottom, image["height"])]
        if box[2] <= box[0] or box[3] <= box[1]:
            return None
        instance: dict[str, Any] = {
            "bbox": box,
            "bbox_label": labels[annotation["category_id"]],
            "ignore_flag": int(bool(annotation.get("iscrowd", 0))),
            "id": annotation.get("id"),
        }
        if annotation.get("segmentation"):
            instance["mask"] = annotation["segmentation"]
        if annotation.get("area") is not None:
            instance["area"] = float(annotation["area"])
        if self.keypoints is not None:
            rows = keypoint_rows(self.ann_file, annotation, len(self.keypoints))
            if rows is not None:
                instance["keypoints"] = rows
        return instance

    def _box(self, image: dict, annotation: dict) -> tuple[float, float, float, float]:
        """The annotated box xyxy, or that of the mask where there is none."""
        if annotation.get("bbox") is not None:
            x, y, w, h = annotation["bbox"]
            return x, y, x + w, y + h
        name = f"{self.ann_file}: annotation {annotation.get('id')}"
        try:
            box = mask_bounds(annotation.get("segmentation"), (image["height"], image["width"]))
        except ValueError as error:
            raise UserError(f"{name} has no 'bbox', and its mask cannot be used: {error}") from error
        if box is None:
            raise UserError(f"{name} has neither 'bbox' nor a mask, expected a box [x, y, width, height]")
        return box

    def blank_image(self, info: dict) -> dict[str, Any]:
        """Grey, of the size that the file states."""
        shape = (int(info["height"]), int(info["width"]))
        return dict(img=np.full((*shape, 3), 114, np.uint8), img_shape=shape, ori_shape=shape)
