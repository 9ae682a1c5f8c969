"""Intersection over union as Cityscapes scores it, and per class."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from math import isnan
from typing import Any

import torch
from mmengine.logging import print_log
from mmseg.evaluation.metrics import IoUMetric

from efftasks.registry import METRICS
from efftasks.structures.errors import UserError

__all__ = ["SemanticIoU"]


@METRICS.register_module()
class SemanticIoU(IoUMetric):
    """mmseg's IoU metric, which counts the pixels of all images together, with the figures of every class.

    Adds ``IoU/<class>`` in percent to ``mIoU``, ``mAcc`` and ``aAcc``. As in mmseg, a class that neither truth nor
    prediction has is left out of the mean, and one that is only predicted counts as 0; ``mIoU_classes`` is the number
    of classes in the mean, and a warning names both kinds. Takes what mmseg's metric takes. Where the data has objects
    beside label maps, the classes of the maps are its ``semantic_classes``.
    """

    @property
    def dataset_meta(self) -> Any:
        """What the data says of itself, with the classes of its label maps as ``classes``."""
        return self._dataset_meta

    @dataset_meta.setter
    def dataset_meta(self, meta: dict[str, Any]) -> None:
        """Given by the evaluator."""
        self._dataset_meta = {**meta, "classes": tuple(meta.get("semantic_classes") or meta["classes"])}

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Counts of all images -> percentages; logs the table of classes.

        Raises:
            UserError: all pixels are ignored.
        """
        if self.format_only:
            return {key: float(value) for key, value in super().compute_metrics(results).items()}
        intersection, union, _, truth = (torch.stack(counts).double().sum(0) for counts in zip(*results))
        if not truth.sum():
            raise UserError(f"all pixels of {len(results)} label maps are ignored, expected some with a class to score")
        metrics = {key: float(value) for key, value in super().compute_metrics(results).items()}
        classes = self.dataset_meta["classes"]
        shares = (100 * intersection / union).tolist()
        metrics.update({f"IoU/{name}": round(share, 2) for name, share in zip(classes, shares) if not isnan(share)})
        absent = [name for name, pixels in zip(classes, union) if not pixels and self.nan_to_num is None]
        metrics["mIoU_classes"] = float(len(classes) - len(absent))
        untrue = [name for name, true, both in zip(classes, truth, union) if both and not true]
        if absent or untrue:
            print_log(_explain(len(classes), absent, untrue), "current", logging.WARNING)
        return metrics


def _explain(count: int, absent: Sequence[str], untrue: Sequence[str]) -> str:
    """What the mean is over, and which classes are not annotated."""
    parts = [f"mIoU is the mean over {count - len(absent)} of {count} classes"]
    if absent:
        parts.append(f"in neither label maps nor predictions, and left out: {_names(absent)}")
    if untrue:
        parts.append(f"in no label map and predicted, which counts as 0: {_names(untrue)}")
    return "; ".join(parts)


def _names(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names))
