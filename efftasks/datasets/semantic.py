"""The data set of semantic segmentation: a folder of images and a folder of label maps."""

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
from efftasks.structures.image_fit import PAD_VALUE

__all__ = ["SemanticFolder"]


@DATASETS.register_module()
class SemanticFolder(SkipUnreadable, BaseSegDataset):
    """Images and label maps of the same names; a label map has 8 bits, one channel, class indices, and 255 to ignore.

    If the numbers of the classes are not their indices, ``metainfo.label_values`` states the number of each class, such
    as ``(0, 255)`` for binary masks. 255 is ignored unless a class has it; ``metainfo.ignore`` is another number to
    ignore. A ``classes.json`` may state both. Any other number is an error when the map is read.

    Subfolders are searched, and images may have any usual suffix, see
    :func:`efftasks.datasets.semantic_files.find_pairs`. An image without a label map is an error, and so is a label map
    without an image, as a wrong folder would otherwise go unnoticed. Unreadable images are skipped, see
    :class:`SkipUnreadable`.

    Args:
        data_prefix: ``img_path`` and ``seg_map_path``, relative to ``data_root``.
        attempts: number of unreadable images in a row after which training stops.
        kwargs: of mmseg's BaseSegDataset: data_root, metainfo, pipeline, test_mode, indices, reduce_zero_label.

    Raises:
        UserError: class names are missing, a folder is missing or has no images, images and label maps do not pair up,
            or the values are not one number for each class.
    """

    class_file: ClassVar[str] = "classes.json"  # in data_root: names, colors and numbers of the classes
    annotations: ClassVar[str] = "label maps"
    linked_values: ClassVar[tuple[str, ...]] = ("label_values", "ignore")

    def __init__(self, data_prefix: Mapping[str, str], attempts: int = 50, **kwargs: Any) -> None:
        self.attempts = attempts
        metainfo = dict(kwargs.pop("metainfo", None) or {})
        if not metainfo.get("classes"):
            raise UserError("metainfo.classes: got none, expected the names of the classes, or `classes` in the config")
        if "palette" not in metainfo:
            metainfo["palette"] = [(r, g, b) for b, g, r in semantic_palette(len(metainfo["classes"]))]
        super().__init__(data_prefix=dict(data_prefix), metainfo=metainfo, **kwargs)

    def load_data_list(self) -> list[dict]:
        """One dict per image, sorted by name."""
        images, labels = self.data_prefix["img_path"], self.data_prefix["seg_map_path"]
        pairing = find_pairs(images, labels)
        ambiguous = [path for group in (*pairing.same_image, *pairing.same_label) for path in group]
        problems = [
            (pairing.without_label, f"have no label map in {labels}"),
            (pairing.without_image, f"have no image in {images}"),
            (ambiguous, "share a name without suffix"),
        ]
        for paths, problem in problems:
            if paths:
                check = f"`efftasks dataset check {labels}` lists them"
                raise UserError(f"{paths[0]}: one of {len(paths)} files that {problem}; {check}")
        values, ignore = self.metainfo.get("label_values"), self.metainfo.get("ignore")
        if values is not None and self.reduce_zero_label:
            raise UserError("reduce_zero_label: got True beside label_values, expected one of the two")
        value_map = label_values(self.metainfo["classes"], values, ignore)
        fields = dict(label_values=value_map, reduce_zero_label=self.reduce_zero_label)
        return [
            dict(img_path=str(pair.image), seg_map_path=str(pair.label), seg_fields=[], **fields)
            for pair in pairing.pairs
        ]

    def blank_image(self, info: dict) -> dict[str, Any]:
        """A gray image of the size of its label map."""
        shape = read_label(info["seg_map_path"]).shape[:2]
        return dict(img=np.full((*shape, 3), PAD_VALUE, np.uint8), img_shape=shape, ori_shape=shape)
