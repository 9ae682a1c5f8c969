"""Training images for quantization: some to calibrate on, others to compare methods on. Never those of the test."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

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
from efftasks.linking.linked import LinkedConfig
from efftasks.registry import DATASETS
from efftasks.runtime.preprocess import channels_first, fit_image, input_buffer, normalize_into
from efftasks.structures.errors import UserError
from efftasks.structures.quantization import QuantizationSettings
from efftasks.structures.spec import InputSpec

__all__ = ["TrainingImages", "choose_images", "network_input", "subset_config"]

Entry = dict[str, Any]
_LOG = logging.getLogger("efftasks")


class TrainingImages(NamedTuple):
    """What quantization looks at."""

    calibration: CalibrationImages
    held_out: list[Entry]  # entries of the training data that calibration does not use; none of a folder


def choose_images(
    cfg: LinkedConfig, spec: InputSpec, settings: QuantizationSettings, folder: str | Path | None = None
) -> TrainingImages:
    """Choose images, spread evenly over the training data. The same every time.

    Images of the test data are left out, since the file is verified on them, and so are those that cannot be read.

    Args:
        cfg: the config.
        spec: how the network takes an image.
        settings: how many.
        folder: images to calibrate on instead of the training data.

    Raises:
        UserError: the training data cannot be read, or no image is left.
    """
    entries = _training_entries(cfg) if folder is None else [dict(img_path=path) for path in find_images(folder)]
    if folder is not None and spec.resize == "crop":
        raise UserError("--calib-images: the network takes crops around boxes, which a folder of images has not")
    tested = _tested(cfg)
    entries = [entry for entry in entries if _path(entry) not in tested]
    # With few images a third of them is held out.
    count = min(settings.images, max(1, len(entries) - settings.subset, len(entries) * 2 // 3))
    chosen, rest = _spread(entries, count)
    chosen = [entry for entry in chosen if _is_readable(entry)]
    if not chosen:
        place = "the training data, apart from the images of the test data," if folder is None else str(folder)
        raise UserError(f"--calib-images: {place} has no image that can be read; give a folder of such images")
    images = CalibrationImages([_name(entry) for entry in chosen], lambda i: network_input(chosen[i], spec))
    return TrainingImages(images, [] if folder is not None else _spread(rest, settings.subset)[0])


def network_input(entry: Entry, spec: InputSpec) -> np.ndarray:
    """An image, or the crop of an object, as the exported file takes it: float32 (1, 3, H, W), or (1, H, W, 3)."""
    pixels = load_image(entry["img_path"], 0, spec.pixel_range).pixels
    size = (spec.height, spec.width)
    if spec.resize == "crop":
        fitted = cut_crop(pixels, crop_matrix(entry["box"], size, spec.crop_padding), size, spec.pad_value)
    else:
        fitted, _ = fit_image(pixels, spec, size)
    buffer = input_buffer(1, size, spec)
    normalize_into(channels_first(buffer, spec)[0], fitted, spec)
    return buffer


def subset_config(cfg: LinkedConfig, entries: Sequence[Entry], folder: Path) -> LinkedConfig:
    """A copy of a config whose test data are entries of its training data.

    Args:
        cfg: the config.
        entries: of the training data.
        folder: for a file with the annotations of these images alone, where there are annotations.
    """
    subset = copy.deepcopy(cfg)
    source = innermost(subset.train_dataloader.dataset)
    dataset = {key: value for key, value in source.items() if key not in ("filter_cfg", "indices")}
    dataset.update(pipeline=innermost(cfg.test_dataloader.dataset).pipeline, test_mode=True)
    built = _build(cfg, source)
    annotations = built.ann_file
    if annotations:
        path = folder / "subset.json"
        path.write_text(json.dumps(_of_images(annotations, {entry["img_id"] for entry in entries})))
        dataset["ann_file"] = str(path)
        evaluators = subset.test_evaluator if isinstance(subset.test_evaluator, list) else [subset.test_evaluator]
        for evaluator in evaluators:
            if "ann_file" in evaluator:
                evaluator["ann_file"] = str(path)
    else:
        paths = {_path(entry) for entry in entries}
        dataset["indices"] = [i for i in range(len(built)) if _path(built.get_data_info(i)) in paths]
    subset.test_dataloader.dataset = dataset
    return subset


def _of_images(annotations: str, ids: set[Any]) -> dict[str, Any]:
    data = read_coco(annotations)
    return {
        "images": [image for image in data["images"] if image["id"] in ids],
        "annotations": [row for row in data["annotations"] if row["image_id"] in ids],
        "categories": data["categories"],
    }


def _training_entries(cfg: LinkedConfig) -> list[Entry]:
    if not cfg.get("train_dataloader"):
        raise UserError("train_dataloader: the config has none, and calibration needs images; give --calib-images DIR")
    try:
        dataset = _build(cfg, innermost(cfg.train_dataloader.dataset))
    except (UserError, FileNotFoundError) as error:
        raise UserError(
            f"{error}; calibration needs training images: set data_root, or give --calib-images DIR"
        ) from error
    return [dataset.get_data_info(i) for i in range(len(dataset))]


def _tested(cfg: LinkedConfig) -> set[str]:
    """Paths of the images of the test data; none where there are no test data here."""
    try:
        return {_path(entry) for entry in test_images(cfg)}
    except (UserError, OSError):
        return set()


def _build(cfg: LinkedConfig, dataset: Any) -> Any:
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return DATASETS.build(dataset)


def _spread(entries: Sequence[Entry], count: int) -> tuple[list[Entry], list[Entry]]:
    """``count`` entries, evenly spaced, and the others."""
    chosen = set(np.linspace(0, len(entries) - 1, min(count, len(entries))).astype(int).tolist())
    return [entries[i] for i in sorted(chosen)], [entry for i, entry in enumerate(entries) if i not in chosen]


def _path(entry: Entry) -> str:
    return str(Path(entry["img_path"]).resolve())


def _name(entry: Entry) -> str:
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
