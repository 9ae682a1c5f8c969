"""What a conversion leaves on the disk: the folder that the shipped configs train on, or one annotation file.

The folder has ``annotations/{train,val,test}.json``, whose ``file_name`` is relative to its ``images/``. Images below
the folder stay where they are; others get a second name in ``images/`` (a hard link, which takes no space), or a copy.
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

from efftasks.datasets.coco_convert import Report, is_ours
from efftasks.datasets.coco_file import write_json
from efftasks.datasets.convert_run import convert
from efftasks.datasets.convert_source import Item, Part, Source, part_name
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
    """What was written.

    Args:
        root: the folder; None where one file was written.
        images: the folder that file names are relative to.
        files: the annotation files by part.
        counts: of each file: images, annotations, categories.
        placed: how many images are linked, copied, ... there.
        kind: ``boxes``, ``masks`` or ``keypoints``.
        report: what happened to the data.
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
        parts: those to write.
        out: the folder; it may be that of the data set itself.
        pictures: what becomes of images that lie elsewhere: a hard link (a copy where the file system has none), a
            copy, or a file name that leads to where they are.

    Raises:
        UserError: nothing is left, or the folder holds other files of those names.
    """
    root = Path(out)
    if root.is_file():
        raise UserError(f"{root}: is a file, expected a folder, or a name that ends in .json")
    files = {name: root / "annotations" / f"{name}.json" for name in parts}
    for file in files.values():
        _check_ours(file, source)
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

    The file names are relative to ``DIR/images`` if the file is ``DIR/annotations/X.json`` and all images are in there,
    else to the folder of the part's images.

    Raises:
        UserError: there are several parts, or nothing is left.
    """
    file = Path(out)
    if len(parts) != 1:
        raise UserError(f"{file}: one file takes one part, and there are {', '.join(parts)}; name one with --split")
    if Path(os.path.abspath(file)) in {Path(os.path.abspath(other)) for other in source.files}:
        raise UserError(f"{file}: is what is converted, expected another file")
    name, part = next(iter(parts.items()))
    beside = file.parent.parent / "images"
    if file.parent.name == "annotations" and all(_inside(item.path, beside) for item in part.items):
        part = Part(beside, part.items)
    for item in [item for item in part.items if item.data is not None]:
        source.report.remove(
            "images that are in their annotations alone; a folder as --out writes them", str(item.path)
        )
        part.items.remove(item)
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


def _check_ours(file: Path, source: Source) -> None:
    """Refuse to overwrite annotations that this command did not write."""
    if not file.is_file():
        return
    try:
        ours = is_ours(json.loads(file.read_text(encoding="utf-8")))
    except ValueError:
        ours = False
    taken = Path(os.path.abspath(file)) in {Path(os.path.abspath(other)) for other in source.files}
    if taken or not ours:
        what = "is what is converted" if taken else "is there, and 'efftasks dataset convert' did not write it"
        raise UserError(f"{file}: {what}; expected another folder as --out")


def _inside(path: Path, folder: Path) -> bool:
    return Path(os.path.abspath(path)).is_relative_to(os.path.abspath(folder))


class _Names:
    """The file names of a folder, each once."""

    def __init__(self, source: Source, parts: dict[str, Part], images: Path, pictures: Pictures) -> None:
        self.images = images
        self.names: dict[tuple[str, Path], str] = {}
        # what is divided here is not put in folders: with another seed each image would get a second place
        self.folders = {
            name: next((k for k, v in source.parts.items() if v is part), "") for name, part in parts.items()
        }
        taken: dict[str, Path] = {}
        for name, part in parts.items():
            for item in part.items:
                self.names[name, item.path] = self._name(name, part, item, pictures, taken)

    def of(self, name: str, item: Item) -> str:
        """The name of an item of a part."""
        return self.names[name, item.path]

    def _name(self, name: str, part: Part, item: Item, pictures: Pictures, taken: dict[str, Path]) -> str:
        if item.data is None and _inside(item.path, self.images.parent):
            return Path(os.path.relpath(item.path, self.images)).as_posix()
        if item.data is None and pictures == "refer":
            try:
                return Path(os.path.relpath(item.path.resolve(), self.images.resolve())).as_posix()
            except ValueError:  # another drive of Windows
                return item.path.resolve().as_posix()
        inner = Path(part.name(item))
        folder = self.folders[name]
        if folder and part_name(inner.parts[0]) == folder and len(inner.parts) > 1:
            inner = inner.relative_to(inner.parts[0])
        text = Path(folder, inner).as_posix()
        if taken.setdefault(text.casefold(), item.path) != item.path:  # Windows holds A.jpg and a.jpg for one
            text = Path(folder, part.name(item)).as_posix()
            if taken.setdefault(text.casefold(), item.path) != item.path:
                raise UserError(f"{item.path}: and {taken[text.casefold()]} would both be {text}; rename one")
        return text


def _place_image(item: Item, target: Path, pictures: Pictures) -> str:
    """Put an image in its place, and tell how."""
    if item.data is not None:
        if not target.is_file() or target.read_bytes() != item.data:
            _refuse_other(target)
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
        _refuse_other(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    if pictures == "link":
        try:
            os.link(item.path.resolve(), target)
            return "linked"
        except OSError:  # another file system, or one without hard links
            pass
    shutil.copyfile(item.path, target)
    return "copied"


def _refuse_other(target: Path) -> None:
    if target.exists():
        raise UserError(f"{target}: is there, and is another picture; expected a new or an empty folder as --out")


def render_written(written: Written, examples: int = 3) -> str:
    """The report to be read: the files, where the images are, what happened to the data, and what comes next."""
    lines = []
    for name, file in written.files.items():
        images, annotations, categories = written.counts[name]
        lines.append(f"{file}: {images} images, {annotations} annotations, {categories} categories")
    how = ", ".join(f"{count} {what}" for what, count in written.placed.items())
    lines.append(f"images: {how}; file names are relative to {written.images}")
    told = written.report.render_lines(examples)
    lines += ["", *told] if told else []
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


def _word(path: Path, before: str = "") -> str:
    """A path as a word of a command line, with slashes, which Windows takes too."""
    text = before + path.as_posix()
    return f'"{text}"' if " " in text else text
