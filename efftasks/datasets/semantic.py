"""Semantic segmentation from a folder of images and a folder of label maps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import efftasks.compat  # noqa: F401

# isort: split
import numpy as np
from mmseg.datasets import BaseSegDataset

from efftasks.datasets.semantic_files import find_pairs, read_label
from efftasks.datasets.semantic_values import label_values
from efftasks.datasets.skipping import SkipUnreadable
from efftasks.imaging.semantic_drawing import semantic_palette
from efftasks.registry import DATASETS
from efftasks.structures.errors import UserError

__all__ = ["SemanticFolder"]


@DATASETS.register_module()
class SemanticFolder(SkipUnreadable, BaseSegDataset):
    """Images and label maps (8-bit, one channel, the index of a class in each pixel, 255 ignored) of the same names.

    Where classes have other numbers than their indices, ``metainfo.label_values`` states the number of each, such as
    ``(0, 255)`` for binary masks; 255 is ignored where no class has it. Where ``metainfo.ignore`` names another number,
    that one is ignored too. A ``classes.json`` may state both. Any other number is an error when the map is read.

    Images of any usual suffix, in subfolders as well; see :func:`efftasks.datasets.semantic_files.find_pairs`. Every
    image needs its label map, and a label map without an image is an error too: a wrong folder would otherwise train
    on a part in silence. Images that cannot be read are skipped, see :class:`SkipUnreadable`.

    Args:
        data_prefix: ``img_path`` and ``seg_map_path``, relative to ``data_root``.
        attempts: how many images in a row may be unreadable before training gives up.
        kwargs: as mmseg's BaseSegDataset: data_root, metainfo, pipeline, test_mode, indices, reduce_zero_label.

    Raises:
        UserError: no class names, a folder is missing or has no images, images and label maps do not pair up, or the
            numbers are not one for each class.
    """

    class_file: ClassVar[str] = "classes.json"  # in data_root: names, colors and numbers of the classes

    def __init__(self, data_prefix: Mapping[str, str], attempts: int = 50, **kwargs: Any) -> None:
        self.attempts = attempts
        metainfo = dict(kwargs.pop("metainfo", None) or {})
        if not metainfo.get("classes"):
            raise UserError("metainfo.classes: got none, expected the names of the classes, or `classes` in the config")
        if "palette" not in metainfo:
            metainfo["palette"] = [(r, g, b) for b, g, r in semantic_palette(len(metainfo["classes"]))]
        super().__init__(data_prefix=dict(data_prefix), metainfo=metainfo, **kwargs)

    def load_data_list(self) -> list[dict]:
        """One dict an image, by name."""
        images, labels = self.data_prefix["img_path"], self.data_prefix["seg_map_path"]
        found = find_pairs(images, labels)
        alike = [path for group in (*found.same_image, *found.same_label) for path in group]
        wrong = [
            (found.without_label, f"have no label map in {labels}"),
            (found.without_image, f"have no image in {images}"),
            (alike, "share a name without suffix"),
        ]
        for paths, what in wrong:
            if paths:
                raise UserError(
                    f"{paths[0]}: one of {len(paths)} files that {what}; `efftasks dataset check {labels}` lists them"
                )
        values, ignore = self.metainfo.get("label_values"), self.metainfo.get("ignore")
        if values is not None and self.reduce_zero_label:
            raise UserError("reduce_zero_label: got True beside label_values, expected one of the two")
        known = label_values(self.metainfo["classes"], values, ignore)
        facts = dict(label_values=known, reduce_zero_label=self.reduce_zero_label)
        return [
            dict(img_path=str(pair.image), seg_map_path=str(pair.label), seg_fields=[], **facts) for pair in found.pairs
        ]

    def blank_image(self, info: dict) -> dict[str, Any]:
        """Grey, of the size of its label map."""
        shape = read_label(info["seg_map_path"]).shape[:2]
        return dict(img=np.full((*shape, 3), 114, np.uint8), img_shape=shape, ori_shape=shape)
