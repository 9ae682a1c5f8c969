"""What a YOLO data set says of itself: ``data.yaml``, ``obj.data``, ``classes.txt``."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from efftasks.datasets.convert_source import part_name, read_text
from efftasks.structures.errors import UserError

__all__ = ["YoloFacts", "read_facts"]

_LISTS = ("classes.txt", "labels/classes.txt", "labels/train/classes.txt", "train/classes.txt", "obj.names")


@dataclass
class YoloFacts:
    """What is known of a data set.

    Args:
        names: of the classes, in the order of their numbers.
        parts: by name, the folders or lists of images as they are written.
        path: the folder that those are said to be relative to, as written.
        keypoints: how many, and numbers of each (2 or 3); None for boxes and polygons.
        keypoint_names: as many, where they are named.
        flip: for each keypoint the one in its place in a mirrored image.
        file: where it stands; None where the names alone are known.
    """

    names: list[str]
    parts: dict[str, list[str]] = field(default_factory=dict)
    path: str = ""
    keypoints: tuple[int, int] | None = None
    keypoint_names: list[str] = field(default_factory=list)
    flip: list[int] | None = None
    file: Path | None = None


def read_facts(root: Path, file: Path | None, names: Path | None, classes: Sequence[str] | None) -> YoloFacts:
    """Read what there is.

    Args:
        root: folder of the data set.
        file: the ``data.yaml`` or ``obj.data`` that was named; None searches.
        names: a file with the names, in place of it.
        classes: the names themselves, in place of all.

    Raises:
        UserError: there are no names, PyYAML is missing, or a file is not what it should be.
    """
    needed = not (names or classes)
    file = file or _described_in(root, needed)
    facts = YoloFacts([])
    if file is not None and not _is_yaml(file):
        facts = _facts_of_darknet(file)
    elif file is not None and (needed or importlib.util.find_spec("yaml") is not None):
        facts = _facts_of_yaml(file, needed)  # where it cannot be read, the usual folders are the parts
    if classes is not None:
        facts.names = list(classes)
    elif names is not None:
        facts.names = _facts_of_yaml(names).names if _is_yaml(names) else _names_of_list(names)
    elif not facts.names and file is None:
        facts.names = _names_of_list(_list_of_names(root))
    return facts


def _is_yaml(file: Path) -> bool:
    return file.suffix.lower() in (".yaml", ".yml")


def _described_in(root: Path, needed: bool) -> Path | None:
    for name in ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml"):
        if (root / name).is_file():
            return root / name
    files = sorted(path for path in root.glob("*") if _is_yaml(path))
    if len(files) > 1 and needed:
        listed = ", ".join(file.name for file in files)
        raise UserError(f"{root}: holds the files {listed}, expected one; give the one that describes it as SOURCE")
    if len(files) == 1:
        return files[0]
    return root / "obj.data" if (root / "obj.data").is_file() else None


def _list_of_names(root: Path) -> Path:
    for name in _LISTS:
        if (root / name).is_file():
            return root / name
    others = sorted(root.rglob("classes.txt"))  # labelImg writes one into each folder that it saves to
    if not others:
        raise UserError(f"no class names found, expected data.yaml or classes.txt in {root}, or give --classes")
    return others[0]


def _names_of_list(file: Path) -> list[str]:
    if not file.is_file():
        raise UserError(f"{file}: no such file, expected one with a class name in each line")
    return _checked([line.strip() for line in read_text(file).splitlines() if line.strip()], file)


def _checked(names: list[str], file: Path) -> list[str]:
    if not names or len(set(names)) != len(names):
        raise UserError(f"{file}: got the class names {names}, expected at least one and each once")
    return names


def _facts_of_darknet(file: Path) -> YoloFacts:
    """``obj.data``: ``key = value`` in each line."""
    pairs = [line.split("=", 1) for line in read_text(file).splitlines() if "=" in line]
    values = {key.strip(): value.strip() for key, value in pairs}
    names = [file.parent / Path(values.get("names", "obj.names")).name, file.parent / values.get("names", "obj.names")]
    parts = {part_name(key) or key: [values[key]] for key in ("train", "valid", "test") if values.get(key)}
    return YoloFacts(_names_of_list(next((name for name in names if name.is_file()), names[0])), parts, file=file)


def _facts_of_yaml(file: Path, needed: bool = True) -> YoloFacts:
    data = _load_yaml(file)
    names: Any = data.get("names")
    if isinstance(names, dict):
        if sorted(map(str, names)) != sorted(map(str, range(len(names)))):
            raise UserError(f"{file}: 'names' has the keys {list(names)[:10]}, expected 0, 1, 2, ... without gaps")
        names = [name for _, name in sorted(names.items(), key=lambda pair: int(pair[0]))]
    if isinstance(names, str):
        names = [name for name in names.split() if name] if "," not in names else names.split(",")
    names = [str(name).strip() for name in names or []]
    if needed or names:
        _checked(names, file)
    parts: dict[str, list[str]] = {}
    for key in ("train", "val", "valid", "test"):
        value = data.get(key)
        if value:
            parts[part_name(key) or key] = [str(entry) for entry in (value if isinstance(value, list) else [value])]
    facts = YoloFacts(names, parts, str(data.get("path") or ""), file=file)
    if data.get("kpt_shape"):
        _add_keypoints(facts, data, file)
    return facts


def _load_yaml(file: Path) -> dict[str, Any]:
    try:
        yaml = importlib.import_module("yaml")
    except ImportError as error:
        raise UserError(f"{file}: reading it needs PyYAML; pip install pyyaml, or give --classes") from error
    if not file.is_file():
        raise UserError(f"{file}: no such file, expected a data.yaml")
    try:
        data = yaml.safe_load(read_text(file))
    except yaml.YAMLError as error:
        raise UserError(f"{file}: is not YAML ({str(error).splitlines()[0]})") from error
    if not isinstance(data, dict):
        raise UserError(f"{file}: is a {type(data).__name__}, expected names, train, val as a data.yaml has them")
    return data


def _add_keypoints(facts: YoloFacts, data: dict[str, Any], file: Path) -> None:
    shape = data["kpt_shape"]
    good = isinstance(shape, list) and len(shape) == 2 and all(type(v) is int for v in shape)
    if not good or shape[0] < 1 or shape[1] not in (2, 3):
        raise UserError(f"{file}: 'kpt_shape' is {shape}, expected [count, 2] or [count, 3]")
    facts.keypoints = (shape[0], shape[1])
    flip = data.get("flip_idx")
    if flip is not None and (not isinstance(flip, list) or sorted(flip) != list(range(shape[0]))):
        raise UserError(f"{file}: 'flip_idx' is {flip}, expected each of 0 to {shape[0] - 1} once")
    facts.flip = flip
    named = data.get("kpt_names") or []
    if isinstance(named, dict):
        named = next(iter(named.values()), [])
    facts.keypoint_names = [str(name) for name in named]
    if named and (len(named) != shape[0] or len(set(facts.keypoint_names)) != shape[0]):
        raise UserError(f"{file}: 'kpt_names' has {named}, expected {shape[0]} names, each once")
