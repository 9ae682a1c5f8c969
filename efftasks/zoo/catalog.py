"""The published checkpoints that have a name."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

from efftasks.structures.errors import UserError

__all__ = ["PREFIX", "Entry", "catalog", "find", "find_model", "is_name"]

PREFIX = "zoo:"  # where a name stands in the place of a checkpoint file


@dataclass(frozen=True)
class Entry:
    """A published checkpoint.

    Attributes:
        name: such as ``dfine-n-coco``.
        family: whose names the tensors have; see :func:`efftasks.apis.converting.read_published`. Files of timm are
            kept as they are: backbones read them.
        task: det, pose or semseg; or backbone.
        config: name of the shipped config that it fits; empty of backbones.
        license: of the weights, as their authors state it.
        url: of the file, at its authors' address.
        page: where the authors publish it.
        sha256: the digest that the authors state, or its first digits; empty where they state none.
        latency_ms: median time of an image of the exported file in ONNX Runtime with 2 threads; None: not measured.
        backbone: type and variant of the backbone that it fits; empty of models.
        benchmark: the page below ``docs/benchmarks`` that has this time, with machine and date.
    """

    name: str
    family: str
    task: str
    config: str
    license: str
    url: str
    page: str
    sha256: str = ""
    latency_ms: float | None = None
    benchmark: str = ""
    backbone: tuple[str, ...] = ()

    @property
    def file(self) -> str:
        """Name of the file in the cache, and on a mirror: that of the entry, with the suffix of the authors' file."""
        return self.name + (Path(urlsplit(self.url).path).suffix or ".pth")

    @property
    def converted_file(self) -> str:
        """Name of the checkpoint in the cache."""
        return self.file if self.backbone else f"{self.name}.pth"


@cache
def catalog() -> dict[str, Entry]:
    """All entries by name."""
    data = json.loads(Path(__file__).with_name("catalog.json").read_text(encoding="utf-8"))
    return {
        name: Entry(name, **{**fields, "backbone": tuple(fields.get("backbone", ()))}) for name, fields in data.items()
    }


def is_name(path: str | Path) -> bool:
    """Whether this is a name, with or without its prefix: no file, and nothing that looks like one."""
    text = str(path)
    return text.startswith(PREFIX) or not (Path(text).suffix or len(Path(text).parts) != 1 or Path(text).exists())


def find(name: str) -> Entry:
    """The entry of a name, with or without its prefix.

    Raises:
        UserError: there is none; the message has the most similar name.
    """
    name = name.removeprefix(PREFIX)
    if name in catalog():
        return catalog()[name]
    near = difflib.get_close_matches(name, catalog(), n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}?" if near else "efftasks zoo lists the names"
    raise UserError(f"{name}: no such file, and no published checkpoint has this name; {hint}")


def find_model(name: str) -> Entry:
    """As :func:`find`, of what can predict.

    Raises:
        UserError: also if it is a backbone.
    """
    entry = find(name)
    if entry.backbone:
        raise UserError(
            f"{entry.name}: got a backbone, expected a model; a training takes it as "
            f"model.backbone.weights=zoo:{entry.name}"
        )
    return entry
