"""The formats of pre-labels, and how each is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from efftasks.structures.errors import UserError

if TYPE_CHECKING:
    from efftasks.runtime.outputs import Writer

__all__ = ["FORMATS", "check_folder", "open_labels"]

FORMATS = ("coco", "yolo", "labelme", "cvat")


def open_labels(form: str, out: Path, score_thr: float) -> Writer:
    """What writes a format below ``out/FORM``.

    Args:
        form: one of ``FORMATS``.
        out: the folder of all of them.
        score_thr: minimum score, of objects and of each of their keypoints.
    """
    from efftasks.runtime.labels.coco import CocoLabels
    from efftasks.runtime.labels.cvat import CvatLabels
    from efftasks.runtime.labels.labelme import LabelmeLabels
    from efftasks.runtime.labels.yolo import YoloLabels

    writers: dict[str, Callable[[Path, float], Writer]] = {
        "coco": CocoLabels,
        "yolo": YoloLabels,
        "labelme": LabelmeLabels,
        "cvat": CvatLabels,
    }
    return writers[form](out / form, score_thr)


def check_folder(form: str, out: Path) -> None:
    """Raise UserError where there are files of the format already: they may have been corrected by hand."""
    folder = out / form
    if folder.is_file() or any(path.is_file() for path in folder.rglob("*")):
        raise UserError(f"{folder}: has files already, and labels may have been corrected; give another --out")
