"""Check a COCO annotation file, and its images, for every fault at once."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from efftasks.annotations.coco import read_json
from efftasks.datasets import coco_rules as rules
from efftasks.datasets.coco_rules import RULES, Content, Fault
from efftasks.datasets.image_files import BrokenImageError, read_whole_image
from efftasks.datasets.pixel_depth import depth_note
from efftasks.datasets.progress import progress
from efftasks.structures.errors import UserError

__all__ = ["CheckReport", "check_coco", "images_beside"]


@dataclass
class CheckReport:
    """What a check found.

    ``counts`` are the entries of the file. ``notes`` are worth knowing and no faults, such as images without objects.
    """

    path: str
    images: str | None
    counts: dict[str, int] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether there is no fault."""
        return not self.faults

    def by_rule(self) -> dict[str, list[Fault]]:
        """The faults of each rule that has any, in the order of ``RULES``."""
        found: dict[str, list[Fault]] = {rule: [] for rule in RULES}
        for fault in self.faults:
            found[fault.rule].append(fault)
        return {rule: faults for rule, faults in found.items() if faults}

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        grouped = self.by_rule()
        return {
            "path": self.path,
            "images": self.images,
            "ok": self.ok,
            "counts": self.counts,
            "faults_by_rule": {rule: len(faults) for rule, faults in grouped.items()},
            "faults": [_plain(asdict(fault)) for faults in grouped.values() for fault in faults],
            "notes": self.notes,
        }

    def render_text(self, examples: int = 3) -> str:
        """The report to be read: every rule with its count and the first few of its faults, then the notes."""
        counts = ", ".join(f"{number} {name}" for name, number in self.counts.items())
        lines = [f"{self.path}: {counts}" if counts else self.path]
        if self.images is not None:
            lines.append(f"images in {self.images}")
        grouped = self.by_rule()
        for rule, faults in grouped.items():
            lines += ["", f"{rule}: {len(faults)} x {RULES[rule]}"]
            lines += [f"  - {fault.message}" for fault in faults[:examples]]
            if len(faults) > examples:
                lines.append(f"  - ... and {len(faults) - examples} more")
        if self.notes:
            lines += ["", "notes (no faults):", *(f"  - {note}" for note in self.notes)]
        total = len(self.faults)
        count = f"{total} fault" if total == 1 else f"{total} faults"
        verdict = f"{count} in {len(grouped)} rule{'s' * (len(grouped) > 1)}" if total else "no faults"
        return "\n".join([*lines, "", f"result: {verdict}"])


def images_beside(path: str | Path) -> Path | None:
    """``DIR/images`` for a file ``DIR/annotations/X.json``, where there is such a folder."""
    images = _beside(path)
    return images if images.is_dir() else None


def _beside(path: str | Path) -> Path:
    return Path(os.path.normpath(Path(path).parent / ".." / "images"))


def check_coco(
    path: str | Path,
    images: str | Path | None = None,
    classes: Sequence[str] | None = None,
    keypoints: int | None = None,
    threads: int | None = None,
) -> CheckReport:
    """Check a COCO file against every rule of ``coco_rules.RULES``.

    Args:
        path: the annotation file.
        images: the folder that ``file_name`` is relative to; every image is read and decoded. None takes the one that
            ``images_beside`` finds; without one the images are not looked at, and a note says so.
        classes: the names that the categories must be.
        keypoints: how many keypoints each annotation must have; None takes the names that its category lists.
        threads: that decode images; None takes one for each core.

    Raises:
        UserError: the file or the folder is not there. What is wrong *in* them is in the report.
    """
    if not Path(path).is_file():
        raise UserError(f"{path}: no such annotation file")
    images = images_beside(path) if images is None else images
    if images is not None and not Path(images).is_dir():
        raise UserError(f"{images}: no such folder of images")
    report = CheckReport(path=str(path), images=None if images is None else str(images))
    try:
        data = read_json(path)
    except UserError as error:
        report.faults.append(Fault("file", str(error)))
        return report
    content, report.faults = rules.structure(data)
    report.counts = {
        "images": len(content.images),
        "annotations": len(content.annotations),
        "categories": len(content.categories),
    }
    report.faults += rules.duplicates(content)
    if classes is not None:
        report.faults += rules.class_list(content, classes)
    for rule in (rules.references, rules.boxes, rules.masks):
        report.faults += rule(content)
    report.faults += rules.keypoints(content, keypoints)
    report.notes += _without(content)
    if images is None:
        report.notes.append(f"the image files were not looked at: no folder was given, and {_beside(path)} is none")
    else:
        found = list(_image_files(content, Path(images), threads or os.cpu_count() or 1))
        report.faults += found
        names = [image["file_name"] for image in content.images if isinstance(image.get("file_name"), str)]
        note = depth_note([Path(images, name) for name in names])
        report.notes += [] if note is None else [note]
        missing = sum(fault.rule == "image-missing" for fault in found)
        if missing and missing == len({str(image.get("file_name")) for image in content.images}):
            report.notes.append(f"not one image was found: is {images} the folder that file_name is relative to?")
    return report


def _without(content: Content) -> Iterator[str]:
    """Ids that are texts, images without annotations, categories without annotations."""
    texts = sum(isinstance(image.get("id"), str) for image in content.images)
    if texts:
        yield f"the ids of {texts} images are texts: efftasks takes them, other tools may want whole numbers"
    used = {str(annotation.get("image_id")) for annotation in content.annotations}
    bare = [str(image.get("file_name")) for image in content.images if str(image.get("id")) not in used]
    if bare:
        yield f"{len(bare)} of {len(content.images)} images have no annotations ({_some(bare)})"
    used = {str(annotation.get("category_id")) for annotation in content.annotations}
    bare = [str(entry.get("name")) for entry in content.categories if str(entry.get("id")) not in used]
    if bare:
        yield f"{len(bare)} of {len(content.categories)} categories have no annotations ({_some(bare)})"


def _some(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def _image_files(content: Content, folder: Path, threads: int) -> Iterator[Fault]:
    """Read every file once; OpenCV decodes outside Python's lock, so threads help."""
    entries = {str(image["file_name"]): image for image in content.images if isinstance(image.get("file_name"), str)}
    with ThreadPoolExecutor(max_workers=threads) as pool:
        results = pool.map(lambda image: _image_file(image, folder), entries.values())
        for fault in progress(results, len(entries), "images"):
            if fault is not None:
                yield fault


def _image_file(image: dict[str, Any], folder: Path) -> Fault | None:
    name, key = image["file_name"], image.get("id")
    path = folder / name
    if not _is_file(path):
        return Fault("image-missing", f"image {key}: {path} is not there", image_id=key, file_name=name)
    try:
        height, width = read_whole_image(path).shape[:2]
    except BrokenImageError as error:
        return Fault("image-unreadable", f"image {key}: {path} {error}", image_id=key, file_name=name)
    said = (image.get("width"), image.get("height"))
    if said == (width, height) or None in said:
        return None
    turned = "; the two sides are swapped" if said == (height, width) else ""
    what = f"image {key}: {path} is {width} x {height}, the file says {said[0]} x {said[1]}{turned}"
    return Fault("image-size", what, image_id=key, file_name=name)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # such as a name that is too long
        return False


def _plain(fault: dict[str, Any]) -> dict[str, Any]:
    """For JSON: ids as whole numbers, or as text where the file has something else, such as nan."""
    return {
        key: value if value is None or isinstance(value, (int, str)) else str(value) for key, value in fault.items()
    }
