"""YOLO data sets: find the images and label files. Lines of label files are read in ``convert_yolo_labels``.

The layouts: ``images/train`` with ``labels/train``, ``train/images`` with ``train/labels``, lists of image paths
(``train.txt``), images and labels in one folder, each with or without a ``data.yaml`` that names them. A ``data.yaml``
usually comes from another machine, so its paths are also searched below its own folder.
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
    display_path,
    first_folder,
    part_name,
    read_text,
)
from efftasks.datasets.convert_yolo_labels import PIXELS, LabelForm, looks_like_labels, read_label_file
from efftasks.datasets.convert_yolo_names import YoloMetadata, read_metadata
from efftasks.datasets.image_files import find_images
from efftasks.imaging.images import IMAGE_SUFFIXES
from efftasks.structures.errors import UserError
from efftasks.structures.keypoints import mirrored_names

__all__ = ["read_yolo"]

_PIXELS_REMEDY = "divide x and width by the image's width, y and height by its height, or export as YOLO again"
_LIST_NAMES = ("train", "val", "valid", "test")


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
        classes: class names in the order of the class numbers; None reads them.
        names: a file with the class names.
        images: the folder of images, if it is none of the above.
        labels: the folder of label files, likewise.

    Raises:
        UserError: the folder does not exist, or there are no images or no class names.
    """
    path = Path(source)
    file = path if path.is_file() else None
    root = path.parent if file else first_folder([path], "a YOLO data set")
    if file and file.suffix.lower() not in (".yaml", ".yml", ".data"):
        raise UserError(f"{file}: expected a folder, a data.yaml or an obj.data")
    metadata = read_metadata(root, file, None if names is None else Path(names), classes)
    report = Report()
    part_finder = _PartFinder(root, metadata, report)
    parts = part_finder.below(Path(images)) if images is not None else part_finder.parts()
    if not any(parts.values()):
        raise UserError(
            f"{images or root}: holds no image, expected files like .jpg or .png; --images DIR says where they are"
        )
    converted_parts = {name: _part(files, name, root, labels, report) for name, files in parts.items() if files}
    count, dims = metadata.keypoints or (0, 3)
    form = LabelForm(len(metadata.names), count, dims)

    def shapes(item: Item, width: int, height: int) -> list[Shape]:
        if item.label is None:
            return []
        return read_label_file(item.label, display_path(item.label, root), form, (width, height), report)

    categories = [{"name": name, "supercategory": "none", **_keypoints(metadata, report)} for name in metadata.names]
    return Source("yolo", root, converted_parts, categories, shapes, report, refused={PIXELS: _PIXELS_REMEDY})


class _PartFinder:
    """Finds the images of each part, each with the folder that its name is relative to."""

    def __init__(self, root: Path, metadata: YoloMetadata, report: Report) -> None:
        self.root = root
        self.metadata = metadata
        self.report = report
        self.finder = ImageFinder(root)

    def parts(self) -> dict[str, list[tuple[Path, Path]]]:
        """Pairs of an image and its folder, by the name of the part."""
        for search in (self._from_metadata, self._from_folders, self._from_lists):
            parts = search()
            if any(parts.values()):
                return parts
        folder = first_folder([self.root / "images", self.root], "images")
        return self.below(folder) if find_images(folder) else self.below(self.root)

    def below(self, folder: Path) -> dict[str, list[tuple[Path, Path]]]:
        """The parts of a folder by the names of its subfolders, or all its images as one part."""
        parts: dict[str, list[tuple[Path, Path]]] = {}
        for child in sorted(folder.iterdir()) if folder.is_dir() else []:
            name = part_name(child.name)
            if name and child.is_dir():
                files = find_images(child)
                parts[name] = parts.get(name, []) + [(path, child) for path in files]
        if any(parts.values()):
            return parts
        return {"": [(path, folder) for path in find_images(folder)]}

    def _from_metadata(self) -> dict[str, list[tuple[Path, Path]]]:
        """The parts of ``data.yaml`` or ``obj.data``."""
        parts: dict[str, list[tuple[Path, Path]]] = {}
        for name, entries in self.metadata.parts.items():
            for entry in entries:
                path = self._locate(entry)
                if path is None:
                    self._report_missing(name, entry)
                elif path.is_dir():
                    parts.setdefault(name, []).extend((image, path) for image in find_images(path))
                else:
                    parts.setdefault(name, []).extend(self._images_of_list(path))
        return parts

    def _report_missing(self, name: str, entry: str) -> None:
        file = self.metadata.file
        if name == "train" and file and not (self._from_folders() or self._from_lists()):
            raise UserError(f"{file}: '{name}' is {entry}, which is neither there nor below {self.root}")
        self.report.note("parts that are named and are not there", f"{file and file.name}: {name} = {entry}")

    def _locate(self, entry: str) -> Path | None:
        """The folder or list of an entry, searched below the data set's folder last; None if it does not exist."""
        text, base = entry.replace("\\", "/"), self.metadata.path.replace("\\", "/")
        inner = [part for part in Path(text).parts if part not in ("..", ".", Path(text).anchor)]
        full = [part for part in Path(base, text).parts if part not in ("..", ".", Path(base, text).anchor)]
        candidates = [self.root / base / text, self.root / text]
        if text.startswith(".."):  # Roboflow's ../train/images are in train/images, and ../ may have other data sets
            candidates.insert(0, self.root.joinpath(*inner))
        candidates += [self.root.joinpath(*full[drop:]) for drop in range(len(full))]
        return next((path for path in candidates if _exists(path)), None)

    def _from_folders(self) -> dict[str, list[tuple[Path, Path]]]:
        """``images/train`` or ``train/images`` or ``train``."""
        images = self.root / "images"
        inside = (
            [path for path in images.iterdir() if path.is_dir() and part_name(path.name)] if images.is_dir() else []
        )
        if inside:
            return self.below(images)
        parts: dict[str, list[tuple[Path, Path]]] = {}
        for child in sorted(path for path in self.root.iterdir() if path.is_dir()):
            name = part_name(child.name)
            if name:
                folder = child / "images" if (child / "images").is_dir() else child
                parts.setdefault(name, []).extend((path, folder) for path in find_images(folder))
        return parts

    def _from_lists(self) -> dict[str, list[tuple[Path, Path]]]:
        """``train.txt``, ``val.txt`` with a path in each line."""
        parts: dict[str, list[tuple[Path, Path]]] = {}
        for name in _LIST_NAMES:
            file = self.root / f"{name}.txt"
            if file.is_file() and not looks_like_labels(file):
                parts.setdefault(part_name(name) or name, []).extend(self._images_of_list(file))
        return parts

    def _images_of_list(self, file: Path) -> list[tuple[Path, Path]]:
        images: list[Path] = []
        for number, line in enumerate(read_text(file).splitlines(), start=1):
            if line.strip():
                path = self.finder.find(line, [file.parent, self.root / self.metadata.path, self.root])
                if path is None or path.suffix.lower() not in IMAGE_SUFFIXES:
                    self.report.remove("lines of a list whose image is not there", f"{file.name}:{number} {line}")
                else:
                    images.append(path)
        if not images:
            return []
        folder = common_folder([path.parent for path in images])
        return [(path, folder) for path in images]


def _exists(path: Path) -> bool:
    try:
        return path.is_dir() or path.is_file()
    except OSError:  # such as a name that is too long
        return False


def _part(files: Sequence[tuple[Path, Path]], name: str, root: Path, labels: str | Path | None, report: Report) -> Part:
    """The images of a part with their label files."""
    part = Part(common_folder(sorted({folder for _, folder in files})))
    image_of_label: dict[Path, Path] = {}
    seen: set[Path] = set()
    for path, folder in files:
        if path in seen:
            report.skip("images that are listed twice in one part", display_path(path, root))
            continue
        seen.add(path)
        candidates = list(_label_files(path, folder, name, labels))
        label = next((file for file in candidates if file.is_file()), None)
        if label in image_of_label:
            report.remove(
                "images that share a label file with another",
                f"{display_path(path, root)}, {image_of_label[label].name}",
            )
            continue
        if label is not None:
            image_of_label[label] = path
        part.items.append(Item(path, label))
    _report_unmatched(part, name, root, set(image_of_label), labels, report)
    return part


def _label_files(image: Path, folder: Path, part: str, labels: str | Path | None) -> Iterator[Path]:
    """Possible paths of an image's label file, the most likely one first."""
    if labels is not None:
        inner = image.relative_to(folder).with_suffix(".txt")
        yield Path(labels) / part / inner
        yield Path(labels) / inner
        return
    parts = list(image.parent.parts)
    for index in range(len(parts) - 1, -1, -1):
        if parts[index] == "images":
            yield Path(*parts[:index], "labels", *parts[index + 1 :], image.name).with_suffix(".txt")
            break
    yield image.with_suffix(".txt")


def _report_unmatched(
    part: Part, name: str, root: Path, label_files: set[Path], labels: str | Path | None, report: Report
) -> None:
    unlabeled = [item.path for item in part.items if item.label is None]
    for path in unlabeled:
        report.note("images have no label file, and count as pictures without objects", display_path(path, root))
    if 2 * len(unlabeled) > len(part.items):
        candidate = next(_label_files(unlabeled[0], part.folder, name, labels))
        report.warn(
            f"{len(unlabeled)} of {len(part.items)} images of {name or 'the set'} have no label file and count as "
            f"pictures without objects; if they are annotated, say where with --labels DIR (looked for {candidate})"
        )
    folders = {file.parent for file in label_files} | ({Path(labels)} if labels is not None else set())
    for file in sorted(file for folder in folders for file in folder.glob("*.txt")):
        if file not in label_files and not _has_image(file, part) and looks_like_labels(file):
            report.skip("label files without an image", display_path(file, root))


def _has_image(label: Path, part: Part) -> bool:
    """Whether the image of a label file exists, which may belong to another part."""
    folder = str(label.parent).replace(f"{os.sep}labels", f"{os.sep}images")
    return any(Path(folder, label.stem + suffix).is_file() for suffix in IMAGE_SUFFIXES)


def _keypoints(metadata: YoloMetadata, report: Report) -> dict[str, object]:
    """Keypoint names of a category; made-up names get ``left`` and ``right`` from the mirror pairs."""
    if metadata.keypoints is None:
        return {}
    count = metadata.keypoints[0]
    flip = metadata.flip or list(range(count))
    names = metadata.keypoint_names
    if not names:
        sides = ["left" if other > i else "right" if other < i else "point" for i, other in enumerate(flip)]
        names = [f"{side}_{min(i, other)}" for i, (side, other) in enumerate(zip(sides, flip))]
    pairs = sorted((i, other) for i, other in enumerate(flip) if i < other)
    if metadata.flip is None:
        report.warn(
            "data.yaml has no flip_idx: say which keypoints swap in a mirror with keypoints=dict(flip_pairs=...)"
        )
    elif sorted(tuple(sorted(pair)) for pair in mirrored_names(names)) != pairs:
        report.warn(f"the keypoint names do not tell what swaps in a mirror; set keypoints=dict(flip_pairs={pairs})")
    return {"keypoints": names, "skeleton": []}
