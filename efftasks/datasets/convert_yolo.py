"""YOLO data sets: which images and label files there are. What the lines mean is in ``convert_yolo_labels``.

The layouts: ``images/train`` with ``labels/train``, ``train/images`` with ``train/labels``, lists of image paths
(``train.txt``), images and labels in one folder, each with or without a ``data.yaml`` that names them. A ``data.yaml``
comes from another machine as a rule, so that its paths are searched below its own folder too.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from efftasks.datasets.coco_convert import Report, Shape
from efftasks.datasets.convert_source import (
    ImageFinder,
    Item,
    Part,
    Source,
    common_folder,
    first_folder,
    part_name,
    place,
    read_text,
)
from efftasks.datasets.convert_yolo_labels import PIXELS, LabelForm, looks_like_labels, read_label_file
from efftasks.datasets.convert_yolo_names import YoloFacts, read_facts
from efftasks.datasets.image_files import find_images
from efftasks.imaging.images import IMAGE_SUFFIXES
from efftasks.structures.errors import UserError
from efftasks.structures.keypoints import mirrored_names

__all__ = ["read_yolo"]

_REMEDY = "divide x and width by the image's width, y and height by its height, or export as YOLO again"
_BESIDE = ("train", "val", "valid", "test")


def read_yolo(
    source: str | Path,
    classes: Sequence[str] | None = None,
    names: str | Path | None = None,
    images: str | Path | None = None,
    labels: str | Path | None = None,
) -> Source:
    """Find the images of a data set and their label files.

    Args:
        source: its folder, or its ``data.yaml`` or ``obj.data``.
        classes: the names, in the order of the class numbers; None reads them.
        names: a file with the names.
        images: the folder of images, where it is none of the usual.
        labels: the folder of label files, likewise.

    Raises:
        UserError: there is no such folder, no image, or there are no names.
    """
    given = Path(source)
    file = given if given.is_file() else None
    root = given.parent if file else first_folder([given], "a YOLO data set")
    if file and file.suffix.lower() not in (".yaml", ".yml", ".data"):
        raise UserError(f"{file}: expected a folder, a data.yaml or an obj.data")
    facts = read_facts(root, file, None if names is None else Path(names), classes)
    report = Report()
    places = _Places(root, facts, report)
    parts = places.below(Path(images)) if images is not None else places.parts()
    if not any(parts.values()):
        raise UserError(
            f"{images or root}: holds no image, expected files like .jpg or .png; --images DIR says where they are"
        )
    found = {name: _part(files, name, root, labels, report) for name, files in parts.items() if files}
    count, dims = facts.keypoints or (0, 3)
    form = LabelForm(len(facts.names), count, dims)

    def shapes(item: Item, width: int, height: int) -> list[Shape]:
        if item.label is None:
            return []
        return read_label_file(item.label, place(item.label, root), form, (width, height), report)

    categories = [{"name": name, "supercategory": "none", **_keypoints(facts, report)} for name in facts.names]
    return Source("yolo", root, found, categories, shapes, report, refused={PIXELS: _REMEDY})


class _Places:
    """Where the images of each part are: lists of files with the folder that their names are relative to."""

    def __init__(self, root: Path, facts: YoloFacts, report: Report) -> None:
        self.root = root
        self.facts = facts
        self.report = report
        self.finder = ImageFinder(root)

    def parts(self) -> dict[str, list[tuple[Path, Path]]]:
        """By name, pairs of an image and its folder."""
        for way in (self._described, self._usual, self._listed):
            found = way()
            if any(found.values()):
                return found
        folder = first_folder([self.root / "images", self.root], "images")
        return self.below(folder) if find_images(folder) else self.below(self.root)

    def below(self, folder: Path) -> dict[str, list[tuple[Path, Path]]]:
        """The parts that subfolders are named for, or all images of a folder as one."""
        parts: dict[str, list[tuple[Path, Path]]] = {}
        for child in sorted(folder.iterdir()) if folder.is_dir() else []:
            name = part_name(child.name)
            if name and child.is_dir():
                files = find_images(child)
                parts[name] = parts.get(name, []) + [(path, child) for path in files]
        if any(parts.values()):
            return parts
        return {"": [(path, folder) for path in find_images(folder)]}

    def _described(self) -> dict[str, list[tuple[Path, Path]]]:
        """As ``data.yaml`` or ``obj.data`` says."""
        found: dict[str, list[tuple[Path, Path]]] = {}
        for name, entries in self.facts.parts.items():
            for entry in entries:
                path = self._locate(entry)
                if path is None:
                    self._tell_missing(name, entry)
                elif path.is_dir():
                    found.setdefault(name, []).extend((image, path) for image in find_images(path))
                else:
                    found.setdefault(name, []).extend(self._images_of_list(path))
        return found

    def _tell_missing(self, name: str, entry: str) -> None:
        file = self.facts.file
        if name == "train" and file and not (self._usual() or self._listed()):
            raise UserError(f"{file}: '{name}' is {entry}, which is neither there nor below {self.root}")
        self.report.note("parts that are named and are not there", f"{file and file.name}: {name} = {entry}")

    def _locate(self, entry: str) -> Path | None:
        """The folder or list that an entry means; below the data set's folder if it is nowhere else."""
        text, above = entry.replace("\\", "/"), self.facts.path.replace("\\", "/")
        inner = [part for part in Path(text).parts if part not in ("..", ".", Path(text).anchor)]
        whole = [part for part in Path(above, text).parts if part not in ("..", ".", Path(above, text).anchor)]
        candidates = [self.root / above / text, self.root / text]
        if text.startswith(".."):  # Roboflow's ../train/images lie in train/images, and ../ holds other data sets
            candidates.insert(0, self.root.joinpath(*inner))
        candidates += [self.root.joinpath(*whole[drop:]) for drop in range(len(whole))]
        return next((path for path in candidates if _is_there(path)), None)

    def _usual(self) -> dict[str, list[tuple[Path, Path]]]:
        """``images/train`` or ``train/images`` or ``train``."""
        images = self.root / "images"
        inside = (
            [path for path in images.iterdir() if path.is_dir() and part_name(path.name)] if images.is_dir() else []
        )
        if inside:
            return self.below(images)
        found: dict[str, list[tuple[Path, Path]]] = {}
        for child in sorted(path for path in self.root.iterdir() if path.is_dir()):
            name = part_name(child.name)
            if name:
                folder = child / "images" if (child / "images").is_dir() else child
                found.setdefault(name, []).extend((path, folder) for path in find_images(folder))
        return found

    def _listed(self) -> dict[str, list[tuple[Path, Path]]]:
        """``train.txt``, ``val.txt`` with a path in each line."""
        found: dict[str, list[tuple[Path, Path]]] = {}
        for name in _BESIDE:
            file = self.root / f"{name}.txt"
            if file.is_file() and not looks_like_labels(file):
                found.setdefault(part_name(name) or name, []).extend(self._images_of_list(file))
        return found

    def _images_of_list(self, file: Path) -> list[tuple[Path, Path]]:
        found: list[Path] = []
        for number, line in enumerate(read_text(file).splitlines(), start=1):
            if line.strip():
                path = self.finder.find(line, [file.parent, self.root / self.facts.path, self.root])
                if path is None or path.suffix.lower() not in IMAGE_SUFFIXES:
                    self.report.remove("lines of a list whose image is not there", f"{file.name}:{number} {line}")
                else:
                    found.append(path)
        if not found:
            return []
        folder = common_folder([path.parent for path in found])
        return [(path, folder) for path in found]


def _is_there(path: Path) -> bool:
    try:
        return path.is_dir() or path.is_file()
    except OSError:  # such as a name that is too long
        return False


def _part(files: Sequence[tuple[Path, Path]], name: str, root: Path, labels: str | Path | None, report: Report) -> Part:
    """The images of a part with their label files."""
    part = Part(common_folder(sorted({folder for _, folder in files})))
    used: dict[Path, Path] = {}
    seen: set[Path] = set()
    for path, folder in files:
        if path in seen:
            report.skip("images that are listed twice in one part", place(path, root))
            continue
        seen.add(path)
        candidates = list(_label_files(path, folder, name, labels))
        label = next((file for file in candidates if file.is_file()), None)
        if label in used:
            report.remove("images that share a label file with another", f"{place(path, root)}, {used[label].name}")
            continue
        if label is not None:
            used[label] = path
        part.items.append(Item(path, label))
    _tell_unmatched(part, name, root, set(used), labels, report)
    return part


def _label_files(image: Path, folder: Path, part: str, labels: str | Path | None) -> Iterator[Path]:
    """Where the label file of an image may be, the likeliest first."""
    if labels is not None:
        inner = image.relative_to(folder).with_suffix(".txt")
        yield Path(labels) / part / inner
        yield Path(labels) / inner
        return
    above = list(image.parent.parts)
    for at in range(len(above) - 1, -1, -1):
        if above[at] == "images":
            yield Path(*above[:at], "labels", *above[at + 1 :], image.name).with_suffix(".txt")
            break
    yield image.with_suffix(".txt")


def _tell_unmatched(
    part: Part, name: str, root: Path, used: set[Path], labels: str | Path | None, report: Report
) -> None:
    bare = [item.path for item in part.items if item.label is None]
    for path in bare:
        report.note("images have no label file, and count as pictures without objects", place(path, root))
    if 2 * len(bare) > len(part.items):
        looked = next(_label_files(bare[0], part.folder, name, labels))
        report.warn(
            f"{len(bare)} of {len(part.items)} images of {name or 'the set'} have no label file and count as pictures "
            f"without objects; if they are annotated, say where with --labels DIR (looked for {looked})"
        )
    folders = {file.parent for file in used} | ({Path(labels)} if labels is not None else set())
    for file in sorted(file for folder in folders for file in folder.glob("*.txt")):
        if file not in used and not _has_image(file, part) and looks_like_labels(file):
            report.skip("label files without an image", place(file, root))


def _has_image(label: Path, part: Part) -> bool:
    """Whether an image of this label lies where another part has it."""
    folder = str(label.parent).replace(f"{os.sep}labels", f"{os.sep}images")
    return any(Path(folder, label.stem + suffix).is_file() for suffix in IMAGE_SUFFIXES)


def _keypoints(facts: YoloFacts, report: Report) -> dict[str, object]:
    """Keypoint names of a category; where a mirror is known and names are not, left and right make it known here."""
    if facts.keypoints is None:
        return {}
    count = facts.keypoints[0]
    flip = facts.flip or list(range(count))
    names = facts.keypoint_names
    if not names:
        sides = ["left" if other > i else "right" if other < i else "point" for i, other in enumerate(flip)]
        names = [f"{side}_{min(i, other)}" for i, (side, other) in enumerate(zip(sides, flip))]
    pairs = sorted((i, other) for i, other in enumerate(flip) if i < other)
    if facts.flip is None:
        report.warn(
            "data.yaml has no flip_idx: say which keypoints swap in a mirror with keypoints=dict(flip_pairs=...)"
        )
    elif sorted(tuple(sorted(pair)) for pair in mirrored_names(names)) != pairs:
        report.warn(f"the keypoint names do not tell what swaps in a mirror; set keypoints=dict(flip_pairs={pairs})")
    return {"keypoints": names, "skeleton": []}
