"""Check a COCO annotation file and its images; the report has every fault."""

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
from efftasks.datasets.image_files import is_file, read_whole_image
from efftasks.datasets.pixel_depth import depth_note
from efftasks.datasets.progress import progress
from efftasks.imaging.file_faults import BrokenImageError
from efftasks.structures.errors import UserError

__all__ = ["CheckReport", "check_coco", "images_beside"]


@dataclass
class CheckReport:
    """The result of a check.

    ``counts`` are the numbers of entries of the file. ``notes`` are not faults, such as images without objects.
    """

    path: str
    images: str | None
    counts: dict[str, int] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """True if there are no faults."""
        return not self.faults

    def by_rule(self) -> dict[str, list[Fault]]:
        """Faults grouped by rule, in the order of ``RULES``, without empty groups."""
        groups: dict[str, list[Fault]] = {rule: [] for rule in RULES}
        for fault in self.faults:
            groups[fault.rule].append(fault)
        return {rule: faults for rule, faults in groups.items() if faults}

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data, for JSON."""
        groups = self.by_rule()
        return {
            "path": self.path,
            "images": self.images,
            "ok": self.ok,
            "counts": self.counts,
            "faults_by_rule": {rule: len(faults) for rule, faults in groups.items()},
            "faults": [_json_values(asdict(fault)) for faults in groups.values() for fault in faults],
            "notes": self.notes,
        }

    def render_text(self, examples: int = 3) -> str:
        """The report as text: each rule with its count and up to ``examples`` of its faults, then the notes."""
        counts = ", ".join(f"{number} {name}" for name, number in self.counts.items())
        lines = [f"{self.path}: {counts}" if counts else self.path]
        if self.images is not None:
            lines.append(f"images in {self.images}")
        groups = self.by_rule()
        for rule, faults in groups.items():
            lines += ["", f"{rule}: {len(faults)} x {RULES[rule]}"]
            lines += [f"  - {fault.message}" for fault in faults[:examples]]
            if len(faults) > examples:
                lines.append(f"  - ... and {len(faults) - examples} more")
        if self.notes:
            lines += ["", "notes (no faults):", *(f"  - {note}" for note in self.notes)]
        total = len(self.faults)
        count = f"{total} fault" if total == 1 else f"{total} faults"
        verdict = f"{count} in {len(groups)} rule{'s' * (len(groups) > 1)}" if total else "no faults"
        return "\n".join([*lines, "", f"result: {verdict}"])


def images_beside(path: str | Path) -> Path | None:
    """``DIR/images`` for a file ``DIR/annotations/X.json``, where there is such a folder."""
    images = _images_path(path)
    return images if images.is_dir() else None


def _images_path(path: str | Path) -> Path:
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
        images: the folder that ``file_name`` is relative to; every image is read and decoded. None takes the folder of
            ``images_beside``; if there is none, the images are not checked, and a note says so.
        classes: the expected names of the categories.
        keypoints: expected number of keypoints of each annotation; None takes that of its category.
        threads: number of threads that decode images; None takes one per core.

    Raises:
        UserError: the file or the folder does not exist. Faults *in* them are in the report.
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
    report.notes += _entry_notes(content)
    if images is None:
        folder = _images_path(path)
        report.notes.append(f"the image files were not looked at: no folder was given, and {folder} is none")
    else:
        image_faults = list(_image_files(content, Path(images), threads or os.cpu_count() or 1))
        report.faults += image_faults
        names = [image["file_name"] for image in content.images if isinstance(image.get("file_name"), str)]
        note = depth_note([Path(images, name) for name in names])
        report.notes += [] if note is None else [note]
        missing = sum(fault.rule == "image-missing" for fault in image_faults)
        if missing and missing == len({str(image.get("file_name")) for image in content.images}):
            report.notes.append(f"not one image was found: is {images} the folder that file_name is relative to?")
    return report


def _entry_notes(content: Content) -> Iterator[str]:
    """Notes on ids that are strings, images without annotations, categories without annotations."""
    texts = sum(isinstance(image.get("id"), str) for image in content.images)
    if texts:
        yield f"the ids of {texts} images are texts: efftasks takes them, other tools may want whole numbers"
    used = {str(annotation.get("image_id")) for annotation in content.annotations}
    unused = [str(image.get("file_name")) for image in content.images if str(image.get("id")) not in used]
    if unused:
        yield f"{len(unused)} of {len(content.images)} images have no annotations ({_some(unused)})"
    used = {str(annotation.get("category_id")) for annotation in content.annotations}
    unused = [str(entry.get("name")) for entry in content.categories if str(entry.get("id")) not in used]
    if unused:
        yield f"{len(unused)} of {len(content.categories)} categories have no annotations ({_some(unused)})"


def _some(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def _image_files(content: Content, folder: Path, threads: int) -> Iterator[Fault]:
    """Read every file once, in threads, as OpenCV decodes without holding the GIL."""
    entries = {str(image["file_name"]): image for image in content.images if isinstance(image.get("file_name"), str)}
    with ThreadPoolExecutor(max_workers=threads) as pool:
        results = pool.map(lambda image: _image_file(image, folder), entries.values())
        for fault in progress(results, len(entries), "images"):
            if fault is not None:
                yield fault


def _image_file(image: dict[str, Any], folder: Path) -> Fault | None:
    name, key = image["file_name"], image.get("id")
    path = folder / name
    if not is_file(path):
        return Fault("image-missing", f"image {key}: {path} is not there", image_id=key, file_name=name)
    try:
        height, width = read_whole_image(path).shape[:2]
    except BrokenImageError as error:
        return Fault("image-unreadable", f"image {key}: {path} {error}", image_id=key, file_name=name)
    annotated = (image.get("width"), image.get("height"))
    if annotated == (width, height) or None in annotated:
        return None
    swapped = "; the two sides are swapped" if annotated == (height, width) else ""
    message = f"image {key}: {path} is {width} x {height}, the file says {annotated[0]} x {annotated[1]}{swapped}"
    return Fault("image-size", message, image_id=key, file_name=name)


def _json_values(fault: dict[str, Any]) -> dict[str, Any]:
    """The fields of a fault for JSON; ids other than integers and strings, such as nan, become strings."""
    return {
        key: value if value is None or isinstance(value, (int, str)) else str(value) for key, value in fault.items()
    }
