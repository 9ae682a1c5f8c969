"""Verification of a page in a browser: what it shows of real images is what ``Predictor`` gives."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from efftasks.export.page.browser import serve, start_browser
from efftasks.export.page.opened import OpenedPage, Shown
from efftasks.export.verify import ObjectComparison
from efftasks.export.verify_report import VerifyReport
from efftasks.imaging.prediction import Prediction
from efftasks.runtime.predictor import Predictor
from efftasks.structures.comparison import DetectionAgreement, Tolerance

__all__ = ["PageReport", "verify_page"]

_TOLERANCE = Tolerance(box_px=0.5, score=0.02, keypoint_px=0.5, keypoint_score=0.02)
_AREA = 1e-3  # of the picture, by which the area of a mask or class may differ


@dataclass(frozen=True)
class PageReport:
    """A page, compared with the runtime; as text, a sentence.

    Attributes:
        images: their number.
        objects: the comparison of boxes, scores, labels and keypoints; None where the model gives none.
        max_area_error: largest difference of the area of a mask or a class of the label map, as a share of the picture.
        milliseconds: that the network took in the browser, the median over the pictures.
    """

    images: int
    objects: VerifyReport | None
    max_area_error: float
    milliseconds: float

    @property
    def passed(self) -> bool:
        """Whether the page shows what the runtime gives."""
        return (self.objects is None or self.objects.passed) and self.max_area_error <= _AREA

    def to_dict(self) -> dict[str, Any]:
        """For the sidecar."""
        objects = {} if self.objects is None else self.objects.to_dict()
        figures = dict(images=self.images, max_area_error=self.max_area_error, milliseconds=self.milliseconds)
        return {**objects, **figures, "passed": self.passed}

    def __str__(self) -> str:
        parts = [] if self.objects is None else [str(self.objects)]
        parts.append(
            f"masks and label maps within {100 * self.max_area_error:.2g} % of the area (allowed {100 * _AREA:g} %)"
        )
        return f"in the browser, {self.images} images, {self.milliseconds:.0f} ms each: {'; '.join(parts)}"


def verify_page(page: Path, artifact: Path, backend: str, images: Sequence[np.ndarray]) -> PageReport:
    """Show images to a page, and compare.

    They are shown as PNGs: a browser may decode a JPEG otherwise than OpenCV.

    Args:
        page: the page; one that is a single file is opened as such, others are served.
        artifact: the file that it runs.
        backend: the runtime to compare with.
        images: uint8 (H, W, 3) BGR.

    Raises:
        UserError: no browser is installed.
        WorkError: the browser does not start, or the page says that it cannot run the model or show a picture.
    """
    predictor = Predictor(artifact, backend)
    policy = predictor.spec.policy
    # Both sides run the same file: where lists are cut, they are cut at the same place. Below 32 bits the browser's
    # kernels round elsewhere, which may move what is scored as background.
    tolerance, floor = _TOLERANCE, -1.0
    if isinstance(policy, DetectionAgreement):
        tolerance, floor = replace(_TOLERANCE, score=policy.score), policy.least_score
    finds = "boxes" in predictor.session.outputs
    comparison = ObjectComparison(tolerance, cut=False, floor=floor) if finds else None
    area_error, times = 0.0, []
    is_served = (page.parent / "js").is_dir()
    with (
        tempfile.TemporaryDirectory(prefix="efftasks-browser-") as folder,
        serve(page.parent) if is_served else nullcontext(page.resolve().as_uri()) as address,
        start_browser(Path(folder, "profile")) as browser,
    ):
        opened = OpenedPage(browser, address)
        for i, image in enumerate(images):
            picture = Path(folder, f"{i}.png")
            cv2.imwrite(str(picture), image)
            shown, (expected,) = opened.show(picture), predictor(image)
            times.append(shown.milliseconds)
            if comparison is not None:
                _add(comparison, expected, shown, image.shape[:2])
            area_error = max(area_error, _area_error(expected, shown) / (image.shape[0] * image.shape[1]))
    objects = None if comparison is None else comparison.report()
    return PageReport(len(images), objects, area_error, float(np.median(times)))


def _add(comparison: ObjectComparison, expected: Prediction, shown: Shown, size: tuple[int, ...]) -> None:
    """Compare the objects of an image, but for their masks, of which the page tells the areas alone."""
    reference = replace(expected, masks=None)
    values: dict[str, Any] = dict(
        boxes=shown.boxes, scores=shown.scores, labels=shown.labels, keypoints=shown.keypoints
    )
    comparison.add(reference, replace(reference, **values), (size[0], size[1]))


def _area_error(expected: Prediction, shown: Shown) -> float:
    """The largest difference in pixels of the area of a mask, sorted since ties change places, or of a class."""
    pairs = []
    if expected.masks is not None and shown.mask_areas is not None:
        pairs.append((np.sort(expected.masks.sum((1, 2))), np.sort(shown.mask_areas)))
    if expected.segmentation is not None:
        pairs.append((np.unique(expected.segmentation, return_counts=True)[1], shown.class_areas))
    return max((_difference(*pair) for pair in pairs), default=0.0)


def _difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).max(initial=0)) if a.shape == b.shape else float("inf")
