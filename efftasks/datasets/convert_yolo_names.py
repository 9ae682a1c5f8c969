"""The metadata of a YOLO data set: ``data.yaml``, ``obj.data``, ``classes.txt``."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from efftasks.datasets.convert_source import part_name, read_text
from efftasks.structures.errors import UserError

__all__ = ["YoloMetadata", "read_metadata"]

_NAMES_FILES = ("classes.txt", "labels/classes.txt", "labels/train/classes.txt", "train/classes.txt", "obj.names")


@dataclass
class YoloMetadata:
    """The metadata of a data set.

    Args:
        names: class names, in the order of the class numbers.
        parts: folders or lists of images by part, as written in the file.
        path: the folder that those are relative to, as written in the file.
        keypoints: number of keypoints, and of values of each (2 or 3); None for boxes and polygons.
        keypoint_names: names of the keypoints; empty without names.
        flip: for each keypoint the index of the one that takes its place in a mirrored image.
        file: the file of the metadata; None if only the names are known.
    """

    names: list[str]
    parts: dict[str, list[str]] = field(default_factory=dict)
    path: str = ""
    keypoints: tuple[int, int] | None = None
    keypoint_names: list[str] = field(default_factory=list)
    flip: list[int] | None = None
    file: Path | None = None


def read_metadata(root: Path, file: Path | None, names: Path | None, classes: Sequence[str] | None) -> YoloMetadata:
    """Read the metadata of a data set.

    Args:
        root: the folder of the data set.
        file: its ``data.yaml`` or ``obj.data``; None searches for it.
        names: a file with the class names, instead of those in ``file``.
        classes: the class names, instead of those in any file.

    Raises:
        UserError: there are no class names, PyYAML is missing, or a file is broken.
    """
    names_required = not (names or classes)
    file = file or _find_metadata_file(root, names_required)
    metadata = YoloMetadata([])
    if file is not None and not _is_yaml(file):
        metadata = _read_darknet(file)
    elif file is not None and (names_required or importlib.util.find_spec("yaml") is not None):
        metadata = _read_yaml(file, names_required)  # without PyYAML the usual folders are the parts
    if classes is not None:
        metadata.names = list(classes)
    elif names is not None:
        metadata.names = _read_yaml(names).names if _is_yaml(names) else _read_names(names)
    elif not metadata.names and file is None:
        metadata.names = _read_names(_find_names_file(root))
    return metadata


def _is_yaml(file: Path) -> bool:
    return file.suffix.lower() in (".yaml", ".yml")


def _find_metadata_file(root: Path, names_required: bool) -> Path | None:
    for name in ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml"):
        if (root / name).is_file():
            return root / name
    files = sorted(path for path in root.glob("*") if _is_yaml(path))
    if len(files) > 1 and names_required:
        listed = ", ".join(file.name for file in files)
        raise UserError(f"{root}: holds the files {listed}, expected one; give the one that describes it as SOURCE")
    if len(files) == 1:
        return files[0]
    return root / "obj.data" if (root / "obj.data").is_file() else None


def _find_names_file(root: Path) -> Path:
    for name in _NAMES_FILES:
        if (root / name).is_file():
            return root / name
    candidates = sorted(root.rglob("classes.txt"))  # labelImg writes one into each folder with labels
    if not candidates:
        raise UserError(f"no class names found, expected data.yaml or classes.txt in {root}, or give --classes")
    return candidates[0]


def _read_names(file: Path) -> list[str]:
    if not file.is_file():
        raise UserError(f"{file}: no such file, expected one with a class name in each line")
    return _checked([line.strip() for line in read_text(file).splitlines() if line.strip()], file)


def _checked(names: list[str], file: Path) -> list[str]:
    if not names or len(set(names)) != len(names):
        raise UserError(f"{file}: got the class names {names}, expected at least one and each once")
    return names


def _read_darknet(file: Path) -> YoloMetadata:
    """``obj.data``: ``key = value`` in each line."""
    pairs = [line.split("=", 1) for line in read_text(file).splitlines() if "=" in line]
    values = {key.strip(): value.strip() for key, value in pairs}
    names = [file.parent / Path(values.get("names", "obj.names")).name, file.parent / values.get("names", "obj.names")]
    parts = {part_name(key) or key: [values[key]] for key in ("train", "valid", "test") if values.get(key)}
    return YoloMetadata(_read_names(next((name for name in names if name.is_file()), names[0])), parts, file=file)


def _read_yaml(file: Path, names_required: bool = True) -> YoloMetadata:
    data = _load_yaml(file)
    names: Any = data.get("names")
    if isinstance(names, dict):
        if sorted(map(str, names)) != sorted(map(str, range(len(names)))):
            raise UserError(f"{file}: 'names' has the keys {list(names)[:10]}, expected 0, 1, 2, ... without gaps")
        names = [name for _, name in sorted(names.items(), key=lambda pair: int(pair[0]))]
    if isinstance(names, str):
        names = [name for name in names.split() if name] if "," not in names else names.split(",")
    if names is not None and not isinstance(names, list):
        raise UserError(f"{file}: 'names' is {names!r}, expected a list of names, or a name for each number")
    names = [str(name).strip() for name in names or []]
    if names_required or names:
        _checked(names, file)
    parts: dict[str, list[str]] = {}
    for key in ("train", "val", "valid", "test"):
        value = data.get(key)
        if value:
            parts[part_name(key) or key] = [str(entry) for entry in (value if isinstance(value, list) else [value])]
    metadata = YoloMetadata(names, parts, str(data.get("path") or ""), file=file)
    if data.get("kpt_shape"):
        _add_keypoints(metadata, data, file)
    return metadata


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


def _add_keypoints(metadata: YoloMetadata, data: dict[str, Any], file: Path) -> None:
    shape = data["kpt_shape"]
    if not _are_integers(shape) or len(shape) != 2 or shape[0] < 1 or shape[1] not in (2, 3):
        raise UserError(f"{file}: 'kpt_shape' is {shape}, expected [count, 2] or [count, 3]")
    metadata.keypoints = (shape[0], shape[1])
    flip = data.get("flip_idx")
    if flip is not None and (not _are_integers(flip) or sorted(flip) != list(range(shape[0]))):
        raise UserError(f"{file}: 'flip_idx' is {flip}, expected each of 0 to {shape[0] - 1} once")
    metadata.flip = flip
    keypoint_names = data.get("kpt_names") or []
    if isinstance(keypoint_names, dict):
        keypoint_names = next(iter(keypoint_names.values()), [])
    names = [str(name) for name in keypoint_names] if isinstance(keypoint_names, list) else []
    if keypoint_names and (len(names) != shape[0] or len(set(names)) != shape[0]):
        raise UserError(f"{file}: 'kpt_names' has {keypoint_names}, expected {shape[0]} names, each once")
    metadata.keypoint_names = names


def _are_integers(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int for value in values)
