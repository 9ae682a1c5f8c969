"""Pictures whose objects are red and blue rectangles, and a detector that sees just those: what it finds is known."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import efftasks.compat  # noqa: F401

import cv2
import numpy as np
import torch
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from efftasks import apis
from efftasks.models.detectors import Detector
from efftasks.structures.instances import DetectionTensors
from efftasks.structures.spec import OutputSpec

NAMES = ("cat", "dog")  # red, blue
CATEGORY_IDS = {"cat": 3, "dog": 7}
INPUT = (64, 96)  # (height, width) of the network input
# (height, width) of each picture, and the boxes (xyxy) of its cat and its dog; None for none. Letterboxed they are half
# as large, twice as large, as large, and a third as large: edges of these boxes stay edges of pixels.
SCENES = (
    ((128, 96), (8, 16, 40, 60), (50, 90, 90, 120)),
    ((30, 48), (2, 3, 20, 11), (25, 14, 46, 29)),
    ((64, 40), None, (10, 20, 30, 60)),
    ((120, 288), (30, 15, 150, 60), None),
)
RED, BLUE, GREY = (0, 0, 255), (255, 0, 0), (50, 50, 50)


def corners(box: Sequence[float]) -> list[list[float]]:
    """The two keypoints of an object: upper left and lower right."""
    return [[box[0], box[1], 2], [box[2], box[3], 2]]


def write_pictures(root: Path) -> Path:
    """The scenes as a COCO set, for training and for testing, with masks, keypoints and label maps."""
    (root / "images").mkdir(parents=True)
    (root / "maps").mkdir()
    images: list[dict] = []
    annotations: list[dict] = []
    for i, ((height, width), *boxes) in enumerate(SCENES):
        picture, labels = np.full((height, width, 3), GREY, np.uint8), np.zeros((height, width), np.uint8)
        images.append(dict(id=10 + i, file_name=f"{i}.png", height=height, width=width))
        for name, color, box in zip(NAMES, (RED, BLUE), boxes):
            if box is None:
                continue
            x1, y1, x2, y2 = box
            picture[y1:y2, x1:x2], labels[y1:y2, x1:x2] = color, 1 + NAMES.index(name)
            annotations.append(
                dict(id=len(annotations) + 1, image_id=10 + i, category_id=CATEGORY_IDS[name], iscrowd=0)
                | dict(bbox=[x1, y1, x2 - x1, y2 - y1], area=(x2 - x1) * (y2 - y1), num_keypoints=2)
                | dict(segmentation=[[x1, y1, x2, y1, x2, y2, x1, y2]], keypoints=np.ravel(corners(box)).tolist())
            )
        cv2.imwrite(str(root / "images" / f"{i}.png"), picture)
        cv2.imwrite(str(root / "maps" / f"{i}.png"), labels)
    categories = [
        dict(id=CATEGORY_IDS[name], name=name, keypoints=["first", "last"], skeleton=[[1, 2]]) for name in NAMES
    ]
    (root / "annotations").mkdir()
    for split in ("train", "val"):
        text = json.dumps(dict(images=images, annotations=annotations, categories=categories))
        (root / "annotations" / f"{split}.json").write_text(text)
    return root


def link_label_maps(root: Path, folder: Path) -> Path:
    """The pictures of :func:`write_pictures` with their label maps, as a semantic set."""
    for kind, name in (("img", "images"), ("ann", "maps")):
        (folder / kind).mkdir()
        for split in ("train", "val"):
            (folder / kind / split).symlink_to(root / name)
    return folder


def config(root: Path, classes: Sequence[str] = NAMES, kinds: Sequence[str] = ("bbox",), **options: Any) -> Any:
    """A shipped config on these pictures."""
    evaluator = {"test_evaluator.kinds": list(kinds), "val_evaluator.kinds": list(kinds)}
    return apis.load_config(
        "o2o-n_mobilenetv4-conv-s_1xb16-18e_shapes-128",
        {"data_root": f"{root}/", "classes": list(classes), "image_size": INPUT, **evaluator, **options},
    )


class Image(nn.Module):
    """A backbone whose only map is the image."""

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (x,)


class Neck(nn.Module):
    """Gives the maps it gets."""

    def __init__(self, in_specs: Any) -> None:
        super().__init__()
        self.specs = in_specs

    def forward(self, maps: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return maps


class SeeRectangles(nn.Module):
    """What is red and what is blue, as one object each; the score of the first is 0.9, of the other 0.8, of none 0."""

    def __init__(self, in_specs: Any, names: Sequence[str]) -> None:
        super().__init__()
        self.names = tuple(names)

    def forward(self, maps: tuple[Tensor, ...]) -> Tensor:
        return maps[0]

    def decode(self, images: Tensor) -> DetectionTensors:
        count, _, height, width = images.shape
        boxes, scores = torch.zeros(count, 2, 4), torch.zeros(count, 2)
        for i, (red, _, blue) in enumerate(images):
            for k in range(len(NAMES)):
                y, x = ((red, blue)[k] - (blue, red)[k] > 0.5).nonzero(as_tuple=True)
                if len(x):
                    boxes[i, k] = torch.tensor([x.min(), y.min(), x.max() + 1, y.max() + 1])
                    scores[i, k] = (0.9, 0.8)[k]
        labels = torch.tensor([[self.names.index(name) for name in NAMES]] * count)
        order = scores.argsort(dim=1, descending=True, stable=True)
        boxes = boxes.gather(1, order[..., None].expand(-1, -1, 4))
        points = torch.stack([boxes[..., :2], boxes[..., 2:]], 2)
        points = torch.cat([points, torch.ones_like(points[..., :1])], -1)
        cells = torch.ones(count, 2, height // 4, width // 4)
        return DetectionTensors(boxes, scores.gather(1, order), labels.gather(1, order), cells, points)

    def part_outputs(self, height: int, width: int) -> tuple[OutputSpec, ...]:
        return (
            OutputSpec("masks", ("N", 2, height // 4, width // 4), "float32", ""),
            OutputSpec("keypoints", ("N", 2, 2, 3), "float32", ""),
        )

    def count_detections(self, height: int, width: int) -> int:
        return 2


def detector(cfg: Any, names: Sequence[str] = NAMES) -> Detector:
    """The detector that sees the rectangles; ``names`` is the order of its labels."""
    with DefaultScope.overwrite_default_scope("efftasks"):
        model = Detector(
            backbone=Image(),
            neck=dict(type=Neck),
            head=dict(type=SeeRectangles, names=names),
            data_preprocessor=dict(type="DetPreprocessor", mean=(0.0,) * 3, std=(255.0,) * 3),
        )
    points = dict(names=("first", "last"), sigmas=(0.1, 0.1), skeleton=((0, 1),))
    model.cfg = cfg
    model.dataset_meta = dict(
        classes=tuple(names), category_ids=tuple(CATEGORY_IDS[name] for name in names), keypoints=points
    )
    return model.eval()
