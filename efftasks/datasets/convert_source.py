"""A data set as a converter reads it: its parts, their images, and the objects on each image."""

from __future__ import annotations

import codecs
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from efftasks.datasets.coco_convert import Report, Shape, UnreadableLabel
from efftasks.datasets.image_files import find_images, is_file
from efftasks.structures.errors import UserError

__all__ = [
    "ImageFinder",
    "Item",
    "Part",
    "Source",
    "common_folder",
    "divide",
    "first_folder",
    "part_name",
    "display_path",
    "read_text",
]

_PARTS = {
    "train": ("train", "training", "obj_train_data"),
    "val": ("val", "valid", "validation", "obj_valid_data"),
    "test": ("test", "testing", "obj_test_data"),
}
_BYTE_ORDER_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


@dataclass(frozen=True)
class Item:
    """An image of a data set.

    Args:
        path: its file; with ``data`` the file does not exist, and this is the name that it would have.
        label: its annotations, in a form of the converter: a label file, a parsed one, a list of annotations.
        size: the annotated width and height; None if they are not stated.
        data: the bytes of the image file, if the annotations contain them.
    """

    path: Path
    label: Any
    size: tuple[int, int] | None = None
    data: bytes | None = None


@dataclass
class Part:
    """One part (such as ``train``) of a data set: its images, and the folder that their names are relative to."""

    folder: Path
    items: list[Item] = field(default_factory=list)

    def name(self, item: Item) -> str:
        """The POSIX path of an image relative to the folder; if it is elsewhere, its absolute path without the root."""
        path = Path(os.path.abspath(item.path))
        folder = Path(os.path.abspath(self.folder))
        return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else Path(*path.parts[1:]).as_posix()


@dataclass
class Source:
    """A data set as a converter reads it.

    Args:
        form: ``yolo``, ``voc``, ``coco`` or ``labelme``.
        root: its folder, for messages.
        parts: by name: ``train``, ``val``, ``test`` or another name, ``""`` if the data set is not divided.
        categories: COCO categories without ids, in the order of the labels.
        shapes: returns the objects on an image of the given width and height; raises UnreadableLabel.
        report: the report so far.
        refused: reasons that are an error if they apply to most images, each with its remedy.
        files: annotation files that the result must not overwrite.
    """

    form: str
    root: Path
    parts: dict[str, Part]
    categories: Sequence[Mapping[str, Any]]
    shapes: Callable[[Item, int, int], list[Shape]]
    report: Report
    refused: Mapping[str, str] = field(default_factory=dict)
    files: frozenset[Path] = frozenset()


def part_name(text: str) -> str | None:
    """``train``, ``val`` or ``test`` for a usual name of it, such as ``Valid`` or ``train2017``; else None."""
    word = text.strip().lower().rstrip("0123456789")
    return next((name for name, words in _PARTS.items() if word in words), None)


def divide(items: Iterable[tuple[Path, Item]], folder: Path) -> dict[str, Part]:
    """Divide images into parts, by the first folder of a path that is named like a part; ``""`` if there is none.

    Args:
        items: paths relative to the data set, each with its image.
        folder: the folder that the names of the images are relative to.
    """
    parts: dict[str, Part] = {}
    for path, item in items:
        name = next((name for name in map(part_name, path.parts[:-1]) if name), "")
        parts.setdefault(name, Part(folder)).items.append(item)
    return parts


def display_path(path: Path, root: Path) -> str:
    """A path for reports: relative to the data set if it is inside."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()


def common_folder(folders: Sequence[Path]) -> Path:
    """The innermost common parent of folders; the first of them if there is none (two drives)."""
    try:
        return Path(os.path.commonpath([os.path.abspath(folder) for folder in folders]))
    except ValueError:
        return folders[0]


def first_folder(candidates: Sequence[Path], expected: str) -> Path:
    """The first folder that exists.

    Raises:
        UserError: none of them exists.
    """
    for folder in candidates:
        if folder.is_dir():
            return folder
    raise UserError(f"{candidates[0]}: no such folder; expected {expected} in {' or '.join(map(str, candidates))}")


def read_text(path: Path, where: str | None = None) -> str:
    """Read a text file in UTF-8, or in UTF-16 with a byte order mark; the mark is removed.

    Raises:
        UnreadableLabel: the file cannot be opened, or has another encoding.
    """
    where = where or path.as_posix()
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UnreadableLabel(f"label files that cannot be read ({error.strerror})", where) from error
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS if data.startswith(mark)), "utf-8")
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise UnreadableLabel("label files that are no UTF-8 text", where) from error


class ImageFinder:
    """Finds image files by the names in annotations, which are often paths of another machine.

    Args:
        root: the folder of the data set; it is searched for names that lead to no file.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._by_name: dict[str, list[Path]] | None = None

    def find(self, name: str, folders: Sequence[Path]) -> Path | None:
        """Find the file of a name; None if there is none, or if several files match.

        Args:
            name: a file name, a path (with ``/`` or backslashes), or a URL that contains one.
            folders: the folders that it may be relative to, the most likely one first.
        """
        for text in _variants(name):
            parts = [part for part in text.split("/") if part not in ("", ".", "..")]
            path = Path(text)
            if not parts:
                continue
            if path.is_absolute() and is_file(path):
                return path
            for folder in folders:
                if is_file(folder / text) and not text.startswith("/"):
                    return Path(os.path.normpath(folder / text))
            # the innermost folders of a path are the same on all machines
            for drop in range(len(parts) - 1):
                for folder in (*folders, self.root):
                    if is_file(folder.joinpath(*parts[drop:])):
                        return folder.joinpath(*parts[drop:])
            only = self._only_match(parts)
            if only is not None:
                return only
        return None

    def _only_match(self, parts: Sequence[str]) -> Path | None:
        """The image of that name below the root; of several, the one whose folder has the same name as well."""
        if self._by_name is None:
            self._by_name = {}
            for path in find_images(self.root):
                self._by_name.setdefault(path.name.casefold(), []).append(path)
        candidates = self._by_name.get(parts[-1].casefold(), [])
        if len(candidates) > 1 and len(parts) > 1:
            candidates = [path for path in candidates if path.parent.name == parts[-2]]
        return candidates[0] if len(candidates) == 1 else None


def _variants(name: str) -> list[str]:
    """Variants of a name: unchanged, with slashes, the path or the ``?d=`` of a URL, percent-decoded."""
    text = name.strip()
    variants = [text, text.replace("\\", "/")]
    if "://" in text or "?" in text:
        try:
            url = urlsplit(text)
            variants += [*parse_qs(url.query).get("d", []), url.path]
        except ValueError:  # not a valid URL
            pass
    variants += [unquote(variant) for variant in variants]
    return list(dict.fromkeys(variants))
