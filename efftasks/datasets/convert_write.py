"""Write the result of a conversion: the folder that the shipped configs train on, or one annotation file.

The folder has ``annotations/{train,val,test}.json``, with ``file_name`` relative to its ``images/``. Images below the
folder stay where they are; others are linked (a hard link, which takes no space) or copied into ``images/``.
"""

from __future__ import annotations

import filecmp
import json
import os
import shutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from efftasks.datasets.coco_convert import Report, is_converted
from efftasks.datasets.coco_file import write_json
from efftasks.datasets.convert_run import convert
from efftasks.datasets.convert_source import Item, Part, Source, part_name
from efftasks.imaging.placing import link_or_copy
from efftasks.structures.errors import UserError

__all__ = ["Pictures", "Written", "render_written", "write_file", "write_folder"]

Pictures = Literal["link", "copy", "refer"]

_CONFIGS = {
    "boxes": "o2o-n_mobilenetv4-conv-s_1xb16-100e_custom-640",
    "masks": "o2oseg-n_mobilenetv4-conv-s_1xb16-100e_custom-640",
    "keypoints": "o2opose-n_mobilenetv4-conv-s_1xb16-100e_custom-640",
}


@dataclass
class Written:
    """The files of a conversion.

    Args:
        root: the folder; None if one file was written.
        images: the folder that file names are relative to.
        files: the annotation files by part.
        counts: numbers of images, annotations and categories by part.
        placed: how many images were linked, copied, ...
        kind: ``boxes``, ``masks`` or ``keypoints``.
        report: what was left out or changed.
    """

    root: Path | None
    images: Path
    files: dict[str, Path] = field(default_factory=dict)
    counts: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    placed: Counter[str] = field(default_factory=Counter)
    kind: str = "boxes"
    report: Report = field(default_factory=Report)


def write_folder(source: Source, parts: dict[str, Part], out: str | Path, pictures: Pictures = "link") -> Written:
    """Convert parts to ``out/annotations/PART.json``, with the images below ``out/images``.

    Args:
        source: the data set.
        parts: the parts to write.
        out: the folder; it may be that of the data set itself.
        pictures: how images outside the folder are taken: ``link`` makes hard links (copies if the file system has
            none), ``copy`` copies, ``refer`` writes paths to where they are.

    Raises:
        UserError: no image is left, or the folder has other files of those names.
    """
    root = Path(out)
    if root.is_file():
        raise UserError(f"{root}: is a file, expected a folder, or a name that ends in .json")
    files = {name: root / "annotations" / f"{name}.json" for name in parts}
    for file in files.values():
        _check_overwrite(file, source)
    names = _Names(source, parts, root / "images", pictures)
    results = convert(source, parts, names.of)
    contents = {name: result.to_coco(source.form) for name, (result, _) in results.items()}
    (root / "images").mkdir(parents=True, exist_ok=True)
    placed: Counter[str] = Counter()
    for name, (_, items) in results.items():
        for item in items:
            placed[_place_image(item, root / "images" / names.of(name, item), pictures)] += 1
    written = Written(root, root / "images", files, placed=placed, report=source.report)
    _write(written, contents)
    return written


def write_file(source: Source, parts: dict[str, Part], out: str | Path) -> Written:
    """Convert one part to one annotation file; the images stay where they are.

    File names are relative to ``DIR/images`` if the file is ``DIR/annotations/X.json`` and all images are there, else
    to the folder of the part's images.

    Raises:
        UserError: there are several parts, or no image is left.
    """
    file = Path(out)
    if len(parts) != 1:
        raise UserError(f"{file}: one file takes one part, and there are {', '.join(parts)}; name one with --split")
    if Path(os.path.abspath(file)) in {Path(os.path.abspath(other)) for other in source.files}:
        raise UserError(f"{file}: is what is converted, expected another file")
    name, part = next(iter(parts.items()))
    images = file.parent.parent / "images"
    beside = file.parent.name == "annotations" and all(_inside(item.path, images) for item in part.items)
    for item in part.items:
        if item.data is not None:
            reason = "images that are in their annotations alone; a folder as --out writes them"
            source.report.remove(reason, str(item.path))
    part = Part(images if beside else part.folder, [item for item in part.items if item.data is None])
    results = convert(source, {name: part}, lambda _, item: part.name(item))
    written = Written(None, part.folder, {name: file}, report=source.report)
    written.placed["left where they are"] = len(results[name][1])
    _write(written, {name: results[name][0].to_coco(source.form)})
    return written


def _write(written: Written, contents: dict[str, dict[str, Any]]) -> None:
    for name, data in contents.items():
        write_json(written.files[name], data)
        written.counts[name] = (len(data["images"]), len(data["annotations"]), len(data["categories"]))
    rows = [row for data in contents.values() for row in data["annotations"]]
    if any(row.get("keypoints") for row in rows):
        written.kind = "keypoints"
    elif rows and 2 * sum(bool(row.get("segmentation")) for row in rows) > len(rows):
        written.kind = "masks"


def _check_overwrite(file: Path, source: Source) -> None:
    """Raise UserError if annotations exist that this command did not write."""
    if not file.is_file():
        return
    try:
        converted = is_converted(json.loads(file.read_text(encoding="utf-8")))
    except ValueError:
        converted = False
    is_source = Path(os.path.abspath(file)) in {Path(os.path.abspath(other)) for other in source.files}
    if is_source or not converted:
        problem = "is what is converted" if is_source else "is there, and 'efftasks dataset convert' did not write it"
        raise UserError(f"{file}: {problem}; expected another folder as --out")


def _inside(path: Path, folder: Path) -> bool:
    return Path(os.path.abspath(path)).is_relative_to(os.path.abspath(folder))


class _Names:
    """Unique file names of the images in the folder."""

    def __init__(self, source: Source, parts: dict[str, Part], images: Path, pictures: Pictures) -> None:
        self.images = images
        self.names: dict[tuple[str, Path], str] = {}
        # Parts that were split off here get no folders: with another seed images would be written twice.
        self.folders = {
            name: next((k for k, v in source.parts.items() if v is part), "") for name, part in parts.items()
        }
        used: dict[str, Path] = {}
        for name, part in parts.items():
            for item in part.items:
                self.names[name, item.path] = self._unique_name(name, part, item, pictures, used)

    def of(self, name: str, item: Item) -> str:
        """The file name of an item of the part ``name``."""
        return self.names[name, item.path]

    def _unique_name(self, name: str, part: Part, item: Item, pictures: Pictures, used: dict[str, Path]) -> str:
        if item.data is None and _inside(item.path, self.images.parent):
            return Path(os.path.relpath(item.path, self.images)).as_posix()
        if item.data is None and pictures == "refer":
            try:
                return Path(os.path.relpath(item.path.resolve(), self.images.resolve())).as_posix()
            except ValueError:  # another drive of Windows
                return item.path.resolve().as_posix()
        relative = Path(part.name(item))
        folder = self.folders[name]
        if folder and part_name(relative.parts[0]) == folder and len(relative.parts) > 1:
            relative = relative.relative_to(relative.parts[0])
        text = Path(folder, relative).as_posix()
        if used.setdefault(text.casefold(), item.path) != item.path:  # Windows holds A.jpg and a.jpg for one
            text = Path(folder, part.name(item)).as_posix()
            if used.setdefault(text.casefold(), item.path) != item.path:
                raise UserError(f"{item.path}: and {used[text.casefold()]} would both be {text}; rename one")
        return text


def _place_image(item: Item, target: Path, pictures: Pictures) -> str:
    """Put an image in its place; returns how, as a phrase for the report."""
    if item.data is not None:
        if not target.is_file() or target.read_bytes() != item.data:
            _check_absent(target)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(item.data)
        return "taken from their annotations"
    if pictures == "refer" or os.path.abspath(item.path) == os.path.abspath(target):
        return "left where they are"
    if target.is_file():
        if os.path.samefile(item.path, target):
            return "linked"
        if filecmp.cmp(item.path, target, shallow=False):
            return "copied"
        _check_absent(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    if pictures == "link" and link_or_copy(item.path, target):
        return "linked"
    if pictures == "copy":
        shutil.copyfile(item.path, target)
    return "copied"


def _check_absent(target: Path) -> None:
    if target.exists():
        raise UserError(f"{target}: is there, and is another picture; expected a new or an empty folder as --out")


def render_written(written: Written, examples: int = 3) -> str:
    """The report as text: the files, the images, what was left out or changed, and the next commands."""
    lines = []
    for name, file in written.files.items():
        images, annotations, categories = written.counts[name]
        lines.append(f"{file}: {images} images, {annotations} annotations, {categories} categories")
    placed = ", ".join(f"{count} {how}" for how, count in written.placed.items())
    lines.append(f"images: {placed}; file names are relative to {written.images}")
    report_lines = written.report.render_lines(examples)
    lines += ["", *report_lines] if report_lines else []
    return "\n".join([*lines, "", "next:", *(f"  {command}" for command in _next_commands(written))])


def _next_commands(written: Written) -> list[str]:
    checks = [f"efftasks dataset check {_word(file)}" for file in written.files.values()]
    if written.root is None:
        return [f"{check} --images {_word(written.images)}" for check in checks]
    if set(written.files) < {"train", "val"}:
        return checks
    config = _CONFIGS[written.kind]
    run = f"work_dirs/{written.root.resolve().name or 'mine'}".replace(" ", "_")
    return [
        *checks,
        f"efftasks train {config} --amp --work-dir {run} --cfg-options {_word(written.root, 'data_root=')}",
        f"efftasks test {run}/{config}.py {run}/best.pth",
    ]


def _word(path: Path, prefix: str = "") -> str:
    """A path as an argument of a command line, with slashes, which Windows accepts too."""
    text = prefix + path.as_posix()
    return f'"{text}"' if " " in text else text
