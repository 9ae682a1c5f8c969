"""Whether the metrics of an exported file are as high as its model's, where its precision is lower."""

from __future__ import annotations

import math
from collections.abc import Mapping

from efftasks.structures.comparison import DetectionAgreement, Policy

__all__ = ["check_metrics", "main_metrics"]

Metrics = Mapping[str, float]


def main_metrics(metrics: Metrics) -> dict[str, float]:
    """AP and mIoU over all classes, sizes and thresholds; all metrics where there is neither.

    The others, such as the AP of small objects, are parts of these: on some hundred objects chance moves them by more
    than a good quantization does, and what one loses another may gain.
    """
    main = {name: value for name, value in metrics.items() if name.endswith(("mAP", "mIoU"))}
    return main or dict(metrics)


def check_metrics(policy: Policy, metrics: Mapping[str, Metrics]) -> str:
    """Compare the main metrics of the test data, higher being better.

    Args:
        policy: what is allowed; where the same numbers are expected, detections have been compared one by one already.
        metrics: of ``pytorch``, and of ``artifact`` and perhaps other forms of the file; empty where they were not
            measured.

    Returns:
        What is too low, in words; empty where nothing is.
    """
    if not metrics or not isinstance(policy, DetectionAgreement):
        return ""
    low = [
        f"{name} {file[name]:.4f} for {value:.4f}"
        for file in (values for form, values in metrics.items() if form != "pytorch")
        for name, value in main_metrics(metrics["pytorch"]).items()
        if not math.isnan(value) and not file[name] >= value - policy.metric_drop * abs(value)
    ]
    return f"metrics fell by more than {100 * policy.metric_drop:g} %: {', '.join(low)}" if low else ""
