"""The built-in data set: scenes with boxes, masks and keypoints as COCO files, and with label maps as Cityscapes has.

Below the folder::

    shapes.json                          arguments of the set; class, keypoint and skeleton names
    annotations/{train,val}.json         COCO; file names relative to images/
    images/{train,val}/000000.png
    cityscapes/leftImg8bit/{train,val}/shapes/shapes_000000_000019_leftImg8bit.png       the same files, linked
    cityscapes/gtFine/{train,val}/shapes/shapes_000000_000019_gtFine_labelTrainIds.png   0 background, 1.. classes

It is for tests and first steps; results on it are no evidence for photographs.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from efftasks.datasets.coco_file import write_json
from efftasks.datasets.progress import progress
from efftasks.datasets.shapes_geometry import CLASSES, FLIP, KEYPOINTS, SKELETON
from efftasks.datasets.shapes_scene import Instance, Scene, make_scene
from efftasks.structures.errors import UserError

__all__ = ["SEMANTIC_CLASSES", "write_shapes"]

SEMANTIC_CLASSES = ("background", *CLASSES)
SPLITS = ("train", "val")
VERSION = 2  # increased when the same seed gives other pictures

_MARKER = "shapes.json"
_OWN_FILE = re.compile(r"(?:shapes_)?(\d{6})(?:_000019_leftImg8bit|_000019_gtFine_labelTrainIds)?\.png")


def write_shapes(out: str | Path, train: int = 800, val: int = 100, size: int = 128, seed: int = 0) -> Path:
    """Write the set to a folder; equal arguments give equal bytes, and a larger set begins with the smaller one.

    Args:
        out: the folder: new, empty, or with a set of shapes, which is replaced.
        train: number of training images.
        val: number of validation images, which have their own random streams.
        size: side of the square images in pixels.
        seed: seed of the set.

    Returns:
        The folder.

    Raises:
        UserError: a number is out of range, or the folder holds something else.
    """
    for field, value, low, high in (("train", train, 1, 999999), ("val", val, 1, 999999), ("size", size, 64, 4096)):
        if not low <= value <= high:
            raise UserError(f"{field}: got {value}, expected {low} to {high}")
    if seed < 0:
        raise UserError(f"seed: got {seed}, expected 0 or more")
    root = Path(out)
    counts = {"train": train, "val": val}
    _claim(root, {"version": VERSION, "size": size, "seed": seed, **counts})
    for number, split in enumerate(SPLITS):
        _write_split(root, split, number, counts[split], size, seed)
        _drop_surplus(root, split, counts[split])
    return root


def _claim(root: Path, made_by: dict[str, int]) -> None:
    """Create the folder and its marker file; refuse a folder that holds something else."""
    if root.exists() and not root.is_dir():
        raise UserError(f"{root}: is a file, expected a folder to write the set to")
    if root.is_dir() and any(root.iterdir()) and not (root / _MARKER).is_file():
        raise UserError(f"{root}: holds something else than a shapes set, expected a new or an empty folder")
    root.mkdir(parents=True, exist_ok=True)
    metadata = {
        "made_by": "efftasks dataset shapes",
        **made_by,
        "classes": CLASSES,
        "semantic_classes": SEMANTIC_CLASSES,
        "keypoints": KEYPOINTS,
        "flip": FLIP,
        "skeleton": SKELETON,
    }
    (root / _MARKER).write_text(json.dumps(metadata, indent=1) + "\n", encoding="utf-8")


def _folders(root: Path, split: str) -> tuple[Path, Path, Path]:
    city = root / "cityscapes"
    return root / "images" / split, city / "leftImg8bit" / split / "shapes", city / "gtFine" / split / "shapes"


def _write_split(root: Path, split: str, number: int, count: int, size: int, seed: int) -> None:
    for folder in _folders(root, split):
        folder.mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    scenes = (make_scene(seed, number, index, size) for index in range(count))
    for index, scene in enumerate(progress(scenes, count, f"shapes {split}")):
        _write_pictures(root, split, index, scene)
        images.append({"id": index + 1, "file_name": f"{split}/{index:06d}.png", "width": size, "height": size})
        for instance in scene.instances:
            annotations.append(_annotation(instance, len(annotations) + 1, index + 1))
    info = {"description": f"efftasks shapes, {split}, seed {seed}, {size} px", "version": str(VERSION)}
    data = {"info": info, "images": images, "annotations": annotations, "categories": _categories()}
    write_json(root / "annotations" / f"{split}.json", data)


def _write_pictures(root: Path, split: str, index: int, scene: Scene) -> None:
    images, links, label_maps = _folders(root, split)
    picture = images / f"{index:06d}.png"
    _write_png(picture, scene.image)
    _link(picture, links / f"shapes_{index:06d}_000019_leftImg8bit.png")
    _write_png(label_maps / f"shapes_{index:06d}_000019_gtFine_labelTrainIds.png", scene.semantic)


def _write_png(path: Path, image: NDArray[np.uint8]) -> None:
    path.unlink(missing_ok=True)  # never write into a file that may be linked from elsewhere
    done, data = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    assert done
    path.write_bytes(data.tobytes())


def _link(picture: Path, name: Path) -> None:
    """Make a hard link, or a copy if the file system has none."""
    name.unlink(missing_ok=True)
    try:
        os.link(picture, name)
    except OSError:
        shutil.copyfile(picture, name)


def _drop_surplus(root: Path, split: str, count: int) -> None:
    """Remove files of an earlier, larger set, since segmentation data sets read all files of a folder."""
    for folder in _folders(root, split):
        for path in folder.iterdir():
            match = _OWN_FILE.fullmatch(path.name)
            if match and int(match.group(1)) >= count:
                path.unlink()


def _categories() -> list[dict[str, Any]]:
    skeleton = [[a + 1, b + 1] for a, b in SKELETON]  # COCO counts keypoints from 1
    return [
        {"id": i, "name": name, "supercategory": "shape", "keypoints": list(KEYPOINTS), "skeleton": skeleton}
        for i, name in enumerate(CLASSES, start=1)
    ]


def _annotation(instance: Instance, annotation_id: int, image_id: int) -> dict[str, Any]:
    """An annotation in COCO's form, with the mask as RLE, since a polygon cannot have the hole of a ring."""
    ys, xs = np.nonzero(instance.mask)
    left, top = int(xs.min()), int(ys.min())
    encoded = coco_mask.encode(np.asfortranarray(instance.mask.astype(np.uint8)))
    keypoints = [float(v) if i % 3 < 2 else int(v) for i, v in enumerate(instance.keypoints.reshape(-1))]
    return {
        "id": annotation_id,
        "image_id": image_id,
        "category_id": instance.label + 1,
        "bbox": [left, top, int(xs.max()) + 1 - left, int(ys.max()) + 1 - top],
        "area": len(xs),
        "iscrowd": 0,
        "segmentation": {"size": list(instance.mask.shape), "counts": encoded["counts"].decode("ascii")},
        "keypoints": keypoints,
        "num_keypoints": int((instance.keypoints[:, 2] > 0).sum()),
    }
