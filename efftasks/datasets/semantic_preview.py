"""Draw label maps over their images, to check them by eye before training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from efftasks.datasets.image_files import read_whole_image, write_image
from efftasks.datasets.preview import SHEET, Preview, draw_sheet, fit_picture
from efftasks.datasets.progress import progress
from efftasks.datasets.semantic_check import ignore_label
from efftasks.datasets.semantic_files import ClassList, Pair, classes_of, find_pairs, images_of, read_label
from efftasks.imaging.file_faults import BrokenImageError
from efftasks.imaging.semantic_drawing import draw_legend, draw_semantic, semantic_palette
from efftasks.structures.errors import UserError

__all__ = ["preview_semantic"]

NO_CLASS = (255, 0, 255)  # color of numbers that are no class


def preview_semantic(
    labels: str | Path,
    images: str | Path | None,
    out: str | Path,
    num: int = 16,
    seed: int = 0,
    classes: Sequence[str] | None = None,
    ignore: int | None = None,
    values: Sequence[int] | None = None,
) -> Preview:
    """Draw the label maps of some images over them, with a legend on the contact sheet.

    Args:
        labels: the folder of the label maps.
        images: the folder of their images; None takes that of ``images_of``.
        out: the folder to write to.
        num: number of images, chosen at random and shown in the order of their paths.
        seed: seed of the choice.
        classes: as in ``check_semantic``; colors are those of the ``classes.json``, if it has any.
        ignore: as in ``check_semantic``; the image shows through at such pixels.
        values: as in ``check_semantic``.

    Raises:
        UserError: a folder is missing or has no images, the classes cannot be used, or no image with its label map can
            be drawn.
    """
    if num < 1:
        raise UserError(f"num: got {num}, expected at least 1")
    if not Path(labels).is_dir():
        raise UserError(f"{labels}: no such folder of label maps")
    class_list = classes_of(labels, classes, values)
    ignored = ignore_label(class_list, ignore)
    pairing = find_pairs(images_of(labels) if images is None else images, labels)
    usable = [pair for pair in pairing.pairs if pair.label is not None]
    if not usable:
        raise UserError(f"{labels}: not one image of {len(pairing.pairs)} has a label map here")
    target = Path(out)
    target.mkdir(parents=True, exist_ok=True)
    result = Preview()
    if pairing.without_label:
        result.left_out.append(
            f"{len(pairing.without_label)} images without a label map, such as {pairing.without_label[0]}"
        )
    chosen = np.sort(np.random.default_rng(seed).permutation(len(usable))[:num])
    colors = _colors(class_list)
    pictures: list[NDArray[np.uint8]] = []
    present: set[int] = set()
    for index in progress(chosen, len(chosen), "preview"):
        pair = usable[int(index)]
        try:
            picture, numbers = _draw(pair, colors, ignored)
        except UserError as error:
            result.left_out.append(str(error))
            continue
        pictures.append(picture)
        present |= numbers
        result.files.append(target / _flat_name(pair, result.files))
        write_image(result.files[-1], picture)
    if not pictures:
        first = result.left_out[-len(chosen)]
        raise UserError(f"{labels}: none of {len(chosen)} label maps can be drawn, the first: {first}")
    result.sheet = target / SHEET
    write_image(result.sheet, _sheet(pictures, _entries(class_list, colors, present - {ignored})))
    return result


def _colors(classes: ClassList | None) -> list[tuple[int, int, int]]:
    """BGR color of each of the 256 numbers."""
    if classes is None:
        return semantic_palette(256)
    if classes.palette is None:
        class_colors = semantic_palette(len(classes.names))
    else:
        class_colors = [(b, g, r) for r, g, b in classes.palette]
    colors = [NO_CLASS] * 256
    for number, color in zip(_class_values(classes), class_colors):
        colors[number] = color
    return colors


def _class_values(classes: ClassList) -> Sequence[int]:
    """The number of each class in label maps."""
    return range(len(classes.names)) if classes.values is None else classes.values


def _entries(
    classes: ClassList | None, colors: Sequence[tuple[int, int, int]], present: set[int]
) -> list[tuple[str, tuple[int, int, int]]]:
    """Names and colors for the legend: of all classes, or without names of the numbers that occur."""
    if classes is None:
        return [(str(number), colors[number]) for number in sorted(present)]
    entries = [(name, colors[number]) for name, number in zip(classes.names, _class_values(classes))]
    unexpected = sorted(present.difference(_class_values(classes)))
    return [*entries, (f"no class: {', '.join(map(str, unexpected))}", NO_CLASS)] if unexpected else entries


def _draw(pair: Pair, colors: Sequence[tuple[int, int, int]], ignore: int | None) -> tuple[NDArray[np.uint8], set[int]]:
    """The picture, and the numbers in its label map."""
    assert pair.label is not None
    try:
        image = read_whole_image(pair.image)
    except BrokenImageError as error:
        raise UserError(f"{pair.image} {error}") from error
    labels = read_label(pair.label)
    if labels.shape != image.shape[:2]:
        sizes = f"{labels.shape[1]} x {labels.shape[0]}, its image {image.shape[1]} x {image.shape[0]}"
        raise UserError(f"{pair.label} is {sizes}")
    numbers = {int(number) for number in np.unique(labels)}
    if max(numbers) > 255:
        raise UserError(f"{pair.label} has numbers up to {max(numbers)}, expected at most 255")
    canvas, _ = fit_picture(image)
    height, width = canvas.shape[:2]
    fitted = cv2.resize(labels.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    drawn = draw_semantic(canvas, np.asarray(fitted, np.uint8), colors, ignore=-1 if ignore is None else ignore)
    return drawn, numbers


def _flat_name(pair: Pair, files: Sequence[Path]) -> str:
    """A file name in the output folder, whatever folder the image is in."""
    name = pair.name.replace("/", "_")
    used = {file.stem for file in files} | {Path(SHEET).stem}
    number = next(n for n in range(len(files) + 2) if (f"{name}_{n}" if n else name) not in used)
    return f"{name}_{number}.jpg" if number else f"{name}.jpg"


def _sheet(
    pictures: Sequence[NDArray[np.uint8]], entries: Sequence[tuple[str, tuple[int, int, int]]]
) -> NDArray[np.uint8]:
    sheet = draw_sheet(pictures)
    if not entries:  # ignored pixels only
        return sheet
    names, colors = zip(*entries, strict=True)
    return np.concatenate([sheet, draw_legend(names, colors, sheet.shape[1])])
