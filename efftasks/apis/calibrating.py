"""Training images for quantization: some to calibrate on, others to compare methods on. Never those of the test."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import efftasks.compat  # noqa: F401

# isort: split
import numpy as np
from mmengine.registry import DefaultScope

from efftasks.annotations.coco import read_coco
from efftasks.apis.evaluating import test_images
from efftasks.config import innermost
from efftasks.export.quantization.recipe import CalibrationImages
from efftasks.imaging.crops import crop_matrix, cut_crop
from efftasks.imaging.images import UnreadableImage, read_image
from efftasks.imaging.sources import find_images, load_image
from efftasks.linking.data import leaves
from efftasks.linking.declared import declared, needed_annotations
from efftasks.linking.linked import LinkedConfig
from efftasks.registry import DATASETS
from efftasks.runtime.preprocess import fit_image, input_buffer, write_image
from efftasks.structures.errors import UserError
from efftasks.structures.quantization import QuantizationSettings
from efftasks.structures.spec import InputSpec

__all__ = ["TrainingImages", "choose_images", "entry_name", "network_input", "subset_config"]

Entry = dict[str, Any]
_T = TypeVar("_T")
_LOG = logging.getLogger("efftasks")


class TrainingImages(NamedTuple):
    """What quantization looks at."""

    calibration: CalibrationImages
    limit: int  # number of images with which a config that states the method chooses the same ones
    held_out: list[Entry]  # entries of images that calibration does not use; none where nothing is compared
    source: Any = None  # config of the training data set that they are of


def choose_images(
    cfg: LinkedConfig, spec: InputSpec, settings: QuantizationSettings, folder: str | Path | None = None
) -> TrainingImages:
    """Choose images, spread evenly over the training data. The same every time.

    Images of the test data are left out, since the file is verified on them, and so are those that cannot be read.
    Some are held out where methods are compared: by images, so that no two objects of one are on both sides.

    Args:
        cfg: the config.
        spec: how the network takes an image.
        settings: how many.
        folder: images to calibrate on instead of the training data.

    Raises:
        UserError: the training data cannot be read, or no image is left.
    """
    if folder is not None and spec.resize == "crop":
        raise UserError("--calib-images: the network takes crops around boxes, which a folder of images has not")
    tested = _tested(cfg)
    if folder is None:
        parts = [_Part.of(cfg, source, spec, tested) for source in _training_sets(cfg)]
    else:
        parts = [_Part(None, _by_image([dict(img_path=path) for path in find_images(folder)], tested))]
    images: dict[str, list[Entry]] = {}
    for part in parts:
        for path, entries in part.images.items():
            images.setdefault(path, []).extend(entries)
    is_compared = folder is None and settings.method == "auto"
    compared = next((part for part in parts if part.suits(cfg)), None) if is_compared else None
    limit = settings.images
    if compared is not None:  # with few images a third of them is held out
        limit = min(limit, max(1, len(images) - settings.subset, len(images) * 2 // 3))
    chosen, rest = _spread(list(images), limit)
    chosen = [path for path in chosen if _is_readable(images[path][0])]
    if not chosen:
        raise UserError(
            f"--calib-images: {folder or 'the training data'}, apart from the images of the test data, has no image "
            "that can be read; give a folder of other images"
        )
    calibration = _calibration([images[path] for path in chosen], spec, settings.images)
    if compared is None:
        return TrainingImages(calibration, limit, [])
    others = _spread([path for path in rest if path in compared.images], settings.subset)[0]
    held_out = [compared.images[path] for path in others if _is_readable(compared.images[path][0])]
    return TrainingImages(calibration, limit, [entry for same in held_out for entry in same], compared.source)


def network_input(entry: Entry, spec: InputSpec) -> np.ndarray:
    """An image, or the crop of an object, as the exported file takes it: float32 (1, 3, H, W), or (1, H, W, 3)."""
    pixels = load_image(entry["img_path"], 0, spec.pixel_range).pixels
    size = (spec.height, spec.width)
    if spec.resize == "crop":
        fitted = cut_crop(pixels, crop_matrix(entry["box"], size, spec.crop_padding), size, spec.pad_value)
    else:
        fitted, _ = fit_image(pixels, spec, size)
    buffer = input_buffer(1, size, spec)
    write_image(buffer[0], fitted, spec)
    return buffer


def _calibration(images: Sequence[Sequence[Entry]], spec: InputSpec, count: int) -> CalibrationImages:
    """Of the entries of each image: the image once, whatever data sets have it, but crops of all its objects."""
    each = [entry for same in images for entry in (same if spec.resize == "crop" else same[:1])]
    entries = _spread(each, count)[0]
    ends = [(pixel - mean) / std for mean, std in zip(spec.mean, spec.std) for pixel in (0, 255)]
    names = [entry_name(entry) for entry in entries]
    return CalibrationImages(names, lambda i: network_input(entries[i], spec), (min(ends), max(ends)))


def subset_config(cfg: LinkedConfig, images: TrainingImages, folder: Path) -> LinkedConfig:
    """A copy of a config whose test data are the images held out of its training data.

    Args:
        cfg: the config.
        images: with some that are held out.
        folder: for a file with the annotations of these images alone, where there are annotations.
    """
    subset = copy.deepcopy(cfg)
    dataset = {key: value for key, value in images.source.items() if key not in ("filter_cfg", "indices")}
    dataset.update(pipeline=innermost(cfg.test_dataloader.dataset).pipeline, test_mode=True)
    built = _build(cfg, copy.deepcopy(dataset))
    annotations = built.ann_file
    if annotations:
        path = (folder / "subset.json").resolve()  # a relative one would be looked for under data_root
        path.write_text(json.dumps(_of_images(annotations, {entry["img_id"] for entry in images.held_out})))
        dataset["ann_file"] = str(path)
        for evaluator in _list_of(subset.test_evaluator):
            if "ann_file" in evaluator:
                evaluator["ann_file"] = str(path)
    else:
        paths = {_path(entry) for entry in images.held_out}
        dataset["indices"] = [i for i in range(len(built)) if _path(built.get_data_info(i)) in paths]
    subset.test_dataloader.dataset = dataset
    return subset


@dataclass(frozen=True)
class _Part:
    """A data set that training uses, or a folder.

    Attributes:
        source: its config; None of a folder.
        images: path -> entries of an image: one, or one for each object. Those of the test data are left out.
        classes: names of its classes.
    """

    source: Any
    images: dict[str, list[Entry]]
    classes: tuple[str, ...] = ()

    @classmethod
    def of(cls, cfg: LinkedConfig, source: Any, spec: InputSpec, tested: Collection[str]) -> _Part:
        """A data set of the training data.

        Raises:
            UserError: it cannot be read.
        """
        try:
            dataset = _build(cfg, copy.deepcopy(source))
        except (UserError, FileNotFoundError) as error:
            raise UserError(
                f"{error}; calibration needs training images: set data_root, or give --calib-images DIR"
            ) from error
        entries = [dataset.get_data_info(i) for i in range(len(dataset))]
        if spec.resize == "crop":
            entries = [entry for entry in entries if "box" in entry]
        return cls(source, _by_image(entries, tested), tuple(dataset.metainfo.get("classes") or ()))

    def suits(self, cfg: LinkedConfig) -> bool:
        """Whether the metrics of a config can be measured on it as on the test data: it has the same annotations."""
        if not self.images or not cfg.get("test_evaluator"):
            return False
        test = innermost(cfg.test_dataloader.dataset)
        if declared(self.source.get("type"), "annotations") != declared(test.get("type"), "annotations"):
            return False
        if bool(test.get("seg_map")) > bool(self.source.get("seg_map")):
            return False
        if cfg.get("classes") and sorted(self.classes) != sorted(cfg.classes):
            return False
        needed = set().union(*(needed_annotations(metric) for metric in _list_of(cfg.test_evaluator)))
        objects = [part for entries in self.images.values() for entry in entries for part in entry.get("instances", ())]
        fields = (_FIELDS[kind] for kind in needed)
        return all(any(field in part for part in objects) for field in fields)


_FIELDS = {"masks": "mask", "keypoints": "keypoints"}  # of the objects of an entry


def _list_of(evaluators: Any) -> Sequence[Any]:
    return evaluators if isinstance(evaluators, Sequence) else [evaluators]


def _by_image(entries: Sequence[Entry], tested: Collection[str]) -> dict[str, list[Entry]]:
    """Entries by the path of their image, without those of the test data."""
    images: dict[str, list[Entry]] = {}
    for entry in entries:
        path = _path(entry)
        if path not in tested:
            images.setdefault(path, []).append(entry)
    return images


def _of_images(annotations: str, ids: set[Any]) -> dict[str, Any]:
    data = read_coco(annotations)
    return {
        "images": [image for image in data["images"] if image["id"] in ids],
        "annotations": [row for row in data["annotations"] if row["image_id"] in ids],
        "categories": data["categories"],
    }


def _training_sets(cfg: LinkedConfig) -> list[Any]:
    """The configs of the data sets of the training data."""
    if not cfg.get("train_dataloader"):
        raise UserError("train_dataloader: the config has none, and calibration needs images; give --calib-images DIR")
    return [source for _, source in leaves(cfg.train_dataloader.dataset)]


def _tested(cfg: LinkedConfig) -> set[str]:
    """Paths of the images of the test data; none where there are no test data here."""
    try:
        return {_path(entry) for entry in test_images(cfg)}
    except (UserError, OSError):
        return set()


def _build(cfg: LinkedConfig, dataset: Any) -> Any:
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return DATASETS.build(dataset)


def _spread(items: Sequence[_T], count: int) -> tuple[list[_T], list[_T]]:
    """``count`` items, evenly spaced, and the others."""
    chosen = set(np.linspace(0, len(items) - 1, min(count, len(items))).astype(int).tolist())
    return [items[i] for i in sorted(chosen)], [item for i, item in enumerate(items) if i not in chosen]


def _path(entry: Entry) -> str:
    return str(Path(entry["img_path"]).resolve())


def entry_name(entry: Entry) -> str:
    """Of an image in the digest, wherever the data are: its folder and file name; of an object with its box."""
    box = entry.get("box")
    name = "/".join(Path(entry["img_path"]).parts[-2:])
    return name if box is None else f"{name} {','.join(f'{side:g}' for side in box)}"


def _is_readable(entry: Entry) -> bool:
    try:
        read_image(entry["img_path"])
    except UnreadableImage as error:
        _LOG.warning("skipped: %s", error)
        return False
    return True
