"""Check a folder of label maps and its images; the report has every fault."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from efftasks.datasets.image_files import read_whole_image
from efftasks.datasets.pixel_depth import depth_note
from efftasks.datasets.progress import progress
from efftasks.datasets.semantic_files import (
    ClassList,
    Pair,
    Pairing,
    StoredLabel,
    classes_of,
    find_pairs,
    images_of,
    load_label,
)
from efftasks.datasets.semantic_values import LabelValues, label_values, suggest_values
from efftasks.imaging.file_faults import BrokenImageError
from efftasks.structures.errors import UserError

__all__ = ["RULES", "ClassCount", "SemanticFault", "SemanticReport", "check_semantic", "ignore_label"]

Severity = Literal["fault", "warning"]


class Rule(NamedTuple):
    """Severity of a rule, and its line in the report. A warning may be intended."""

    severity: Severity
    text: str


# In the order in which a report shows them.
RULES = {
    "image-ambiguous": Rule("fault", "names belong to several images"),
    "label-ambiguous": Rule("fault", "names belong to several label maps"),
    "image-without-label": Rule("fault", "images have no label map"),
    "label-without-image": Rule("fault", "label maps have no image"),
    "image-unreadable": Rule("fault", "images cannot be read, or are truncated"),
    "label-unreadable": Rule("fault", "label maps cannot be read, or are truncated"),
    "label-size": Rule("fault", "label maps differ from their image in size"),
    "label-channels": Rule("fault", "label maps have several channels, as color pictures do"),
    "label-lossy": Rule("fault", "label maps are saved with loss"),
    "label-type": Rule("fault", "label maps have other numbers than 8 bit without sign"),
    "label-ids": Rule("fault", "label maps have numbers that are neither a class nor ignored"),
    "label-values": Rule("fault", "label maps are drawn with other numbers than the classes'"),
    "class-alone": Rule("fault", "all pixels are of one class"),
    "only-ignored": Rule("warning", "label maps have ignored pixels only"),
    "class-unused": Rule("warning", "classes occur in no label map"),
}


@dataclass(frozen=True)
class SemanticFault:
    """One fault or warning: the rule (a key of ``RULES``), a sentence, and the files that it is about."""

    rule: str
    message: str
    image: Path | None = None
    label: Path | None = None

    def to_dict(self) -> dict[str, Any]:
        """The fault as plain data, for JSON."""
        return {
            "rule": self.rule,
            "message": self.message,
            "image": None if self.image is None else str(self.image),
            "label": None if self.label is None else str(self.label),
        }


@dataclass(frozen=True)
class ClassCount:
    """How often a number occurs: in ``pixels``, as a ``share`` of all counted pixels, and in how many ``images``."""

    id: int  # the number in the label maps
    name: str | None  # None for a number that is no class, and for all numbers without class names
    pixels: int
    share: float
    images: int


@dataclass
class SemanticReport:
    """The result of a check.

    ``faults`` includes warnings. ``table`` has the classes and all other numbers that occur, by id, in the ``counted``
    label maps that are in a valid format. ``notes`` are neither faults nor warnings.
    """

    labels: str
    images: str
    ignore: int | None  # the ignored number; None if none is stated and 255 is a class
    classes: ClassList | None = None
    counts: dict[str, int] = field(default_factory=dict)
    faults: list[SemanticFault] = field(default_factory=list)
    table: list[ClassCount] = field(default_factory=list)
    counted: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """True if there are no faults; there may be warnings."""
        return not self.number_of("fault")

    def number_of(self, severity: Severity) -> int:
        """The number of faults or of warnings."""
        return sum(RULES[fault.rule].severity == severity for fault in self.faults)

    def by_rule(self, severity: Severity | None = None) -> dict[str, list[SemanticFault]]:
        """Faults grouped by rule, in the order of ``RULES``, without empty groups; None takes both severities."""
        groups: dict[str, list[SemanticFault]] = {name: [] for name in RULES}
        for fault in self.faults:
            groups[fault.rule].append(fault)
        return {name: faults for name, faults in groups.items() if faults and severity in (None, RULES[name].severity)}

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data, for JSON."""
        return {
            "path": self.labels,
            "images": self.images,
            "ok": self.ok,
            "counts": self.counts,
            "ignore": self.ignore,
            "faults_by_rule": {name: len(faults) for name, faults in self.by_rule("fault").items()},
            "warnings_by_rule": {name: len(faults) for name, faults in self.by_rule("warning").items()},
            "faults": [fault.to_dict() for faults in self.by_rule("fault").values() for fault in faults],
            "warnings": [fault.to_dict() for faults in self.by_rule("warning").values() for fault in faults],
            "classes": [vars(row) for row in self.table],
            "counted": self.counted,
            "notes": self.notes,
        }

    def render_text(self, examples: int = 3) -> str:
        """The report as text: each rule with its count and up to ``examples`` of its faults, the classes, the notes."""
        lines = [f"{self.labels}: " + ", ".join(f"{number} {name}" for name, number in self.counts.items())]
        lines.append(f"images in {self.images}")
        if self.classes is not None:
            origin = f" from {self.classes.origin}" if self.classes.origin else ""
            ignored = "nothing" if self.ignore is None else self.ignore
            lines.append(f"{len(self.classes.names)} classes{origin}, {ignored} is ignored")
        for name, faults in self.by_rule().items():
            lines += ["", f"{name} ({RULES[name].severity}): {len(faults)} x {RULES[name].text}"]
            lines += [f"  - {fault.message}" for fault in faults[:examples]]
            if len(faults) > examples:
                lines.append(f"  - ... and {len(faults) - examples} more")
        if self.table:
            lines += ["", *_render_table(self.table, self.ignore, self.classes is not None)]
            lines.append(f"counted in {_many(self.counted, 'label map')}; share: of all their pixels")
        if self.notes:
            lines += ["", "notes (no faults):", *(f"  - {note}" for note in self.notes)]
        verdict = _many(self.number_of("fault"), "fault") if not self.ok else "no faults"
        warnings = self.number_of("warning")
        return "\n".join([*lines, "", f"result: {verdict}" + (f", {_many(warnings, 'warning')}" if warnings else "")])


def _many(number: int, what: str) -> str:
    return f"{number} {what}" + "s" * (number != 1)


def _render_table(table: Sequence[ClassCount], ignore: int | None, named: bool) -> list[str]:
    unknown = "(no class)" if named else ""
    names = ["(ignored)" if row.id == ignore else row.name or unknown for row in table]
    width = max(5, *map(len, names))
    lines = [f" id  {'class' if named else '':{width}}  {'pixels':>15}  {'share':>8}  images"]
    for row, name in zip(table, names, strict=True):
        # A class of few pixels is not one of none.
        percentage = "< 0.01 %" if 0 < row.share < 5e-5 else f"{row.share:.2%}".replace("%", " %")
        lines.append(f"{row.id:3}  {name:{width}}  {row.pixels:15,}  {percentage:>8}  {row.images:6}")
    return lines


def ignore_label(classes: ClassList | None, ignore: int | None) -> int | None:
    """The number of pixels without a class: ``ignore``, else that of the ``classes.json``, else 255.

    Returns:
        The number; None if none is stated and 255 is a class.

    Raises:
        UserError: the number is not 0 to 255, or it is that of a class.
    """
    number = classes.ignore if classes is not None and ignore is None else ignore
    if classes is None:
        names: tuple[str, ...] = ()
        values = None
    else:
        names, values = classes.names, classes.values
    value_map = label_values(names, values, number)
    return number if number is not None else next(iter(value_map.ignored), None)


def check_semantic(
    labels: str | Path,
    images: str | Path | None = None,
    classes: Sequence[str] | None = None,
    ignore: int | None = None,
    threads: int | None = None,
    values: Sequence[int] | None = None,
) -> SemanticReport:
    """Check label maps and their images against every rule of ``RULES``; every file is read and decoded.

    Args:
        labels: the folder of the label maps.
        images: the folder of their images; None takes that of ``images_of``.
        classes: class names; None takes those of ``find_classes``. Without names the numbers are counted but not
            checked, and a note says so.
        ignore: the number of pixels without a class; None takes that of the ``classes.json``, or 255.
        threads: number of threads that decode files; None takes one per core.
        values: the number of each class in the label maps; None takes that of the ``classes.json``, or the index.

    Raises:
        UserError: a folder is missing or has no pictures, or the classes cannot be used. Faults *in* the folders are in
            the report.
    """
    if not Path(labels).is_dir():
        raise UserError(f"{labels}: no such folder of label maps")
    class_list = classes_of(labels, classes, values)
    ignored = ignore_label(class_list, ignore)
    value_map = None if class_list is None else label_values(class_list.names, class_list.values, ignored)
    if value_map is not None and ignored is not None:
        value_map = replace(value_map, ignored=(ignored,))  # with another ignored number, 255 is unexpected
    images = images_of(labels) if images is None else images
    pairing = find_pairs(images, labels)
    report = SemanticReport(str(labels), str(images), ignored, class_list)
    paired = sum(pair.label is not None for pair in pairing.pairs)
    unpaired = len(pairing.without_image)
    report.counts = {
        "images": len(pairing.pairs) + sum(len(group) - 1 for group in pairing.same_image),
        "label maps": paired + unpaired + sum(len(group) - 1 for group in pairing.same_label),
        "pairs": paired,
    }
    report.faults += _unpaired(pairing)
    tally = _Tally()
    with ThreadPoolExecutor(max_workers=threads or os.cpu_count() or 1) as pool:  # decoding releases the GIL
        results = pool.map(lambda pair: _examine(pair, value_map, ignored), pairing.pairs)
        for faults, pixels in progress(results, len(pairing.pairs), "images and label maps"):
            report.faults += faults
            tally.add(pixels)
    report.counted = tally.maps
    report.table = tally.rows(value_map)
    if class_list is not None and value_map is not None and tally.maps:
        report.faults += _absent(value_map, tally, ignore if ignore is not None else class_list.ignore)
        advice = suggest_values(tally.pixels, value_map, ignored)
        report.notes += [] if advice is None else [f"the label maps have {_some(tally.pixels)}; {advice}"]
    report.notes += _notes(pairing, report)
    return report


def _absent(value_map: LabelValues, tally: _Tally, ignore: int | None) -> Iterator[SemanticFault]:
    """Faults about classes that occur in no label map; ``ignore`` is None if it is not stated."""
    maps, present = _many(tally.maps, "label map"), set(tally.pixels)
    advice = None if value_map.unexpected(present) else suggest_values(present, value_map, ignore)
    missing = value_map.missing(present)
    if advice is not None:
        yield SemanticFault("label-values", f"{maps} have {_some(present)}, and 255 is ignored; {advice}")
    elif len(missing) == len(value_map.classes) - 1 > 0:
        (name,) = set(value_map.classes) - set(missing)
        yield SemanticFault("class-alone", f"all pixels of {maps} that are not ignored are {name!r}: nothing to learn")
    else:
        for name in missing:
            index = value_map.classes.index(name)
            drawn = f" ({value_map.values[index]})" if value_map.custom else ""
            yield SemanticFault("class-unused", f"class {index} {name!r}{drawn} occurs in none of {maps}")


def _some(numbers: Iterable[int]) -> str:
    """The numbers as a phrase; of more than ten the first ten."""
    listed = sorted(set(numbers))
    more = f" and {len(listed) - 10} more" if len(listed) > 10 else ""
    return "the numbers " + ", ".join(map(str, listed[:10])) + more


def _unpaired(pairing: Pairing) -> Iterator[SemanticFault]:
    for group in pairing.same_image:
        names = ", ".join(map(str, group))
        yield SemanticFault("image-ambiguous", f"{names}: one name, {len(group)} images", image=group[0])
    for group in pairing.same_label:
        names = ", ".join(map(str, group))
        yield SemanticFault("label-ambiguous", f"{names}: one name, {len(group)} label maps", label=group[0])
    for path in pairing.without_label:
        yield SemanticFault("image-without-label", f"{path} has no label map", image=path)
    for path in pairing.without_image:
        yield SemanticFault("label-without-image", f"{path} has no image", label=path)


def _notes(pairing: Pairing, report: SemanticReport) -> Iterator[str]:
    if not report.counts["pairs"]:
        yield f"not one image has a label map: is {report.images} the folder of the images of {report.labels}?"
    if report.classes is None:
        yield "the names of the classes are not known, ids were not judged: --classes A,B,... or a classes.json"
    note = depth_note([pair.image for pair in pairing.pairs])
    if note is not None:
        yield note
    if pairing.skipped:
        count = _many(len(pairing.skipped), "other picture")
        expected = "those in *_gtFine_labelTrainIds.png are read"
        yield f"{count} of Cityscapes passed over, such as {pairing.skipped[0].name}; {expected}"


def _examine(
    pair: Pair, value_map: LabelValues | None, ignore: int | None
) -> tuple[list[SemanticFault], dict[int, int]]:
    """The faults of an image and its label map, and the pixels of each number."""
    faults: list[SemanticFault] = []
    size = None
    try:
        size = read_whole_image(pair.image).shape[:2]
    except BrokenImageError as error:
        faults.append(SemanticFault("image-unreadable", f"{pair.image} {error}", *pair[1:]))
    if pair.label is None:
        return faults, {}
    try:
        stored = load_label(pair.label)
    except BrokenImageError as error:
        return [*faults, SemanticFault("label-unreadable", f"{pair.label} {error}", *pair[1:])], {}
    if size is not None and stored.array.shape[:2] != size:
        faults.append(SemanticFault("label-size", f"{pair.label} {_sizes(stored.array.shape[:2], size)}", *pair[1:]))
    problems = list(stored.format_problems())
    if problems:
        return faults + [SemanticFault(form.rule, f"{pair.label} {form.reason}", *pair[1:]) for form in problems], {}
    pixels = _count(stored.array)
    for rule, problem in _judge(stored, pixels, value_map, ignore):
        faults.append(SemanticFault(rule, f"{pair.label} {problem}", *pair[1:]))
    return faults, pixels


def _sizes(label: tuple[int, ...], image: tuple[int, ...]) -> str:
    swapped = "; the two sides are swapped" if label == image[::-1] else ""
    return f"is {label[1]} x {label[0]}, its image {image[1]} x {image[0]}{swapped}"


def _count(labels: NDArray[Any]) -> dict[int, int]:
    counts = np.bincount(labels.ravel())
    return {int(number): int(counts[number]) for number in np.flatnonzero(counts)}


def _judge(
    stored: StoredLabel, pixels: dict[int, int], value_map: LabelValues | None, ignore: int | None
) -> Iterator[tuple[str, str]]:
    """Rule and reason of each fault in the numbers of one label map."""
    if stored.array.dtype != np.uint8:
        yield "label-type", f"has 16 bit a pixel, its largest number is {max(pixels)}; expected 8 bit"
    if set(pixels) == {ignore}:
        yield "only-ignored", f"has the label {ignore} only"
    unexpected = [] if value_map is None else value_map.unexpected(pixels)
    if value_map is not None and unexpected:
        most = sorted(unexpected, key=lambda number: -pixels[number])[:5]
        some = ", ".join(f"{number} ({pixels[number]} px)" for number in sorted(most))
        more = f" and {len(unexpected) - 5} more" if len(unexpected) > 5 else ""
        yield "label-ids", f"has {some}{more}; expected {value_map.expected()}"


class _Tally:
    """Counts pixels and label maps of each number."""

    def __init__(self) -> None:
        self.maps = 0
        self.pixels: dict[int, int] = {}
        self.images: dict[int, int] = {}

    def add(self, pixels: dict[int, int]) -> None:
        """Add the pixels of one label map; an empty dict stands for one that cannot be used."""
        self.maps += bool(pixels)
        for number, count in pixels.items():
            self.pixels[number] = self.pixels.get(number, 0) + count
            self.images[number] = self.images.get(number, 0) + 1

    def rows(self, value_map: LabelValues | None) -> list[ClassCount]:
        """One row for each class and each other number that occurs."""
        names = dict(zip(value_map.values, value_map.classes)) if value_map is not None else {}
        total = sum(self.pixels.values())
        rows = []
        for number in sorted({*names, *self.pixels}) if total else ():
            pixels = self.pixels.get(number, 0)
            rows.append(ClassCount(number, names.get(number), pixels, pixels / total, self.images.get(number, 0)))
        return rows
