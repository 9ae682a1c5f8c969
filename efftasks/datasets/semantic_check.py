"""Check a folder of label maps for semantic segmentation, and its images, for every fault at once."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from efftasks.datasets.image_files import BrokenImageError, read_whole_image
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
from efftasks.structures.errors import UserError

__all__ = ["RULES", "ClassCount", "SemanticFault", "SemanticReport", "check_semantic", "ignore_label"]

Severity = Literal["fault", "warning"]


class Rule(NamedTuple):
    """How grave it is, and one line for the report. A warning may be as it should be."""

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
    "label-channels": Rule("fault", "label maps have several channels, as pictures in colour do"),
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
    """One fault or warning: the rule (a key of ``RULES``), a sentence that names what it is about, and the files."""

    rule: str
    message: str
    image: Path | None = None
    label: Path | None = None

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "rule": self.rule,
            "message": self.message,
            "image": None if self.image is None else str(self.image),
            "label": None if self.label is None else str(self.label),
        }


@dataclass(frozen=True)
class ClassCount:
    """How often a number occurs: ``pixels``, their ``share`` of all pixels counted, and ``images`` with any of them."""

    id: int  # the number in the label maps
    name: str | None  # None for a number that is no class, and for all where no names are known
    pixels: int
    share: float
    images: int


@dataclass
class SemanticReport:
    """What a check found.

    ``faults`` has warnings too. ``table`` has the classes and whatever other numbers occur, by their id; only label
    maps whose numbers can be taken at their word are counted, ``counted`` of them. ``notes`` are worth knowing.
    """

    labels: str
    images: str
    ignore: int | None  # None where all numbers that are ignored otherwise are classes
    classes: ClassList | None = None
    counts: dict[str, int] = field(default_factory=dict)
    faults: list[SemanticFault] = field(default_factory=list)
    table: list[ClassCount] = field(default_factory=list)
    counted: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether there is no fault; warnings may be."""
        return not self.number_of("fault")

    def number_of(self, severity: Severity) -> int:
        """How many faults or warnings there are."""
        return sum(RULES[fault.rule].severity == severity for fault in self.faults)

    def by_rule(self, severity: Severity | None = None) -> dict[str, list[SemanticFault]]:
        """The faults of each rule that has any, in the order of ``RULES``; None takes both severities."""
        found: dict[str, list[SemanticFault]] = {name: [] for name in RULES}
        for fault in self.faults:
            found[fault.rule].append(fault)
        return {name: faults for name, faults in found.items() if faults and severity in (None, RULES[name].severity)}

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
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
        """The report to be read: every rule with its count and the first few of its faults, the classes, the notes."""
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
        share = "< 0.01 %" if 0 < row.share < 5e-5 else f"{row.share:.2%}".replace("%", " %")
        lines.append(f"{row.id:3}  {name:{width}}  {row.pixels:15,}  {share:>8}  {row.images:6}")
    return lines


def ignore_label(classes: ClassList | None, ignore: int | None) -> int | None:
    """The number of pixels that belong to no class: the one given, else that of the classes' file, else 255.

    Returns:
        The number; None where nothing is stated and 255 is a class.

    Raises:
        UserError: it is no number of 8 bits, or that of a class.
    """
    stated = classes.ignore if classes is not None and ignore is None else ignore
    if classes is None:
        names: tuple[str, ...] = ()
        values = None
    else:
        names, values = classes.names, classes.values
    known = label_values(names, values, stated)
    return stated if stated is not None else next(iter(known.ignored), None)


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
        images: the folder of their images; None takes the one that ``images_of`` finds.
        classes: the names; None takes those of the file that ``find_classes`` finds. Without any, ids are counted and
            not judged, and a note says so.
        ignore: the label of pixels that belong to no class; None takes what the classes' file says, or 255.
        threads: that decode files; None takes one for each core.
        values: the number of each class in the label maps; None takes what the classes' file says, or the index.

    Raises:
        UserError: a folder is missing, has no pictures or is not found, or the classes cannot be used. What is wrong
            *in* the folders is in the report.
    """
    if not Path(labels).is_dir():
        raise UserError(f"{labels}: no such folder of label maps")
    known = classes_of(labels, classes, values)
    ignored = ignore_label(known, ignore)
    numbers = None if known is None else label_values(known.names, known.values, ignored)
    if numbers is not None and ignored is not None:
        numbers = replace(numbers, ignored=(ignored,))  # 255 is a number like any other then
    images = images_of(labels) if images is None else images
    found = find_pairs(images, labels)
    report = SemanticReport(str(labels), str(images), ignored, known)
    together = sum(pair.label is not None for pair in found.pairs)
    alone = len(found.without_image)
    report.counts = {
        "images": len(found.pairs) + sum(len(group) - 1 for group in found.same_image),
        "label maps": together + alone + sum(len(group) - 1 for group in found.same_label),
        "pairs": together,
    }
    report.faults += _unpaired(found)
    tally = _Tally()
    with ThreadPoolExecutor(max_workers=threads or os.cpu_count() or 1) as pool:  # decoding is outside Python's lock
        results = pool.map(lambda pair: _examine(pair, numbers, ignored), found.pairs)
        for faults, pixels in progress(results, len(found.pairs), "images and label maps"):
            report.faults += faults
            tally.add(pixels)
    report.counted = tally.maps
    report.table = tally.rows(numbers)
    if known is not None and numbers is not None and tally.maps:
        report.faults += _absent(numbers, tally, ignore if ignore is not None else known.ignore)
        advice = suggest_values(tally.pixels, numbers, ignored)
        report.notes += [] if advice is None else [f"the label maps have {_some(tally.pixels)}; {advice}"]
    report.notes += _notes(found, report)
    return report


def _absent(numbers: LabelValues, tally: _Tally, ignore: int | None) -> Iterator[SemanticFault]:
    """What the classes that occur in no label map tell; ``ignore`` where it is stated."""
    maps, present = _many(tally.maps, "label map"), set(tally.pixels)
    advice = None if numbers.strange(present) else suggest_values(present, numbers, ignore)
    missing = numbers.missing(present)
    if advice is not None:
        yield SemanticFault("label-values", f"{maps} have {_some(present)}, and 255 is ignored; {advice}")
    elif len(missing) == len(numbers.classes) - 1 > 0:
        (name,) = set(numbers.classes) - set(missing)
        yield SemanticFault("class-alone", f"all pixels of {maps} that are not ignored are {name!r}: nothing to learn")
    else:
        for name in missing:
            index = numbers.classes.index(name)
            drawn = f" ({numbers.values[index]})" if numbers.stated else ""
            yield SemanticFault("class-unused", f"class {index} {name!r}{drawn} occurs in none of {maps}")


def _some(numbers: Iterable[int]) -> str:
    """The numbers, or the first of many."""
    listed = sorted(set(numbers))
    more = f" and {len(listed) - 10} more" if len(listed) > 10 else ""
    return "the numbers " + ", ".join(map(str, listed[:10])) + more


def _unpaired(found: Pairing) -> Iterator[SemanticFault]:
    for group in found.same_image:
        names = ", ".join(map(str, group))
        yield SemanticFault("image-ambiguous", f"{names}: one name, {len(group)} images", image=group[0])
    for group in found.same_label:
        names = ", ".join(map(str, group))
        yield SemanticFault("label-ambiguous", f"{names}: one name, {len(group)} label maps", label=group[0])
    for path in found.without_label:
        yield SemanticFault("image-without-label", f"{path} has no label map", image=path)
    for path in found.without_image:
        yield SemanticFault("label-without-image", f"{path} has no image", label=path)


def _notes(found: Pairing, report: SemanticReport) -> Iterator[str]:
    if not report.counts["pairs"]:
        yield f"not one image has a label map: is {report.images} the folder of the images of {report.labels}?"
    if report.classes is None:
        yield "the names of the classes are not known, ids were not judged: --classes A,B,... or a classes.json"
    note = depth_note([pair.image for pair in found.pairs])
    if note is not None:
        yield note
    if found.passed_over:
        several = _many(len(found.passed_over), "other picture")
        expected = "those in *_gtFine_labelTrainIds.png are read"
        yield f"{several} of Cityscapes passed over, such as {found.passed_over[0].name}; {expected}"


def _examine(pair: Pair, known: LabelValues | None, ignore: int | None) -> tuple[list[SemanticFault], dict[int, int]]:
    """What is wrong with an image and its label map, and how many pixels each id has."""
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
    wrong = list(stored.wrong_forms())
    if wrong:
        return faults + [SemanticFault(form.rule, f"{pair.label} {form.reason}", *pair[1:]) for form in wrong], {}
    pixels = _count(stored.array)
    for rule, what in _judge(stored, pixels, known, ignore):
        faults.append(SemanticFault(rule, f"{pair.label} {what}", *pair[1:]))
    return faults, pixels


def _sizes(label: tuple[int, ...], image: tuple[int, ...]) -> str:
    turned = "; the two sides are swapped" if label == image[::-1] else ""
    return f"is {label[1]} x {label[0]}, its image {image[1]} x {image[0]}{turned}"


def _count(labels: NDArray[Any]) -> dict[int, int]:
    counts = np.bincount(labels.ravel())
    return {int(number): int(counts[number]) for number in np.flatnonzero(counts)}


def _judge(
    stored: StoredLabel, pixels: dict[int, int], known: LabelValues | None, ignore: int | None
) -> Iterator[tuple[str, str]]:
    """Rule and reason for what is wrong with the numbers of one label map."""
    if stored.array.dtype != np.uint8:
        yield "label-type", f"has 16 bit a pixel, its largest number is {max(pixels)}; expected 8 bit"
    if set(pixels) == {ignore}:
        yield "only-ignored", f"has the label {ignore} only"
    strange = [] if known is None else known.strange(pixels)
    if known is not None and strange:
        most = sorted(strange, key=lambda number: -pixels[number])[:5]
        some = ", ".join(f"{number} ({pixels[number]} px)" for number in sorted(most))
        more = f" and {len(strange) - 5} more" if len(strange) > 5 else ""
        yield "label-ids", f"has {some}{more}; expected {known.expected()}"


class _Tally:
    """Pixels and label maps of each id."""

    def __init__(self) -> None:
        self.maps = 0
        self.pixels: dict[int, int] = {}
        self.images: dict[int, int] = {}

    def add(self, pixels: dict[int, int]) -> None:
        """Add one label map; one without any counts was none."""
        self.maps += bool(pixels)
        for number, count in pixels.items():
            self.pixels[number] = self.pixels.get(number, 0) + count
            self.images[number] = self.images.get(number, 0) + 1

    def rows(self, known: LabelValues | None) -> list[ClassCount]:
        """One row for each class and each other number that occurs."""
        names = dict(zip(known.values, known.classes)) if known is not None else {}
        total = sum(self.pixels.values())
        rows = []
        for number in sorted({*names, *self.pixels}) if total else ():
            pixels = self.pixels.get(number, 0)
            rows.append(ClassCount(number, names.get(number), pixels, pixels / total, self.images.get(number, 0)))
        return rows
