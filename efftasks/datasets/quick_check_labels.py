"""A quick look at label maps before a training or a test: in seconds, where ``check_semantic`` reads every file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from efftasks.datasets.findings import Finding
from efftasks.datasets.label_survey import LabelFacts, Survey, survey_labels
from efftasks.datasets.semantic_files import Pair, find_pairs
from efftasks.datasets.semantic_values import LabelValues, label_values, suggest_values
from efftasks.structures.errors import UserError

__all__ = ["SECONDS", "pair_labels", "quick_check_labels", "quick_check_pairs"]

SECONDS = 3.0  # for reading; the rest is read in the next runs


def quick_check_labels(
    images: Path,
    labels: Path,
    classes: Sequence[str],
    ignore: int | None,
    image_suffix: str,
    label_suffix: str,
    training: bool,
    values: Sequence[int] | None = None,
    seconds: float = SECONDS,
) -> list[Finding]:
    """Look for what would train or score in silence and be worth nothing.

    Args:
        images: the folder of the images.
        labels: the folder of their label maps.
        classes: names, in the order of their indices.
        ignore: the number of pixels without a class, where it is stated; None for 255, where no class has that.
        image_suffix: of the images; empty pairs them with their label maps as :func:`find_pairs` does.
        label_suffix: what takes its place in the names of the label maps.
        training: whether they are trained on; else they are scored.
        values: the number of each class in the label maps; None for its index.
        seconds: for reading files. Where they do not suffice, messages say how many were read, evenly spread. What is
            known of a file is kept in the user's cache folder, so that the next run reads on.

    Returns:
        The findings, errors first.
    """
    try:
        pairs, findings = pair_labels(Path(images), Path(labels), image_suffix, label_suffix)
        rest = quick_check_pairs(pairs, str(labels), classes, ignore, training, values, seconds)
    except UserError as error:
        return [Finding("error", str(error))]
    return [*findings, *rest]


def quick_check_pairs(
    pairs: Sequence[Pair],
    place: str,
    classes: Sequence[str],
    ignore: int | None,
    training: bool,
    values: Sequence[int] | None = None,
    seconds: float = SECONDS,
) -> list[Finding]:
    """As :func:`quick_check_labels`, of images and label maps that were found otherwise.

    Args:
        pairs: those that have a label map are looked at.
        place: where they are, for messages.
        classes: as :func:`quick_check_labels`; so are the others.
        ignore: the number to ignore.
        training: whether they are trained on.
        values: the number of each class.
        seconds: for reading files.

    Raises:
        UserError: the values are not one for each class, or one is to be ignored.
    """
    known = label_values(classes, values, ignore)
    if training and len(classes) == 1:
        return [Finding("error", _one_class(place, known))]
    together = [pair for pair in pairs if pair.label is not None]
    if not together:
        return [Finding("error", f"{place}: not one of {len(pairs)} images has a label map")]
    survey = survey_labels(together, place, seconds)
    findings = [*_files(survey, place), *_numbers(survey, place, known, ignore, training)]
    return sorted(findings, key=lambda finding: finding.level != "error")


def pair_labels(images: Path, labels: Path, image_suffix: str, label_suffix: str) -> tuple[list[Pair], list[Finding]]:
    """Images with their label maps, and findings where one has no counterpart; arguments as ``quick_check_labels``.

    Raises:
        UserError: a folder is missing, or has no pictures.
    """
    if image_suffix:
        paths = sorted(images.rglob(f"*{image_suffix}"))
        names = [path.relative_to(images).as_posix().removesuffix(image_suffix) for path in paths]
        pairs = [Pair(name, path, labels / f"{name}{label_suffix}") for name, path in zip(names, paths)]
        lacking = [pair for pair in pairs if not (pair.label and pair.label.is_file())]
        if not pairs:
            raise UserError(f"{images}: there are no images *{image_suffix} in this folder or below")
        without = [pair.image for pair in lacking]
        alone: list[Path] = []
        pairs = [pair for pair in pairs if pair not in lacking]
    else:
        pairing = find_pairs(images, labels)
        pairs, without, alone = pairing.pairs, pairing.without_label, pairing.without_image
    findings = []
    for paths, what in (
        (without, f"images without a label map in {labels}"),
        (alone, f"label maps without an image in {images}"),
    ):
        if paths:
            listed = f"; `efftasks dataset check {labels}` lists them"
            findings.append(Finding("error", f"{paths[0]}: one of {len(paths)} {what}{listed}"))
    return pairs, findings


def _one_class(place: str, known: LabelValues) -> str:
    name = known.classes[0]
    return (
        f"{place}: got one class {name!r}, which every pixel would be; name what is none, too, such as "
        f"classes=background,{name}, and where masks are drawn as 0 and 255, state label_values=0,255"
    )


def _files(survey: Survey, place: str) -> Iterator[Finding]:
    """What is wrong with single files: the first of each kind, and how many there are."""
    facts = survey.facts
    unreadable = [fact for fact in facts if fact.size is None]
    if unreadable:
        what = f"{unreadable[0].label}: the label map {unreadable[0].wrong}, as {_count(unreadable, survey)}"
        yield Finding("error" if len(unreadable) == len(facts) else "warning", f"{what}; such images are left out")
    wrong = [fact for fact in facts if fact.size is not None and fact.wrong]
    if wrong:
        yield Finding("error", f"{wrong[0].label}: the label map {wrong[0].wrong}, as {_count(wrong, survey)}")
    unlike = [fact for fact in facts if None not in (fact.size, fact.image_size) and fact.size != fact.image_size]
    if unlike:
        (height, width), (rows, columns) = unlike[0].size or (0, 0), unlike[0].image_size or (0, 0)
        sizes = f"is {width} x {height}, its image {columns} x {rows}; sizes differ in {_count(unlike, survey)}"
        yield Finding(
            "error", f"{unlike[0].label}: the label map {sizes}; write label maps in the size of their images"
        )
    deep = [fact for fact in facts if fact.deep and not fact.wrong]
    if deep:
        what = f"{deep[0].label}: the label map has 16 bit a pixel, as {_count(deep, survey)}; expected 8 bit"
        most = max(max(fact.numbers) for fact in deep)
        yield Finding("error" if most > 255 else "warning", f"{what}; the largest number is {most}")


def _numbers(survey: Survey, place: str, known: LabelValues, ignore: int | None, training: bool) -> Iterator[Finding]:
    """What the numbers in all label maps tell."""
    usable = [fact for fact in survey.facts if fact.numbers and not fact.wrong]
    numbers = {number for fact in usable for number in fact.numbers}
    if not numbers:
        return
    strange = known.strange(numbers)
    advice = suggest_values(numbers, known, ignore)
    basis = f"{place}: {survey.basis(len(usable))}"
    if strange:
        first = next(fact for fact in usable if set(fact.numbers) & set(strange))
        remedy = advice or "where classes have other numbers, label_values states them in the order of the classes"
        yield Finding(
            "error",
            f"{basis} have numbers that are no class, {_some(strange)} (first in {first.label}), expected "
            f"{known.expected()}; {remedy}",
        )
        return
    if advice is not None:
        yield Finding("error", f"{basis} have the numbers {_some(sorted(numbers))} only, and 255 is ignored; {advice}")
        return
    missing = known.missing(numbers)
    hopeless: Literal["error", "warning"] = "error" if survey.complete else "warning"
    if len(missing) == len(known.classes):
        yield Finding(
            hopeless, f"{basis} have ignored pixels only ({_some(sorted(numbers))}), expected some of a class"
        )
    elif training and len(missing) == len(known.classes) - 1:
        (name,) = set(known.classes) - set(missing)
        rest = "check the numbers in the label maps and label_values"
        yield Finding(hopeless, f"{basis} have pixels of {name!r} alone beside ignored ones: nothing to learn; {rest}")
    elif missing:
        names = ", ".join(map(repr, missing))
        effect = "cannot be learned" if training else "drop out of the mean, or count as 0 where they are predicted"
        many = "class occurs" if len(missing) == 1 else "classes occur"
        yield Finding(
            "warning", f"{basis} lack {names}: {len(missing)} of {len(known.classes)} {many} in none and {effect}"
        )


def _count(facts: Sequence[LabelFacts], survey: Survey) -> str:
    return f"{len(facts)} of {survey.basis(len(survey.facts))}"


def _some(numbers: Sequence[int]) -> str:
    more = f" and {len(numbers) - 10} more" if len(numbers) > 10 else ""
    return ", ".join(map(str, numbers[:10])) + more
