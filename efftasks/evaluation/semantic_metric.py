"""Mean IoU as in Cityscapes, and the IoU of each class."""

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
    """mmseg's IoU metric, which sums the pixels of all images, with the IoU of every class.

    Adds ``IoU/<class>`` in percent to ``mIoU``, ``mAcc`` and ``aAcc``. As in mmseg, a class that occurs in neither the
    label maps nor the predictions is left out of the mean, and one that is only predicted counts as 0;
    ``mIoU_classes`` is the number of classes in the mean, and a warning names both kinds. The arguments are those of
    mmseg's metric. If a data set has objects and label maps, the classes of the maps are its ``semantic_classes``.
    """

    @property
    def dataset_meta(self) -> Any:
        """The data set's metainfo, with the classes of its label maps as ``classes``."""
        return self._dataset_meta

    @dataset_meta.setter
    def dataset_meta(self, meta: dict[str, Any]) -> None:
        """Set by mmengine's evaluator."""
        self._dataset_meta = {**meta, "classes": tuple(meta.get("semantic_classes") or meta["classes"])}

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Pixel counts of all images -> percentages; logs the table of classes.

        Raises:
            UserError: all pixels are ignored.
        """
        if self.format_only:
            return {key: float(value) for key, value in super().compute_metrics(results).items()}
        intersection, union, _, annotated = (torch.stack(counts).double().sum(0) for counts in zip(*results))
        if not annotated.sum():
            raise UserError(f"all pixels of {len(results)} label maps are ignored, expected some with a class to score")
        metrics = {key: float(value) for key, value in super().compute_metrics(results).items()}
        classes = self.dataset_meta["classes"]
        ious = (100 * intersection / union).tolist()
        metrics.update({f"IoU/{name}": round(iou, 2) for name, iou in zip(classes, ious) if not isnan(iou)})
        absent = [name for name, pixels in zip(classes, union) if not pixels and self.nan_to_num is None]
        metrics["mIoU_classes"] = float(len(classes) - len(absent))
        unannotated = [name for name, true, either in zip(classes, annotated, union) if either and not true]
        if absent or unannotated:
            print_log(_explain(len(classes), absent, unannotated), "current", logging.WARNING)
        return metrics


def _explain(count: int, absent: Sequence[str], unannotated: Sequence[str]) -> str:
    """The classes that the mean covers, those left out, and those only predicted."""
    parts = [f"mIoU is the mean over {count - len(absent)} of {count} classes"]
    if absent:
        parts.append(f"in neither label maps nor predictions, and left out: {_names(absent)}")
    if unannotated:
        parts.append(f"in no label map and predicted, which counts as 0: {_names(unannotated)}")
    return "; ".join(parts)


def _names(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names))
