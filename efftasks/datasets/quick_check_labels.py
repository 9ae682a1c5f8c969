"""A quick check of label maps before training and testing; it takes seconds, ``check_semantic`` reads every file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from efftasks.datasets.findings import Finding
from efftasks.datasets.label_survey import LabelMapInfo, LabelSurvey, survey_labels
from efftasks.datasets.semantic_files import Pair, find_pairs
from efftasks.datasets.semantic_values import LabelValues, label_values, suggest_values
from efftasks.structures.errors import UserError

__all__ = ["SECONDS", "pair_labels", "quick_check_pairs"]

SECONDS = 3.0  # time for reading label maps; later runs read the rest


def quick_check_pairs(
    pairs: Sequence[Pair],
    place: str,
    classes: Sequence[str],
    ignore: int | None,
    training: bool,
    values: Sequence[int] | None = None,
    seconds: float = SECONDS,
) -> list[Finding]:
    """Check label maps for what would make a training or a score worthless without any error.

    Args:
        pairs: images and label maps; those without a label map are skipped.
        place: their folder, for messages and the cache.
        classes: names, in the order of their indices.
        ignore: the number of pixels without a class; None takes 255, unless a class has it.
        training: whether the data is trained on; otherwise it is scored.
        values: the number of each class in the label maps; None takes its index.
        seconds: time for reading files. If it does not suffice, messages say how many label maps, evenly spread, were
            read. Results are kept in the user's cache folder, and the next run reads on.

    Returns:
        The findings, errors first.

    Raises:
        UserError: the values are not one for each class, or one of them is ignored.
    """
    value_map = label_values(classes, values, ignore)
    if training and len(classes) == 1:
        return [Finding("error", _one_class(place, value_map))]
    labeled = [pair for pair in pairs if pair.label is not None]
    if not labeled:
        return [Finding("error", f"{place}: not one of {len(pairs)} images has a label map")]
    survey = survey_labels(labeled, place, seconds)
    findings = [*_files(survey, place), *_numbers(survey, place, value_map, ignore, training)]
    return sorted(findings, key=lambda finding: finding.level != "error")


def pair_labels(images: Path, labels: Path, image_suffix: str, label_suffix: str) -> tuple[list[Pair], list[Finding]]:
    """Pair images with their label maps.

    Args:
        images: the folder of the images.
        labels: the folder of their label maps.
        image_suffix: suffix of the images; empty pairs them as :func:`find_pairs` does.
        label_suffix: what replaces it in the names of the label maps.

    Returns:
        The pairs, and findings for images and label maps without a counterpart.

    Raises:
        UserError: a folder is missing, or has no images.
    """
    if image_suffix:
        paths = sorted(images.rglob(f"*{image_suffix}"))
        names = [path.relative_to(images).as_posix().removesuffix(image_suffix) for path in paths]
        pairs = [Pair(name, path, labels / f"{name}{label_suffix}") for name, path in zip(names, paths)]
        if not pairs:
            raise UserError(f"{images}: there are no images *{image_suffix} in this folder or below")
        exists = [pair.label is not None and pair.label.is_file() for pair in pairs]
        without_label = [pair.image for pair, paired in zip(pairs, exists) if not paired]
        without_image: list[Path] = []
        pairs = [pair for pair, paired in zip(pairs, exists) if paired]
    else:
        pairing = find_pairs(images, labels)
        pairs, without_label, without_image = pairing.pairs, pairing.without_label, pairing.without_image
    findings = []
    for paths, message in (
        (without_label, f"images without a label map in {labels}"),
        (without_image, f"label maps without an image in {images}"),
    ):
        if paths:
            listed = f"; `efftasks dataset check {labels}` lists them"
            findings.append(Finding("error", f"{paths[0]}: one of {len(paths)} {message}{listed}"))
    return pairs, findings


def _one_class(place: str, value_map: LabelValues) -> str:
    name = value_map.classes[0]
    return (
        f"{place}: got one class {name!r}, which every pixel would be; name what is none, too, such as "
        f"classes=background,{name}, and where masks are drawn as 0 and 255, state label_values=0,255"
    )


def _files(survey: LabelSurvey, place: str) -> Iterator[Finding]:
    """Problems of single files: one finding of each kind, with the first file and the number of files."""
    maps = survey.maps
    unreadable = [info for info in maps if info.size is None]
    if unreadable:
        first = unreadable[0]
        message = f"{first.label}: the label map {first.problem}, as {_count(unreadable, survey)}"
        yield Finding("error" if len(unreadable) == len(maps) else "warning", f"{message}; such images are left out")
    unusable = [info for info in maps if info.size is not None and info.problem]
    if unusable:
        first = unusable[0]
        yield Finding("error", f"{first.label}: the label map {first.problem}, as {_count(unusable, survey)}")
    mismatched = [info for info in maps if None not in (info.size, info.image_size) and info.size != info.image_size]
    if mismatched:
        first = mismatched[0]
        (height, width), (rows, columns) = first.size or (0, 0), first.image_size or (0, 0)
        sizes = f"is {width} x {height}, its image {columns} x {rows}; sizes differ in {_count(mismatched, survey)}"
        yield Finding("error", f"{first.label}: the label map {sizes}; write label maps in the size of their images")
    deep = [info for info in maps if info.sixteen_bit and not info.problem]
    if deep:
        message = f"{deep[0].label}: the label map has 16 bit a pixel, as {_count(deep, survey)}; expected 8 bit"
        largest = max(max(info.numbers) for info in deep)
        yield Finding("error" if largest > 255 else "warning", f"{message}; the largest number is {largest}")


def _numbers(
    survey: LabelSurvey, place: str, value_map: LabelValues, ignore: int | None, training: bool
) -> Iterator[Finding]:
    """Findings about the numbers in all label maps together."""
    usable = [info for info in survey.maps if info.numbers and not info.problem]
    numbers = {number for info in usable for number in info.numbers}
    if not numbers:
        return
    unexpected = value_map.unexpected(numbers)
    advice = suggest_values(numbers, value_map, ignore)
    basis = f"{place}: {survey.basis(len(usable))}"
    if unexpected:
        first = next(info for info in usable if set(info.numbers) & set(unexpected))
        remedy = advice or "where classes have other numbers, label_values states them in the order of the classes"
        yield Finding(
            "error",
            f"{basis} have numbers that are no class, {_some(unexpected)} (first in {first.label}), expected "
            f"{value_map.expected()}; {remedy}",
        )
        return
    if advice is not None:
        listed = _some(sorted(numbers))
        yield Finding("error", f"{basis} have the numbers {listed} only, and 255 is ignored; {advice}")
        return
    missing = value_map.missing(numbers)
    level: Literal["error", "warning"] = "error" if survey.complete else "warning"
    if len(missing) == len(value_map.classes):
        yield Finding(level, f"{basis} have ignored pixels only ({_some(sorted(numbers))}), expected some of a class")
    elif training and len(missing) == len(value_map.classes) - 1:
        (name,) = set(value_map.classes) - set(missing)
        rest = "check the numbers in the label maps and label_values"
        yield Finding(level, f"{basis} have pixels of {name!r} alone beside ignored ones: nothing to learn; {rest}")
    elif missing:
        names = ", ".join(map(repr, missing))
        effect = "cannot be learned" if training else "drop out of the mean, or count as 0 where they are predicted"
        many = "class occurs" if len(missing) == 1 else "classes occur"
        yield Finding(
            "warning", f"{basis} lack {names}: {len(missing)} of {len(value_map.classes)} {many} in none and {effect}"
        )


def _count(maps: Sequence[LabelMapInfo], survey: LabelSurvey) -> str:
    return f"{len(maps)} of {survey.basis(len(survey.maps))}"


def _some(numbers: Sequence[int]) -> str:
    more = f" and {len(numbers) - 10} more" if len(numbers) > 10 else ""
    return ", ".join(map(str, numbers[:10])) + more
