"""Intersection over union as Cityscapes scores it, and per class."""

from __future__ import annotations

import math
from typing import Any

import torch
from mmseg.evaluation.metrics import IoUMetric

from efftasks.registry import METRICS

__all__ = ["SemanticIoU"]


@METRICS.register_module()
class SemanticIoU(IoUMetric):
    """mmseg's IoU metric, which counts the pixels of all images together, with the figures of every class.

    Adds ``IoU/<class>`` in percent to ``mIoU``, ``mAcc`` and ``aAcc``. A class that neither truth nor prediction has
    is left out, and does not count in the mean. Takes what mmseg's metric takes. Where the data has objects beside
    label maps, the classes of the maps are its ``semantic_classes``.
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
        """Counts of all images -> percentages; logs the table of classes."""
        metrics = {key: float(value) for key, value in super().compute_metrics(results).items()}
        if not self.format_only:
            intersection, union = (torch.stack([row[i] for row in results]).double().sum(0) for i in (0, 1))
            shares = (100 * intersection / union).tolist()
            named = zip(self.dataset_meta["classes"], shares)
            metrics.update({f"IoU/{name}": round(share, 2) for name, share in named if not math.isnan(share)})
        return metrics
