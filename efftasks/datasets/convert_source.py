"""What a converter reads: the parts of a data set, their images, and for each image the shapes on it."""

from __future__ import annotations

import codecs
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from efftasks.datasets.coco_convert import Report, Shape, UnreadableLabel
from efftasks.datasets.image_files import find_images
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
    "place",
    "read_text",
]

_PARTS = {
    "train": ("train", "training", "obj_train_data"),
    "val": ("val", "valid", "validation", "obj_valid_data"),
    "test": ("test", "testing", "obj_test_data"),
}
_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


@dataclass(frozen=True)
class Item:
    """An image of a data set.

    Args:
        path: its file. Where ``data`` is given there is none, and this is the name that it would have.
        label: what its form has of it: a label file, a parsed one, a list of annotations.
        size: width and height as the annotations state them; None where they do not.
        data: the file's content, where the annotations bring it along.
    """

    path: Path
    label: Any
    size: tuple[int, int] | None = None
    data: bytes | None = None


@dataclass
class Part:
    """The images of a part of a data set, and the folder that their names are relative to."""

    folder: Path
    items: list[Item] = field(default_factory=list)

    def name(self, item: Item) -> str:
        """The POSIX path of an image below the folder; of one that lies elsewhere, its whole path without the root."""
        path = Path(os.path.abspath(item.path))
        folder = Path(os.path.abspath(self.folder))
        return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else Path(*path.parts[1:]).as_posix()


@dataclass
class Source:
    """A data set as one of the converters reads it.

    Args:
        form: ``yolo``, ``voc``, ``coco`` or ``labelme``.
        root: its folder, for messages.
        parts: by name; ``train``, ``val``, ``test`` where they are one of those, ``""`` where it is not divided.
        categories: of COCO's form without their ids, in the order of the labels.
        shapes: gives what is on an image of that width and height; raises UnreadableLabel.
        report: what was noticed so far.
        refused: reasons that refuse the whole set if they apply to most of its images, each with the remedy.
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
    """``train``, ``val`` or ``test`` for one of their many names, such as ``Valid`` or ``train2017``; else None."""
    word = text.strip().lower().rstrip("0123456789")
    return next((name for name, words in _PARTS.items() if word in words), None)


def divide(items: Iterable[tuple[Path, Item]], folder: Path) -> dict[str, Part]:
    """Parts by the first folder of each path that is named like one; ``""`` where none is.

    Args:
        items: each with the path, relative to the data set, that decides.
        folder: that the names of images are relative to.
    """
    parts: dict[str, Part] = {}
    for path, item in items:
        name = next((name for name in map(part_name, path.parts[:-1]) if name), "")
        parts.setdefault(name, Part(folder)).items.append(item)
    return parts


def place(path: Path, root: Path) -> str:
    """A path as a report names it: relative to the data set, where it lies in there."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()


def common_folder(folders: Sequence[Path]) -> Path:
    """The innermost folder around all of them; their first one where there is none (two drives)."""
    try:
        return Path(os.path.commonpath([os.path.abspath(folder) for folder in folders]))
    except ValueError:
        return folders[0]


def first_folder(candidates: Sequence[Path], what: str) -> Path:
    """The first of some folders that exists.

    Raises:
        UserError: none does.
    """
    for folder in candidates:
        if folder.is_dir():
            return folder
    raise UserError(f"{candidates[0]}: no such folder; expected {what} in {' or '.join(map(str, candidates))}")


def read_text(path: Path, where: str | None = None) -> str:
    """A text file in UTF-8, or in UTF-16 with its mark; the mark is no part of the text.

    Raises:
        UnreadableLabel: it cannot be opened, or is no such text.
    """
    where = where or path.as_posix()
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UnreadableLabel(f"label files that cannot be read ({error.strerror})", where) from error
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise UnreadableLabel("label files that are no UTF-8 text", where) from error


class ImageFinder:
    """Finds the file of an image name as annotation tools write it, which is often that of another machine.

    Args:
        root: the data set's folder, searched as a whole for names that lead nowhere.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._by_name: dict[str, list[Path]] | None = None

    def find(self, written: str, folders: Sequence[Path]) -> Path | None:
        """The file, or None where there is none, or where it could be several.

        Args:
            written: a name, a path (with ``/`` or a backslash), or a URL with one in it.
            folders: that it may be relative to, the likeliest first.
        """
        for text in _spellings(written):
            parts = [part for part in text.split("/") if part not in ("", ".", "..")]
            literal = Path(text)
            if not parts:
                continue
            if literal.is_absolute() and literal.is_file():
                return literal
            for folder in folders:
                if (folder / text).is_file() and not text.startswith("/"):
                    return Path(os.path.normpath(folder / text))
            # the innermost folders of a path are the same on all machines
            for drop in range(len(parts) - 1):
                for folder in (*folders, self.root):
                    if folder.joinpath(*parts[drop:]).is_file():
                        return folder.joinpath(*parts[drop:])
            alike = self._alike(parts)
            if alike is not None:
                return alike
        return None

    def _alike(self, parts: Sequence[str]) -> Path | None:
        """The one image of that name below the root; of several, the only one whose folder has the same name too."""
        if self._by_name is None:
            self._by_name = {}
            for path in find_images(self.root):
                self._by_name.setdefault(path.name.casefold(), []).append(path)
        candidates = self._by_name.get(parts[-1].casefold(), [])
        if len(candidates) > 1 and len(parts) > 1:
            candidates = [path for path in candidates if path.parent.name == parts[-2]]
        return candidates[0] if len(candidates) == 1 else None


def _spellings(written: str) -> list[str]:
    """What a name may mean: as it is, with slashes, the path or the ``?d=`` of a URL, without percent signs."""
    text = written.strip()
    spellings = [text, text.replace("\\", "/")]
    if "://" in text or "?" in text:
        url = urlsplit(text)
        spellings += [*parse_qs(url.query).get("d", []), url.path]
    spellings += [unquote(spelling) for spelling in spellings]
    return list(dict.fromkeys(spellings))
